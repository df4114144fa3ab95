"""The page in Chromium, before the HTTP interface with a crew that hums: what a visitor does, on a phone and on a desk.

Selenium, because it is a client alone: browser and driver are the system's (Debian: chromium, chromium-driver), where
playwright would bring its own copies of node and of browsers.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn
from fake_crew import FACTS, FakeCrew, Reply
from starlette.applications import Starlette
from starlette.routing import Mount

from deployments.api import SpeechApi
from deployments.errors import not_ready
from deployments.keys import new_key
from deployments.settings import Settings
from voice_core.speech import Segment

webdriver = pytest.importorskip("selenium.webdriver", reason="drives the page with selenium; pip install .[browser]")
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]

PREFIX = "/speech"  # a reverse proxy's: nothing may depend on standing at the root
PATIENCE_SECONDS = 20
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--lang=en",
    "--use-fake-device-for-media-stream",  # its microphone beeps once a second
    "--use-fake-ui-for-media-stream",  # and may be used without asking
)
TEXT = "The harbour was quiet that morning. A single boat came in with the tide."
SUBTITLES = """1
00:00:00,500 --> 00:00:02,000
Good evening.

2
00:00:03,000 --> 00:00:05,500
Tonight we go back to where it all began.

3
00:00:06,000 --> 00:00:07,000
And then?
"""
ONE_CUE = """WEBVTT

00:00.500 --> 00:02.000
<v {speaker}>Good evening.
"""


class Size(NamedTuple):
    width: int
    height: int
    mobile: bool


PHONE, DESK = Size(390, 844, mobile=True), Size(1280, 900, mobile=False)


class PatientCrew(FakeCrew):
    """Speaks as soon as a test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = False

    def speak(self, segment: Segment) -> Reply:
        return PatientReply(self, super().speak(segment))


class PatientReply(Reply):
    def __init__(self, crew: PatientCrew, reply: Reply) -> None:
        super().__init__()
        self._crew = crew
        self._reply = reply

    async def _wait(self) -> object:
        while self._crew.waits:
            await asyncio.sleep(0.05)
        return await self._reply


class Served(NamedTuple):
    address: str
    crew: PatientCrew


@contextmanager
def serving(settings: Settings, facts: Reply | None = None) -> Iterator[Served]:
    """Serve the HTTP interface under a prefix, from a thread of this process; `facts` are the crew's first word."""
    crew = PatientCrew()
    crew.facts_reply = facts or crew.facts_reply
    app = Starlette(routes=[Mount(PREFIX, SpeechApi(settings, crew).routes())])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Served(f"http://127.0.0.1:{port}{PREFIX}/", crew)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(Settings(voices=str(tmp_path_factory.mktemp("voices")))) as served:
        yield served


@pytest.fixture(scope="module", params=[PHONE, DESK], ids=["phone", "desk"])
def chromium(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    size = {**request.param._asdict(), "deviceScaleFactor": 1}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield driver
    driver.quit()


class Page:
    """What a visitor sees and does."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def click(self, selector: str) -> None:
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", self.one(selector))
        self.one(selector).click()

    def write(self, selector: str, text: str) -> None:
        self.one(selector).clear()
        self.one(selector).send_keys(text)

    def open_settings(self, setting: str) -> None:
        """Open what a phone hides at first."""
        for details in self.all(f"details:has({setting}):not([open])"):
            self.driver.execute_script("arguments[0].open = true", details)

    def set(self, slider: str, value: str) -> None:
        """Write into the slider's number."""
        self.open_settings(f"number-slider[name='{slider}']")
        self.write(f"number-slider[name='{slider}'] input[type='number']", value)

    def choose_cues(self, file: Path, cues: str) -> None:
        file.write_text(cues)
        self.one("#cues-file").send_keys(str(file))
        self.wait_for(".drop-title", file.name)

    def keep_downloads_in(self, folder: Path) -> None:
        behaviour = {"behavior": "allow", "downloadPath": str(folder)}
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)

    def wait_for(self, selector: str, text: str = "", count: int = 1) -> list[Any]:
        """Return what is visible there, as soon as there are as many and one says `text`."""

        def there(_: Any) -> list[Any]:
            found = [element for element in self.all(selector) if element.is_displayed()]
            return found if len(found) >= count and any(text in element.text for element in found) else []

        replaced = [StaleElementReferenceException]  # between being found and being read
        waiting = WebDriverWait(self.driver, PATIENCE_SECONDS, ignored_exceptions=replaced)
        return list(waiting.until(there, f"{count} of {selector} saying {text!r}"))

    @property
    def played_seconds(self) -> float:
        return float(self.one("section.result:not([hidden]) canvas[role='slider']").get_attribute("aria-valuenow"))

    def wait_until_playing(self) -> None:
        before = self.played_seconds
        WebDriverWait(self.driver, PATIENCE_SECONDS).until(lambda _: self.played_seconds > before)

    def wait_until_at(self, seconds: float, *, give_or_take: float = 0.0) -> None:
        """The picture follows what is played by a frame."""
        there = pytest.approx(seconds, abs=give_or_take)
        WebDriverWait(self.driver, PATIENCE_SECONDS).until(lambda _: self.played_seconds == there)

    @property
    def complaints(self) -> list[str]:
        """What the browser wrote to its console; a refused request is not the page's fault."""
        messages = [entry["message"] for entry in self.driver.get_log("browser")]
        return [message for message in messages if not re.search("status of [45]", message)]


