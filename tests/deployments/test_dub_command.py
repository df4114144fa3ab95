"""The command that dubs, against a server on a port with a crew that hums."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
from fake_crew import FACTS, FakeCrew, Reply
from http_server import serving
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments import client as client_module
from deployments.__main__ import main
from deployments.api import SpeechApi
from deployments.settings import Settings
from voice_core.errors import SynthesisError
from voice_core.subtitles import read_cues

ROOT = Path(__file__).resolve().parents[2]
SRT = """1
00:00:01,000 --> 00:00:02,500
Hello there, you.

2
00:00:03,000 --> 00:00:04,000
How are things?
"""
ALPHABET = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ',.?!"


@pytest.fixture
def crew() -> FakeCrew:
    return FakeCrew()


@pytest.fixture
def url(crew: FakeCrew) -> Iterator[str]:
    with serving(SpeechApi(Settings(), crew).routes()) as url:
        yield url


@pytest.fixture
def film(tmp_path: Path) -> Path:
    file = tmp_path / "film.srt"
    file.write_text(SRT, encoding="utf-8")
    return file


def run(url: str, film: Path, *options: object) -> int:
    return main(["dub", str(film), "-o", str(film.with_suffix(".wav")), "--url", url, *map(str, options)])


def test_a_film_becomes_a_track_a_report_and_captions(
    url: str, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, captions = tmp_path / "film.json", tmp_path / "heard.vtt"
    assert run(url, film, "--report", report, "--captions", captions, "--track-seconds", 10) == 0
    assert soundfile.info(film.with_suffix(".wav")).duration == 10
    assert [row["placed_seconds"] for row in json.loads(report.read_text())["cues"]] == [1.0, 3.0]
    assert read_cues(captions.read_bytes()).cues == read_cues(SRT).cues
    told = capsys.readouterr()
    assert told.out == f"{film.with_suffix('.wav')}: 2 cues on 10.000 s, 0 spoken before; no flags\n"
    assert "2 of 2 cues" in told.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.json", "film.srt", "film.wav", "heard.vtt"]


def test_what_is_given_reaches_the_decoder(url: str, film: Path, crew: FakeCrew) -> None:
    options = [
        "--seed",
        7,
        "--temperature",
        0.5,
        "--best-of",
        2,
        "--seconds-tolerance",
        "off",
        "--loudness-lufs",
        "off",
    ]
    assert run(url, film, *options, "--language", "en", "--no-cache") == 0
    assert {(segment.sampling.temperature, len(segment.seeds)) for segment in crew.segments} == {(0.5, 2)}


def test_the_ending_of_the_track_says_its_format(url: str, film: Path, tmp_path: Path) -> None:
    track = tmp_path / "film.flac"
    assert main(["dub", str(film), "-o", str(track), "--url", url]) == 0
    assert soundfile.info(track).format == "FLAC"


def test_cues_come_from_standard_input_too(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(SRT.encode())))
    assert main(["dub", "-", "-o", str(tmp_path / "film.wav"), "--url", url]) == 0


def test_words_that_nobody_hears_are_told_and_are_an_exit_code(
    url: str, film: Path, crew: FakeCrew, capsys: pytest.CaptureFixture[str]
) -> None:
    crew.facts_reply = Reply(replace(FACTS, alphabet=ALPHABET))
    film.write_text(SRT.replace("How are things?", "こんにちは"), encoding="utf-8")
    assert run(url, film) == 3
    told = capsys.readouterr()
    assert "1 unreadable" in told.out
    assert "cue 2 at 3 s is unreadable: this voice can't read 'こ'" in told.err
    assert film.with_suffix(".wav").is_file()


@pytest.mark.parametrize(
    ("srt", "options", "message"),
    [
        ("nonsense", [], "error: cues: are neither SRT nor WebVTT"),
        (SRT.replace("03,000", "0x,000"), [], "error: cues: cue 2: line 6:"),
        (SRT, ["--voice", "Nobody"], "error: voice: there is no voice 'Nobody'"),
        (SRT, ["--speaker", "Ann"], "error: --speaker Ann: must be NAME=VOICE"),
        (SRT, ["--captions", "heard.doc"], "error: captions heard.doc: must end in one of .srt, .vtt, .json"),
        (SRT, ["--report", "/nowhere/report.json"], "error: /nowhere/report.json: there is no folder /nowhere"),
        (SRT, ["-o", "film.docx"], "error: output film.docx: must end in one of"),
        (SRT, ["--url", "http://127.0.0.1:1"], "error: http://127.0.0.1:1: "),
        (SRT, ["--url", "nonsense"], "error: nonsense: no URL such as"),
        (SRT, ["--temperature", "9"], "error: temperature: "),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing_behind(
    url: str, film: Path, srt: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    film.write_text(srt, encoding="utf-8")
    assert run(url, film, *options) == 1
    told = capsys.readouterr().err
    assert told.startswith(message)
    assert told.count("\n") == 1
    assert [path.name for path in film.parent.iterdir()] == ["film.srt"]


def test_a_file_that_is_not_utf8_is_told_as_such(url: str, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film.write_bytes(b"1\n\xe4")
    assert run(url, film) == 1
    assert "is not UTF-8 (byte 2)" in capsys.readouterr().err


def test_what_fails_on_the_way_leaves_the_track_of_a_run_before(
    url: str, film: Path, crew: FakeCrew, capsys: pytest.CaptureFixture[str]
) -> None:
    film.with_suffix(".wav").write_bytes(b"of a run before")
    crew.speak_failure = SynthesisError("no codes")
    assert run(url, film, "--on-bad-segment", "retry") == 1
    assert film.with_suffix(".wav").read_bytes() == b"of a run before"
    assert "could not be spoken: no codes" in capsys.readouterr().err
    assert len(list(film.parent.iterdir())) == 2


class BusyAtFirst:
    """Refuses some requests as a server does that has too much to do."""

    def __init__(self, app: ASGIApp, refusals: int, status: int = 429) -> None:
        self._app = app
        self.refusals = refusals
        self._status = status
        self.bodies: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.refusals:
            await self._app(scope, receive, send)
            return
        self.refusals -= 1
        self.bodies.append(await Request(scope, receive).json())
        error = {"message": "too much", "type": "rate_limit_error", "param": None, "code": "overloaded"}
        answer: Response = JSONResponse({"error": error}, self._status, {"Retry-After": "3"})
        await answer(scope, receive, send)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(
    crew: FakeCrew, film: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(client_module.time, "sleep", slept.append)
    with serving(BusyAtFirst(SpeechApi(Settings(), crew).routes(), 2, status)) as url:
        assert run(url, film) == 0
    assert slept.count(3.0) == 2


def test_patience_ends(crew: FakeCrew, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(BusyAtFirst(SpeechApi(Settings(), crew).routes(), 2)) as url:
        assert run(url, film, "--patience", 1) == 1
    assert "error: too much" in capsys.readouterr().err


def test_ctrl_c_is_an_exit_code_and_a_sentence(
    url: str, film: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("deployments.dub_command.Progress.tell", interrupt)
    assert run(url, film) == 130
    assert "speaks only the rest" in capsys.readouterr().err
    assert [path.name for path in film.parent.iterdir()] == ["film.srt"]


def test_a_client_needs_no_ray() -> None:
    program = "import sys; sys.modules['ray'] = None; from deployments.__main__ import main; main(['dub', '--help'])"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("usage: python -m deployments dub")


OUT_OF_TIME = b'data: {"type": "dub.error", "error": {"message": "time is up", "code": "deadline_exceeded"}}\n\n'


class BreaksOnce:
    """Cuts the first answer, or so many, off after its first event, with some last words."""

    def __init__(self, app: ASGIApp, last_words: bytes = b"", times: int = 1) -> None:
        self._app = app
        self._times = times
        self._last_words = last_words
        self.requests = 0
        self.keys: list[str | None] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        self.keys.append(Request(scope).headers.get("authorization"))
        breaks = self.requests <= self._times

        async def send_or_break(message: Message) -> None:
            await send(message)
            if breaks and b"dub.progress" in message.get("body", b""):
                await send({"type": "http.response.body", "body": self._last_words})
                raise asyncio.CancelledError

        with suppress(asyncio.CancelledError):
            await self._app(scope, receive, send_or_break)


def test_a_track_that_gets_no_further_is_given_up(
    crew: FakeCrew, film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cache that is smaller than the track forgets its beginning while the end is spoken."""
    app = BreaksOnce(SpeechApi(Settings(segment_cache="off"), crew).routes(), OUT_OF_TIME, times=9)
    with serving(app) as url:
        assert run(url, film) == 1
    assert app.requests == 2
    assert "no further than cue 1 of the track" in capsys.readouterr().err


@pytest.mark.parametrize("last_words", [b"", OUT_OF_TIME])
def test_a_broken_answer_is_asked_for_again_and_only_the_rest_is_spoken(
    crew: FakeCrew, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], last_words: bytes
) -> None:
    app = BreaksOnce(SpeechApi(Settings(), crew).routes(), last_words)
    report = tmp_path / "report.json"
    with serving(app) as url:
        assert run(url, film, "--report", report, "--api-key", "secret") == 0
    assert app.keys == ["Bearer secret"] * 2
    assert "asking again for the rest" in capsys.readouterr().err
    assert json.loads(report.read_text())["cues"][0]["cached"] is True
    assert len(crew.segments) == 2
