"""The command that speaks a manifest, against a server on a port with a crew that hums."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from fake_crew import FakeCrew, Reply, spoken
from http_server import serving
from test_dub_command import BusyAtFirst

from deployments import client as client_module
from deployments.__main__ import main
from deployments.api import SpeechApi
from deployments.bulk_manifest import Job, read_manifest
from deployments.settings import Settings
from voice_core.errors import SynthesisError
from voice_core.speech import Segment


class BulkCrew(FakeCrew):
    """Fails on texts that ask for it."""

    def speak(self, segment: Segment) -> Reply:
        self.segments.append(segment)
        return Reply(SynthesisError("no codes") if "fail" in segment.text else spoken(segment))


@pytest.fixture
def crew() -> BulkCrew:
    return BulkCrew()


@pytest.fixture
def url(crew: BulkCrew) -> Iterator[str]:
    with serving(SpeechApi(Settings(segment_cache="off"), crew).routes()) as url:
        yield url


def run(url: str, folder: Path, *lines: dict[str, Any] | str, options: tuple[str, ...] = ()) -> int:
    manifest = folder / "manifest.jsonl"
    manifest.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8"
    )
    return main(["bulk", str(manifest), str(folder / "out"), "--url", url, *options])


def files(folder: Path) -> list[str]:
    out = folder / "out"
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def errors(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "errors.jsonl").read_text().splitlines()]


LINES = (
    {"input": "Hello.", "seed": 1},
    {"id": "bye", "input": "Goodbye.", "seed": 1, "response_format": "flac"},
    {"id": 7, "input": "In a folder.", "seed": 1, "output": "a/b.mp3"},
)


def test_every_line_becomes_a_file(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(url, tmp_path, *LINES, "", "   ") == 0
    assert files(tmp_path) == [".done.jsonl", "000001.wav", "a/b.mp3", "bye.flac"]
    for file, kind in (("000001.wav", "WAV"), ("a/b.mp3", "MP3"), ("bye.flac", "FLAC")):
        assert soundfile.info(tmp_path / "out" / file).format == kind
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: 3 spoken, 0 were there, 0 failed\n"


def test_a_second_run_speaks_only_what_is_missing_or_another(
    url: str, tmp_path: Path, crew: BulkCrew, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(url, tmp_path, *LINES) == 0
    assert run(url, tmp_path, *LINES) == 0
    assert len(crew.segments) == 3
    (tmp_path / "out" / "000001.wav").unlink()
    (tmp_path / "out" / "a" / "b.mp3").write_bytes(b"half")
    assert run(url, tmp_path, LINES[0], LINES[1] | {"input": "Good night."}, LINES[2]) == 0
    assert [segment.text for segment in crew.segments[3:]].count("Good night.") == 1
    assert len(crew.segments) == 6
    assert run(url, tmp_path, LINES[0], LINES[2]) == 0
    assert "0 spoken, 2 were there" in capsys.readouterr().out
    assert len(crew.segments) == 6


def test_what_a_killed_run_left_is_cleared_and_half_a_line_forgotten(url: str, tmp_path: Path, crew: BulkCrew) -> None:
    assert run(url, tmp_path, *LINES) == 0
    done = tmp_path / "out" / ".done.jsonl"
    done.write_text("\n".join(done.read_text().splitlines()[:2]) + '\n{"output": "a/', encoding="utf-8")
    (tmp_path / "out" / ".000009.wav.123.part").write_bytes(b"half")
    assert run(url, tmp_path, *LINES) == 0
    assert len(crew.segments) == 4
    assert files(tmp_path) == [".done.jsonl", "000001.wav", "a/b.mp3", "bye.flac"]
    assert run(url, tmp_path, *LINES) == 0
    assert len(crew.segments) == 4


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON"),
        ("[1]", "must be a JSON object"),
        ({"id": "x"}, "input: is required"),
        ({"input": "Hi", "tempo": 2}, "tempo: is not a field"),
        ({"input": "Hi", "voice": "Nobody"}, "voice: there is no voice 'Nobody'"),
        ({"input": "Hi", "n": 2}, "n: a line is one file here"),
        ({"input": "Hi", "stream_format": "sse"}, "stream_format: a line is one file here"),
        ({"input": "Hi", "output": "../x.wav"}, "output: '../x.wav' is no file name inside the folder"),
        ({"input": "Hi", "output": "/x.wav"}, "output: '/x.wav' is no file name"),
        ({"input": "Hi", "id": "../x"}, "id: '../x.wav' is no file name"),
        ({"input": "Hi", "output": "bye.flac"}, "output: 'bye.flac' is that of line 2 too"),
        ({"input": "Hi", "output": "bye.flac/x.wav"}, "is in a folder 'bye.flac', which is the file of line 2"),
        ({"input": "Hi", "output": "a"}, "output: 'a' is the folder of that of line 3"),
        ({"input": "Hi", "id": "é" * 120}, "id: a name has 244 bytes, at most 240 may be"),
        ({"input": "Hi", "id": "\ud800"}, "is no file name: half of a surrogate pair"),
        ({"input": "Hi", "output": "errors.jsonl", "response_format": "wav"}, "is where errors are written"),
        ({"input": "Hi", "manifest": True}, "manifest: a line is one file here"),
        ({"input": "Hi", "captions": "srt"}, "captions: a line is one file here"),
        ({"input": "Hi", "output": "."}, "output: '.' is no file name"),
        ({"input": "Hi", "output": "hi.m4a"}, "output: '.m4a' is none of .wav, .mp3"),
        ({"input": "Hi", "output": 5}, "output: must be the name of a file"),
        ({"input": "Please fail."}, "could not be spoken: no codes"),
    ],
)
def test_a_line_that_fails_is_told_and_the_others_are_spoken(
    url: str, tmp_path: Path, line: dict[str, Any] | str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(url, tmp_path, *LINES, line) == 1
    assert set(files(tmp_path)) == {".done.jsonl", "000001.wav", "a/b.mp3", "bye.flac", "errors.jsonl"}
    (error,) = errors(tmp_path)
    assert error["line"] == 4
    assert reason in error["error"]["message"]
    assert "3 spoken, 0 were there, 1 failed; see" in capsys.readouterr().out
    assert run(url, tmp_path, *LINES) == 0
    assert "errors.jsonl" not in files(tmp_path)


def test_a_busy_server_is_asked_again(crew: BulkCrew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(client_module.time, "sleep", slept.append)
    with serving(BusyAtFirst(SpeechApi(Settings(), crew).routes(), 5)) as url:
        assert run(url, tmp_path, *LINES, options=("--concurrency", "2")) == 0
    assert slept.count(3.0) == 5


def test_no_more_requests_are_in_flight_than_asked_for(
    crew: BulkCrew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_flight = most = 0
    post = client_module.Server.post

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        try:
            return post(*arguments, **options)
        finally:
            in_flight -= 1

    monkeypatch.setattr(client_module.Server, "post", counted)
    with serving(SpeechApi(Settings(), crew).routes()) as url:
        assert (
            run(
                url,
                tmp_path,
                *({"input": f"Number {n}.", "id": f"{n}"} for n in range(20)),
                options=("--concurrency", "3"),
            )
            == 0
        )
    assert most <= 3
    assert len(crew.segments) == 20


def test_a_server_that_is_not_there_ends_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("http://127.0.0.1:1", tmp_path, *LINES) == 1
    assert capsys.readouterr().err.startswith("error: http://127.0.0.1:1: ")


def test_a_manifest_that_is_not_there_ends_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bulk", str(tmp_path / "nowhere.jsonl"), str(tmp_path / "out")]) == 1
    assert "nowhere.jsonl" in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_there(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("deployments.bulk_command.Progress.tell", interrupt)
        assert run(url, tmp_path, *LINES) == 130
    assert "goes on where this one ended" in capsys.readouterr().err
    assert run(url, tmp_path, *LINES) == 0
    assert "2 spoken, 1 were there" in capsys.readouterr().out


def test_a_file_of_one_model_is_no_answer_to_what_another_is_asked(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text('{"input": "Hi", "output": "hi.aac"}\n')
    one, other = (read_manifest(str(manifest), "default", "wav", model)[0] for model in ("embedded", "a/b"))
    assert isinstance(one, Job)
    assert isinstance(other, Job)
    assert one.request["response_format"] == "aac"
    assert one.key != other.key


def test_what_ray_data_lacks_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert run("", tmp_path, *LINES, options=("--ray-data",)) == 1
    told = capsys.readouterr().err
    assert told == "error: --ray-data needs pyarrow, which isn't installed: pip install 'voice-serve[bulk]'\n"