@pytest.fixture
def page(chromium: Any, served: Served) -> Iterator[Page]:
    served.crew.waits = False
    chromium.get(served.address)
    page = Page(chromium)
    page.wait_for("#model", "fake")
    yield page
    assert page.complaints == []
    assert page.driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def speak(page: Page, text: str = TEXT) -> None:
    page.write("#input", text)
    page.click("#speak .main")
    page.wait_for("#speak .status", "Spoken in")


def test_a_text_is_estimated_spoken_played_and_taken_apart(page: Page) -> None:
    page.write("#input", TEXT)
    page.wait_for("#estimate", "in 2 segments")
    page.click("#speak .main")
    page.wait_for("#speak .status", "first sound after")
    segments = page.wait_for(".segments li", count=2)
    assert "The harbour was quiet that morning." in segments[0].text
    assert "ended by itself" in segments[1].text
    page.wait_until_playing()
    page.click(".segments li:nth-child(2) .play")
    page.wait_for(".segments li:nth-child(2)[data-sounding]")


def test_a_number_may_have_a_point_or_a_sign(page: Page) -> None:
    """While it is typed it is no number yet, and must stay as it stands."""
    page.write("#input", TEXT)
    page.set("seconds", "2.5")
    page.wait_for("#estimate", "About 2.5 s")
    page.set("min_p", "0.00")  # the default, however it is written
    assert page.one("#speak input[name='top_p']").is_enabled()
    page.click("#dub-tab")
    page.set("loudness_lufs", "-14")
    assert page.one("#dub input[name='loudness_lufs']").get_attribute("value") == "-14"


def test_four_samples_come_as_cards_and_a_seed_can_be_used_again(page: Page) -> None:
    page.set("n", "4")
    speak(page)
    cards = page.wait_for(".takes li", count=4)
    seeds = {card.find_element("css selector", ".seed").text for card in cards}
    assert len(seeds) == 4
    page.click(".takes li:nth-child(3) .play")
    page.wait_until_playing()
    assert page.one(".takes li:nth-child(3)").get_attribute("data-shown") is not None
    page.click(".takes li:nth-child(3) .reuse")
    assert f"Seed {page.one('#seed').get_attribute('value')}" == cards[2].find_element("css selector", ".seed").text


def test_the_picture_of_the_sound_is_sought_with_pointer_and_keys(page: Page) -> None:
    speak(page)
    picture = page.one("#speak canvas[role='slider']")
    page.click("#speak .transport .play")  # pause
    page.driver.execute_script("arguments[0].focus()", picture)
    picture.send_keys(Keys.HOME)
    page.wait_until_at(0)
    picture.send_keys(Keys.ARROW_RIGHT)
    page.wait_until_at(1)
    picture.click()  # in its middle
    page.wait_until_at(float(picture.get_attribute("aria-valuemax")) / 2, give_or_take=0.1)
    picture.send_keys(Keys.SPACE)
    page.wait_until_playing()


