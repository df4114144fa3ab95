"""The page in Chromium, before the HTTP interface with a crew that hums: what a visitor does, on a phone and on a desk.

Selenium, because it is a client alone: browser and driver are the system's (Debian: chromium, chromium-driver), where
playwright would bring its own copies of node and of browsers.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn
from fake_crew import FakeCrew, Reply
from starlette.applications import Starlette
from starlette.routing import Mount

from deployments.api import SpeechApi
from deployments.keys import new_key
from deployments.settings import Settings
from voice_core.speech import Segment

webdriver = pytest.importorskip("selenium.webdriver", reason="drives the page with selenium; pip install .[browser]")
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
def serving(settings: Settings) -> Iterator[Served]:
    """Serve the HTTP interface under a prefix, from a thread of this process."""
    crew = PatientCrew()
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

    def set(self, slider: str, value: str) -> None:
        """Open the settings, which a phone hides at first, and write into the slider's number."""
        for details in self.all(f"details:has(number-slider[name='{slider}']):not([open])"):
            self.driver.execute_script("arguments[0].open = true", details)
        self.write(f"#speak number-slider[name='{slider}'] input[type='number']", value)

    def wait_for(self, selector: str, text: str = "", count: int = 1) -> list[Any]:
        """Return what is visible there, as soon as there are as many and one says `text`."""

        def there(_: Any) -> list[Any]:
            found = [element for element in self.all(selector) if element.is_displayed()]
            return found if len(found) >= count and any(text in element.text for element in found) else []

        waiting = WebDriverWait(self.driver, PATIENCE_SECONDS)
        return list(waiting.until(there, f"{count} of {selector} saying {text!r}"))

    @property
    def played_seconds(self) -> float:
        return float(self.one("section.result:not([hidden]) canvas[role='slider']").get_attribute("aria-valuenow"))

    def wait_until_playing(self) -> None:
        before = self.played_seconds
        WebDriverWait(self.driver, PATIENCE_SECONDS).until(lambda _: self.played_seconds > before)

    @property
    def complaints(self) -> list[str]:
        """What the browser wrote to its console; a refused request is not the page's fault."""
        return [entry["message"] for entry in self.driver.get_log("browser") if "status of 4" not in entry["message"]]


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
    assert page.played_seconds == 0
    picture.send_keys(Keys.ARROW_RIGHT)
    assert page.played_seconds == 1
    picture.click()  # in its middle
    assert page.played_seconds == pytest.approx(float(picture.get_attribute("aria-valuemax")) / 2, abs=0.1)
    picture.send_keys(Keys.SPACE)
    page.wait_until_playing()


def test_every_format_and_captions_can_be_downloaded(page: Page, tmp_path: Path) -> None:
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
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
    (tmp_path / "film.srt").write_text(SUBTITLES)
    page.click("#dub-tab")
    page.one("#cues-file").send_keys(str(tmp_path / "film.srt"))
    page.wait_for(".drop-title", "film.srt")
    page.click("#dub .main")
    page.wait_for("#dub .status", "Dubbed in")
    rows = page.wait_for(".cues tbody tr", count=3)
    assert "Good evening." in rows[0].text
    assert "1.50" in rows[0].text  # seconds asked
    page.click(".cues tbody tr:nth-child(2) .play")
    page.wait_for(".cues tbody tr:nth-child(2)[data-sounding]")


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
