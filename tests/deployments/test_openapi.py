"""The description of the API: it knows every route, every field and every kind of answer."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fake_crew import FakeCrew
from starlette.applications import Starlette
from starlette.testclient import TestClient

from deployments.api import SpeechApi
from deployments.docs_page import page
from deployments.dub_request import DubRequest
from deployments.keys import new_key
from deployments.openapi import VERSION, http_routes, operations
from deployments.settings import Settings
from deployments.speech_request import SpeechRequest
from deployments.voice_request import FILE, TEXTS
from tests.voices.recordings import audio_file, hum
from voice_core.audio.formats import FORMATS

LEAST = {"model": "voice", "voice": "default", "input": "Here is the first line.\nThere is the second one."}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def crew() -> FakeCrew:
    return FakeCrew()


@pytest.fixture
def api(tmp_path: Path, crew: FakeCrew) -> Starlette:
    return SpeechApi(Settings(voices=str(tmp_path), longest_text_characters=100), crew).routes()


@pytest.fixture
def client(api: Starlette) -> TestClient:
    return TestClient(api, raise_server_exceptions=False)


@pytest.fixture
def description(client: TestClient) -> dict[str, Any]:
    return dict(client.get("/openapi.json").json())


def conforms(description: dict[str, Any], name: str, value: Any) -> None:
    """Check a value against a named schema; fields that the schema doesn't name are refused."""

    def closed(schema: Any) -> Any:
        if isinstance(schema, list):
            return [closed(one) for one in schema]
        if not isinstance(schema, dict):
            return schema
        more = {"additionalProperties": False} if "properties" in schema else {}
        return more | {key: closed(inner) for key, inner in schema.items()}

    schemas = {"$ref": f"#/components/schemas/{name}", "components": closed(description["components"])}
    jsonschema.validate(value, schemas)


def test_every_route_is_described_and_nothing_else_is(api: Starlette, description: dict[str, Any]) -> None:
    routes = set(http_routes(api.routes))
    assert set(operations(Settings())) == routes
    described = {(method.upper(), path) for path, of_path in description["paths"].items() for method in of_path}
    assert described == routes