def test_every_format_and_captions_can_be_downloaded(page: Page, tmp_path: Path) -> None:
    page.keep_downloads_in(tmp_path)
    speak(page)
    page.set("speed", "1")  # opens the settings
    page.one("#response_format").send_keys("flac")
    page.click("#speak .download-audio")
    page.wait_for("#speak .status", ".flac is there")
    page.click("#speak .download-srt")
    page.wait_for("#speak .status", ".srt is there")
    WebDriverWait(page.driver, PATIENCE_SECONDS).until(lambda _: len(list(tmp_path.glob("speech-*.[fs]*"))) == 2)
    (flac,), (srt,) = tmp_path.glob("*.flac"), tmp_path.glob("*.srt")
    assert flac.read_bytes().startswith(b"fLaC")
    assert "The harbour was quiet that morning." in srt.read_text()


def test_captions_are_fetched_while_other_samples_are_spoken(page: Page, served: Served, tmp_path: Path) -> None:
    page.keep_downloads_in(tmp_path)
    page.set("n", "4")
    speak(page)
    served.crew.waits = True
    page.click("#speak .main")
    page.wait_for("#speak .status", "Speaking")
    page.click("#speak .download-srt")
    page.wait_for("#speak .status", ".srt is there")
    served.crew.waits = False
    page.wait_for("#speak .status", "Spoken in")


def test_an_error_is_shown_as_the_server_says_it_beside_the_field_that_it_is_about(page: Page) -> None:
    page.set("temperature", "9")
    page.write("#input", TEXT)
    page.click("#speak .main")
    page.wait_for("#speak .alert", "temperature: input should be less than or equal to 2")
    number = page.one("#speak input[name='temperature']")
    assert number.get_attribute("aria-invalid") == "true"
    assert page.driver.switch_to.active_element == number


def test_what_has_no_effect_is_told_as_the_server_tells_it(page: Page) -> None:
    page.set("inter_segment_silence", "1")
    speak(page, "One sentence.")
    page.wait_for("#speak .warnings li", "inter_segment_silence: has no effect, there is one segment")
    page.set("n", "2")
    speak(page, "One sentence.")
    page.wait_for("#speak .warnings li", "inter_segment_silence: has no effect, there is one segment")


def test_the_keyboard_speaks_and_cancels(page: Page, served: Served) -> None:
    served.crew.waits = True
    page.write("#input", TEXT)
    page.one("#input").send_keys(Keys.CONTROL, Keys.ENTER)
    page.wait_for("#speak .cancel")
    page.one("#input").send_keys(Keys.ESCAPE)
    page.wait_for("#speak .status", "Cancelled")
    assert not page.one("#speak .cancel").is_displayed()


def test_escape_cancels_nothing_that_is_not_seen(page: Page, served: Served, tmp_path: Path) -> None:
    served.crew.waits = True
    page.click("#dub-tab")
    page.choose_cues(tmp_path / "film.srt", SUBTITLES.replace("evening", "morning"))  # which the server has no cache of
    page.click("#dub .main")
    page.wait_for("#dub progress")
    page.click("#dub .main")  # once more, in place of the first
    page.click("#speak-tab")
    page.one("#input").send_keys(Keys.ESCAPE)
    page.click("#dub-tab")
    page.wait_for("#dub progress")
    page.one("#dub-tab").send_keys(Keys.ESCAPE)
    page.wait_for("#dub .status", "Cancelled")
    assert not page.one("#dub progress").is_displayed()


def test_a_voice_is_recorded_kept_chosen_and_deleted(page: Page) -> None:
    page.click("#voices-tab")
    page.click("#record")
    page.wait_for(".recording-state", "Recording, 2 s")
    page.click("#record")
    page.wait_for(".recording-state", "recording.wav, ")
    page.write("#voice-name", "Ann")
    page.write("#transcript", "Beep, beep.")
    page.write("#consent", "I am Ann, and I agree.")
    page.click("#new-voice .main")
    page.wait_for("#new-voice .status", "Ann is kept, and chosen")
    page.wait_for(".kept li", "Beep, beep.")
    assert page.driver.execute_script("return document.getElementById('voice').selectedOptions[0].text") == "Ann"
    page.click(".kept .danger")
    page.wait_for(".kept .danger", "Delete for good?")
    page.click(".kept .danger")
    page.wait_for("#voices .status", "Ann is deleted")
    assert len(page.all(".kept li")) == 1


