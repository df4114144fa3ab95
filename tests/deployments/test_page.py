"""The page: how it is served, and that what it says and offers agrees with the server and with itself."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_crew import FakeCrew
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from deployments.api import SpeechApi
from deployments.dub_request import DubRequest
from deployments.dub_script import Fault
from deployments.page_routes import FOLDER
from deployments.settings import Settings
from deployments.speech_request import SpeechRequest
from voice_core.audio.formats import FORMATS
from voice_core.speech import FinishReason
from voice_core.timeline import Flag

FILES = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
SCRIPTS = {name: text for name, text in FILES.items() if name.endswith(".js")}
STRINGS: dict[str, dict[str, str]] = json.loads(
    re.search(r"STRINGS = (\{.*\});", FILES["strings.js"], re.DOTALL)[1]  # type: ignore[index]
)


class Elements(HTMLParser):
    """All elements of a page: tag, attributes, and the id of the form that they stand in."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.form = ""
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "form":
            self.form = dict(attrs)["id"] or ""
        self.found.append((tag, dict(attrs), self.form))


ELEMENTS = Elements(FILES["index.html"]).found
MODELS: dict[str, type[BaseModel]] = {"speak": SpeechRequest, "dub": DubRequest}
LEAST = {
    "speak": {"model": "voice", "voice": "default", "input": "Words."},
    "dub": {"model": "voice", "voice": "default", "cues": "WEBVTT"},
}
SLIDERS = [
    pytest.param(form, attributes, id=f"{form} {attributes['name']}")
    for tag, attributes, form in ELEMENTS
    if tag == "number-slider"
]


@pytest.fixture
def client() -> TestClient:
    return TestClient(SpeechApi(Settings(), FakeCrew()).routes())


def test_the_page_is_at_the_root(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text == FILES["index.html"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_part_has_its_type_and_may_do_nothing_foreign(client: TestClient, name: str) -> None:
    answer = client.get(f"/page/{name}")
    media_type = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    assert answer.headers["content-type"].startswith(media_type[Path(name).suffix])
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


def test_a_part_that_has_not_changed_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/page/page.js")
    again = client.get("/page/page.js", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert first.headers["cache-control"] == "no-cache"
    assert again.status_code == 304
    assert again.content == b""
    assert client.get("/page/page.css", headers={"If-None-Match": first.headers["etag"]}).status_code == 200


@pytest.mark.parametrize("name", ["other.js", "..%2Fapi.py", "%2Fetc%2Fpasswd"])
def test_nothing_but_the_page_is_served(client: TestClient, name: str) -> None:
    answer = client.get(f"/page/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_the_page_and_its_parts_are_found_under_a_prefix() -> None:
    """A reverse proxy may put the server anywhere: everything is asked for relative to the page."""
    api = SpeechApi(Settings(), FakeCrew()).routes()
    client = TestClient(Starlette(routes=[Mount("/speech", api)]), base_url="http://host/speech/")
    assert client.get("http://host/speech").url == "http://host/speech/"
    asked = re.findall(r'(?:href|src)="([^"]+)"', client.get("").text)
    assert asked
    assert all(client.get(address).status_code == 200 for address in asked)


def test_no_file_names_another_host_or_the_root_of_this_one() -> None:
    for name, text in FILES.items():
        addresses = re.findall(r"""https?://[^\s"'`)]+|["'`(](?://|/\w)[^"'`)]*""", text)
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, name  # the name of a language, not an address


def test_no_script_or_style_stands_in_the_page_itself() -> None:
    for tag, attributes, _ in ELEMENTS:
        assert tag != "style"
        assert tag != "script" or "src" in attributes
        assert not any(name == "style" or name.startswith("on") for name in attributes)


def test_every_string_is_there_in_english_and_japanese() -> None:
    for key, said in STRINGS.items():
        assert set(said) == {"en", "ja"}, key
        assert all(said.values()), key
        english, japanese = (sorted(re.findall(r"\{\w+\}", said[language])) for language in ("en", "ja"))
        assert english == japanese, key


def test_the_page_says_what_is_in_the_table_and_the_table_holds_nothing_else() -> None:
    html = FILES["index.html"]
    used = set(re.findall(r'data-(?:text|label|placeholder)="(\w+)"', html))
    used |= {str(attributes["name"]) for tag, attributes, _ in ELEMENTS if tag == "number-slider"}
    assert used <= set(STRINGS)
    scripts = "".join(text for name, text in SCRIPTS.items() if name != "strings.js")
    unused = {key for key in STRINGS if key not in used and f'"{key}"' not in scripts}
    assert all(key.startswith(("finish_", "flag_")) for key in unused)  # followed by a word of the server's


def test_the_page_has_words_for_every_way_to_end_and_for_every_flag_of_a_cue() -> None:
    assert {key.removeprefix("finish_") for key in STRINGS if key.startswith("finish_")} == set(FinishReason)
    assert {key.removeprefix("flag_") for key in STRINGS if key.startswith("flag_")} == {*Fault, *Flag}


def test_what_is_said_in_a_script_is_in_the_table() -> None:
    for name, script in SCRIPTS.items():
        said = re.findall(r'\b(?:tell|text)\("(\w+)"|\b(?:say|label)\([^;]*?, "(\w+)"', script)
        assert {first or second for first, second in said} <= set(STRINGS), name


def test_labels_are_of_fields_that_there_are() -> None:
    ids = [attributes["id"] for _, attributes, _ in ELEMENTS if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes, _ in ELEMENTS:
        for reference in ("for", "aria-controls", "aria-labelledby", "aria-describedby"):
            assert attributes.get(reference) is None or attributes[reference] in ids


def test_what_scripts_import_is_there_and_everything_there_is_used() -> None:
    imported = {name for script in SCRIPTS.values() for name in re.findall(r'"\./([\w.-]+)"', script)}
    assert imported | {"page.js"} == set(SCRIPTS)


@pytest.mark.parametrize(("form", "slider"), SLIDERS)
def test_the_server_takes_both_ends_of_a_slider(form: str, slider: dict[str, str | None]) -> None:
    for end in ("min", "max"):
        MODELS[form].model_validate(LEAST[form] | {str(slider["name"]): json.loads(str(slider[end]))})


@pytest.mark.parametrize(("form", "slider"), SLIDERS)
def test_a_slider_begins_where_the_server_would(form: str, slider: dict[str, str | None]) -> None:
    default = MODELS[form].model_fields[str(slider["name"])].default
    assert json.loads(slider.get("value") or "null") == default


def test_every_format_that_can_be_written_is_on_offer() -> None:
    """And aac, which is written where PyAV is installed; elsewhere the server says what to install."""
    assert set(re.findall(r"<option>(\w+)</option>", FILES["index.html"])) == {*FORMATS, "aac"}