def test_every_field_of_a_request_says_what_it_means(description: dict[str, Any]) -> None:
    for path, model in (("/v1/audio/speech", SpeechRequest), ("/v1/audio/dub", DubRequest)):
        request = description["components"]["schemas"][model.__name__]
        form = description["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert set(request["properties"]) == set(form["properties"]) == set(model.model_fields)
        assert all(of_field["description"] for of_field in request["properties"].values())
    voice = description["paths"]["/v1/audio/voices"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(voice["properties"]) == {*TEXTS, FILE}


def test_what_the_settings_decide_stands_in_the_description(description: dict[str, Any]) -> None:
    assert description["components"]["schemas"]["SpeechRequest"]["properties"]["input"]["maxLength"] == 100


def test_every_reference_leads_somewhere(description: dict[str, Any]) -> None:
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(description)):
        place: Any = description
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_the_version_is_the_packages() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


def test_every_example_is_spoken(client: TestClient, description: dict[str, Any]) -> None:
    for path in ("/v1/audio/speech", "/v1/audio/speech/estimate", "/v1/audio/dub"):
        content = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            answer = client.post(path, json=example["value"])
            assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("audio_format", FORMATS)
def test_every_kind_of_file_is_among_the_answers(
    client: TestClient, description: dict[str, Any], audio_format: str
) -> None:
    answers = description["paths"]["/v1/audio/speech"]["post"]["responses"]["200"]
    answer = client.post("/v1/audio/speech", json=LEAST | {"response_format": audio_format})
    assert answer.headers["content-type"] in answers["content"]
    told = {name for name in answer.headers if name.startswith("x-")}
    assert told <= {name.lower() for name in answers["headers"]}


def test_objects_have_the_shapes_that_are_described(client: TestClient, description: dict[str, Any]) -> None:
    more = {"n": 2, "best_of": 2, "captions": "json", "manifest": True}
    conforms(description, "SpeechObject", client.post("/v1/audio/speech", json=LEAST | more).json())
    conforms(description, "Quote", client.post("/v1/audio/speech/estimate", json=LEAST | more).json())
    conforms(description, "ModelList", client.get("/v1/models").json())
    conforms(description, "Alive", client.get("/healthz").json())
    conforms(description, "Ready", client.get("/readyz").json())
    conforms(description, "ErrorEnvelope", client.post("/v1/audio/speech", json={}).json())
    fields = {"name": "Ann", "transcript": "So this is said.", "consent": "I agree."}
    voice = client.post("/v1/audio/voices", data=fields, files={"audio_sample": audio_file(hum())}).json()
    conforms(description, "VoiceObject", voice)
    conforms(description, "VoiceList", client.get("/v1/audio/voices").json())
    conforms(description, "DeletedVoice", client.delete(f"/v1/audio/voices/{voice['id']}").json())


def events_of(answer: Any) -> list[dict[str, Any]]:
    return [json.loads(event.removeprefix("data: ")) for event in answer.text.split("\n\n")[:-1]]


def test_a_dub_has_the_shapes_that_are_described(client: TestClient, description: dict[str, Any]) -> None:
    cues = [{"start_seconds": 0.5, "end_seconds": 2, "text": "Hello there."}, {"start_seconds": 2, "end_seconds": 3}]
    cues[1] |= {"text": "Well?", "speaker": "Ann"}
    wanted = {"model": "voice", "voice": "default", "cues": cues, "captions": "json"}
    conforms(description, "DubRequest", wanted)
    conforms(description, "DubObject", client.post("/v1/audio/dub", json=wanted).json())
    *cues_and_track, done = events_of(client.post("/v1/audio/dub", json=wanted | {"stream_format": "sse"}))
    for event in cues_and_track:
        name = "DubProgressEvent" if event["type"] == "dub.progress" else "DubDeltaEvent"
        conforms(description, name, event)
    conforms(description, "DubDoneEvent", done)


def test_where_keys_are_asked_for_the_description_says_so(tmp_path: Path) -> None:
    key, line = new_key("ann")
    (tmp_path / "keys").write_text(line)
    client = TestClient(SpeechApi(Settings(api_keys=str(tmp_path / "keys")), FakeCrew()).routes())
    paths = client.get("/openapi.json", headers={"authorization": f"Bearer {key}"}).json()["paths"]
    for path, of_path in paths.items():
        for method, operation in of_path.items():
            refused = client.request(method, path.format(voice_id="default", name="page.css")).status_code == 401
            assert refused == ("401" in operation["responses"]) == ("security" in operation), path


def test_events_have_the_shapes_that_are_described(client: TestClient, description: dict[str, Any]) -> None:
    wanted = LEAST | {"stream_format": "sse", "manifest": True, "captions": "srt", "response_format": "mp3"}
    *deltas, done = events_of(client.post("/v1/audio/speech", json=wanted))
    for delta in deltas:
        conforms(description, "DeltaEvent", delta)
    conforms(description, "DoneEvent", done)


def test_errors_in_events_have_the_shapes_that_are_described(
    client: TestClient, description: dict[str, Any], crew: FakeCrew
) -> None:
    crew.silent_segments = (1,)
    told = events_of(client.post("/v1/audio/speech", json=LEAST | {"stream_format": "sse"}))
    conforms(description, "ErrorEvent", told[-1])


def test_without_keys_the_description_says_that_pages_of_other_origins_are_refused(
    client: TestClient, description: dict[str, Any]
) -> None:
    assert all("403" in one["responses"] for of_path in description["paths"].values() for one in of_path.values())
    conforms(description, "ErrorEnvelope", client.get("/v1/models", headers={"Origin": "http://evil"}).json())


def test_the_page_names_every_route_and_field_and_asks_for_nothing_outside(
    client: TestClient, description: dict[str, Any]
) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert all(path in answer.text for path in description["paths"])
    assert all(f"<code>{field}</code>" in answer.text for field in SpeechRequest.model_fields)
    assert not re.search(r"<script|src=|https?://|href=\"/", answer.text)


def test_nothing_of_the_description_is_taken_for_html(description: dict[str, Any]) -> None:
    description["info"]["description"] = "<b> & `<i>`"
    assert "<p>&lt;b&gt; &amp; <code>&lt;i&gt;</code></p>" in page(description)


def test_a_wrong_method_is_told_all_right_ones(client: TestClient) -> None:
    assert client.put("/v1/audio/voices").headers["allow"] == "GET, HEAD, POST"
    assert client.put("/v1/audio/voices/default").headers["allow"] == "DELETE, GET, HEAD"