def test_subtitles_are_dubbed(page: Page, tmp_path: Path) -> None:
    page.click("#dub-tab")
    page.choose_cues(tmp_path / "film.srt", SUBTITLES)
    page.click("#dub .main")
    page.wait_for("#dub .status", "Dubbed in")
    rows = page.wait_for(".cues tbody tr", count=3)
    assert "Good evening." in rows[0].text
    assert "1.50" in rows[0].text  # seconds asked
    page.click(".cues tbody tr:nth-child(2) .play")
    page.wait_for(".cues tbody tr:nth-child(2)[data-sounding]")


def test_speakers_go_by_the_names_that_the_server_reads(page: Page, tmp_path: Path) -> None:
    page.click("#dub-tab")
    page.open_settings("#dub-voice")
    page.choose_cues(tmp_path / "film.json", '[{"speaker": "Ann  Lee "}]')
    page.wait_for(".speakers label", "Voice of Ann Lee")
    page.choose_cues(tmp_path / "film.vtt", ONE_CUE.format(speaker="Ann"))
    page.wait_for(".speakers label", "Voice of Ann")
    page.choose_cues(tmp_path / "film.vtt", ONE_CUE.format(speaker="Tom &amp; Ann"))  # the same file, corrected
    page.wait_for(".speakers label", "Voice of Tom & Ann")
    page.one(".speakers select").send_keys("The model")
    page.click("#dub .main")
    page.wait_for("#dub .status", "Dubbed in")
    assert "spoken by" not in page.one("#dub .warnings").text  # said of a voice that is meant for nobody


def test_remarks_on_a_cue_leave_room_for_its_words(page: Page, tmp_path: Path) -> None:
    starts = (500, 540, 560, 600)  # far too close, so that much is to be remarked
    cues = [f"00:00:00,{start} --> 00:00:00,{start + 40}\n{TEXT}\n" for start in starts]
    page.click("#dub-tab")
    page.choose_cues(tmp_path / "film.srt", "\n".join(cues))
    page.click("#dub .main")
    page.wait_for("#dub .status", "with remarks on 4 of 4 cues")
    remarks = page.wait_for(".cues .remarks", "runs over too far", count=4)
    assert page.one(".cues .words").rect["width"] > max(cell.rect["width"] for cell in remarks) / 2


def test_the_page_speaks_japanese_and_stays_so(page: Page) -> None:
    page.click("#language")
    assert page.one("#speak .main").text == "読み上げる"
    page.driver.refresh()
    page.wait_for("#speak .main", "読み上げる")
    page.click("#language")
    assert page.one("#speak .main").text == "Speak"


def test_light_and_dark_can_be_switched(page: Page) -> None:
    def background() -> str:
        return str(page.driver.execute_script("return getComputedStyle(document.body).backgroundColor"))

    before = background()
    page.click("#theme")
    assert background() != before
    page.click("#theme")
    assert background() == before


def test_a_server_that_wants_a_key_is_asked_again_with_one(page: Page, tmp_path: Path) -> None:
    key, line = new_key("ann")
    (tmp_path / "keys.jsonl").write_text(line + "\n")
    with serving(Settings(voices=str(tmp_path / "voices"), api_keys=str(tmp_path / "keys.jsonl"))) as served:
        page.driver.get(served.address)
        page.wait_for("#key-reason", "an API key is needed")
        page.write("#key-value", key)
        page.click("#key button")
        page.wait_for("#model", "fake")
        speak(page)
        assert not page.one("#key").is_displayed()
        page.driver.get("about:blank")  # before the server goes, or the page asks it once more


def test_voices_are_asked_for_again_until_the_model_is_loaded(page: Page, tmp_path: Path) -> None:
    loading = Reply(not_ready("it is being loaded"))
    with serving(Settings(voices=str(tmp_path / "voices")), facts=loading) as served:
        page.driver.get(served.address)
        page.click("#voices-tab")
        page.wait_for("#voices .alert", "Try again in 5 s")
        served.crew.facts_reply = Reply(FACTS)
        page.wait_for(".kept li", "The model’s own")
        page.driver.get("about:blank")
