"""Voices over HTTP, asked by a client in the same process, with a crew that hums."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fake_crew import FACTS, FakeCrew, Reply
from starlette.requests import Request
from starlette.testclient import TestClient

from deployments import voice_desk
from deployments.api import SpeechApi
from deployments.body import read_form
from deployments.errors import ApiError
from deployments.settings import Settings
from deployments.voice_encoder import VoiceEncoder
from tests.voices.recordings import audio_file, hum
from tests.voices.test_reference import MALFORMED
from voice_core.speech import BuiltInVoice, VoicePrompt
from voice_core.voices.store import Voice, VoiceStore

WORDS = "This is what I said."
CONSENT = "It is my voice, and I agree."
RECORDING = audio_file(hum())
LARGEST_BYTES = 4_000_000


def client_of(folder: Path, crew: FakeCrew, **settings: Any) -> TestClient:
    chosen = Settings(voices=str(folder), largest_upload_bytes=LARGEST_BYTES, **settings)
    return TestClient(SpeechApi(chosen, crew).routes(), raise_server_exceptions=False)


@pytest.fixture
def crew() -> FakeCrew:
    return FakeCrew()


@pytest.fixture
def client(crew: FakeCrew, tmp_path: Path) -> TestClient:
    return client_of(tmp_path, crew)


def test_a_place_of_voices_that_hangs_costs_only_those_who_ask_for_voices(
    crew: FakeCrew, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    monkeypatch.setattr(voice_desk, "STORE_SECONDS", 0.05)
    monkeypatch.setattr(VoiceStore, "find", lambda *_: over.wait(10))
    try:
        for _ in range(2 * voice_desk.THREADS):
            answer = speak(client, "Ann")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
        assert speak(client).status_code == 200
    finally:
        over.set()


def create(client: TestClient, file: bytes = RECORDING, **changes: str | None) -> Any:
    fields = {"name": "Ann", "transcript": WORDS, "consent": CONSENT} | changes
    texts = {name: text for name, text in fields.items() if text is not None}
    return client.post("/v1/audio/voices", data=texts, files={"audio_sample": ("sample.wav", file, "audio/wav")})


def speak(client: TestClient, voice: Any = "default", **fields: Any) -> Any:
    least = {"model": "voice", "voice": voice, "input": "Hello there.", "response_format": "wav"}
    return client.post("/v1/audio/speech", json=least | fields)


def refusal(answer: Any) -> dict[str, Any]:
    document = answer.json()
    assert set(document) == {"error"}
    return dict(document["error"])


def test_a_voice_has_openais_shape(client: TestClient) -> None:
    voice = create(client).json()
    assert (voice["object"], voice["type"], voice["name"]) == ("audio.voice", "audio_sample", "Ann")
    assert isinstance(voice["created_at"], int)
    assert (voice["transcript"], voice["seconds"]) == (WORDS, 2.0)
    assert client.get(f"/v1/audio/voices/{voice['id']}").json() == voice


def test_all_voices_are_listed_and_the_default_is_always_there(client: TestClient) -> None:
    made = [create(client, name=name).json() for name in ("Ann", "Bob")]
    listed = client.get("/v1/audio/voices").json()
    assert listed["object"] == "list"
    assert listed["data"][1:] == made
    assert listed["data"][0]["id"] == "default"
    assert client.get("/v1/audio/voices/default").json() == listed["data"][0]
    assert not listed["has_more"]
    names = [(voice["id"], voice["name"]) for voice in listed["voices"]]  # Open WebUI reads no more
    assert names == [("default", "default"), *((voice["id"], voice["name"]) for voice in made)]


def test_voices_that_come_with_the_model_are_listed_and_speak(client: TestClient, crew: FakeCrew) -> None:
    prompt = VoicePrompt((3,) * 75, "This is alto.", "en")
    crew.facts_reply = Reply(replace(FACTS, built_in_voices=(BuiltInVoice("alto", prompt),)))
    made = create(client).json()
    listed = client.get("/v1/audio/voices").json()["data"]
    assert [voice["id"] for voice in listed] == ["default", "alto", made["id"]]
    assert (listed[1]["transcript"], listed[1]["seconds"]) == ("This is alto.", 1.5)
    assert client.get("/v1/audio/voices/alto").json() == listed[1]

    assert speak(client, "alto").status_code == 200
    assert crew.segments[0].prompt == replace(prompt, code_fingerprint=FACTS.code_fingerprint)


def test_a_kept_voice_longer_than_the_setting_allows_now_is_refused_by_its_field(
    client: TestClient, crew: FakeCrew, tmp_path: Path
) -> None:
    create(client)  # of 2 s
    told = refusal(speak(client_of(tmp_path, crew, longest_reference_seconds=1.5), "Ann"))
    assert told["param"] == "voice"
    assert "'Ann' takes 2.0 s, at most 1.5 s are taken now" in told["message"]
    assert crew.segments == []
    assert speak(client_of(tmp_path, crew, longest_reference_seconds=2), "Ann").status_code == 200


def test_a_voice_that_comes_with_the_model_keeps_its_name_and_stays(client: TestClient, crew: FakeCrew) -> None:
    voice = BuiltInVoice("alto", VoicePrompt((3,) * 75, "This is alto."))
    crew.facts_reply = Reply(replace(FACTS, built_in_voices=(voice,)))
    taken = create(client, name="alto")
    assert taken.status_code == 400
    assert refusal(taken)["param"] == "name"
    assert client.delete("/v1/audio/voices/alto").status_code == 400
    assert client.get("/v1/audio/voices/alto/sample").status_code == 404


def test_the_sample_is_played_back(client: TestClient) -> None:
    voice = create(client).json()
    answer = client.get(f"/v1/audio/voices/{voice['id']}/sample")
    samples, sample_rate = soundfile.read(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == "audio/flac"
    assert (len(samples), sample_rate) == (32000, 16000)


@pytest.mark.parametrize("by", ["name", "id", "object"])
def test_a_created_voice_speaks_at_once(client: TestClient, crew: FakeCrew, by: str) -> None:
    voice = create(client).json()
    wanted: Any = {"name": "Ann", "id": voice["id"], "object": {"id": voice["id"]}}[by]
    assert speak(client, wanted).status_code == 200
    (segment,) = crew.segments
    assert segment.prompt is not None
    assert segment.prompt.transcript == WORDS
    assert len(segment.prompt.codes) == 100


def test_every_segment_carries_the_voice(client: TestClient, crew: FakeCrew) -> None:
    create(client)
    speak(client, "Ann", input="Here is one line.\nAnd here is another.")
    one, other = crew.segments
    assert one.prompt == other.prompt is not None


def test_the_default_voice_has_no_prompt(client: TestClient, crew: FakeCrew) -> None:
    create(client)
    speak(client)
    assert crew.segments[0].prompt is None


def test_a_voice_survives_a_restart(client: TestClient, crew: FakeCrew, tmp_path: Path) -> None:
    create(client)
    assert speak(client_of(tmp_path, crew), "Ann").status_code == 200
    assert crew.segments[0].prompt is not None
    assert crew.learned == 1


def test_a_slow_speaker_is_imitated_slowly(client: TestClient, crew: FakeCrew) -> None:
    create(client, name="Fast", transcript=f"{WORDS} {WORDS} {WORDS}")
    create(client, name="Slow", transcript="So.")
    for name in ("Fast", "Slow"):
        speak(client, name, input="The cat sat on the mat and looked at all of us")
    fast, slow = crew.segments
    assert slow.seconds > 1.5 * fast.seconds


def test_the_language_that_was_said_counts_not_the_one_that_seems(client: TestClient, crew: FakeCrew) -> None:
    """Ideographs alone seem Chinese, of which a phoneme takes longer."""
    create(client, name="Seems", transcript="東京都品川区")
    create(client, name="Is", transcript="東京都品川区", language="ja")
    for name in ("Seems", "Is"):
        speak(client, name, input="The cat sat on the mat and looked at all of us")
    seems, really = crew.segments
    assert seems.seconds != really.seconds


def test_a_deleted_voice_is_gone_for_good(client: TestClient, crew: FakeCrew, tmp_path: Path) -> None:
    voice = create(client).json()
    deleted = client.delete(f"/v1/audio/voices/{voice['id']}")
    assert deleted.json() == {"id": voice["id"], "object": "audio.voice.deleted", "deleted": True}
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(crew.forgotten) == 1
    assert refusal(speak(client, "Ann"))["param"] == "voice"
    for method, path in (("GET", ""), ("GET", "/sample"), ("DELETE", "")):
        assert client.request(method, f"/v1/audio/voices/{voice['id']}{path}").status_code == 404


def test_the_default_voice_has_no_sample_and_stays(client: TestClient) -> None:
    assert client.get("/v1/audio/voices/default/sample").status_code == 404
    assert client.delete("/v1/audio/voices/default").status_code == 400
    assert speak(client).status_code == 200


def test_codes_of_another_models_codec_are_made_anew(client: TestClient, crew: FakeCrew, tmp_path: Path) -> None:
    create(client)
    crew.facts_reply = Reply(replace(FACTS, code_fingerprint="another codec"))
    crew.code_fingerprint = "another codec"
    assert speak(client_of(tmp_path, crew), "Ann").status_code == 200
    assert crew.learned == 2


def test_codes_of_a_codec_that_the_decoder_has_not_are_never_spoken(
    client: TestClient, crew: FakeCrew, tmp_path: Path
) -> None:
    """While a changed model loads, the encoder may have its codec already, or the decoder may be the first."""
    create(client)
    crew.code_fingerprint = "another codec"
    recording = base64.b64encode(RECORDING).decode()
    answers = [speak(client, reference_audio=recording, reference_text=WORDS)]
    assert speak(client, "Ann").status_code == 200  # whose codes were kept
    crew.facts_reply = Reply(replace(FACTS, code_fingerprint="a third codec"))
    answers.append(speak(client_of(tmp_path, crew), "Ann"))
    for answer in answers:
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
    assert len(crew.segments) == 1


def test_no_more_voices_are_kept_than_the_operator_wants(crew: FakeCrew, tmp_path: Path) -> None:
    client = client_of(tmp_path, crew, most_voices=1)
    assert create(client).status_code == 200
    assert "1 voices are kept already" in refusal(create(client))["message"]


# A voice for one request


@pytest.mark.parametrize("form", [False, True])
def test_a_voice_may_come_with_the_request_and_is_not_kept(
    client: TestClient, crew: FakeCrew, tmp_path: Path, form: bool
) -> None:
    if form:
        texts = {"model": "voice", "voice": "default", "input": "Hello there.", "reference_text": WORDS, "seed": "5"}
        answer = client.post("/v1/audio/speech", data=texts, files={"reference_audio": ("me.wav", RECORDING)})
        assert answer.headers["x-seed"] == "5"
    else:
        answer = speak(client, reference_audio=base64.b64encode(RECORDING).decode(), reference_text=WORDS)
    assert answer.status_code == 200
    (segment,) = crew.segments
    assert segment.prompt is not None
    assert segment.prompt.transcript == WORDS
    assert list(tmp_path.rglob("*")) == []


def test_a_text_without_a_recording_is_refused(client: TestClient, crew: FakeCrew) -> None:
    assert refusal(speak(client, reference_text=WORDS))["param"] == "reference_text"
    assert not crew.segments


def test_without_a_transcript_both_ways_out_are_told(client: TestClient, crew: FakeCrew) -> None:
    spoken = speak(client, reference_audio=base64.b64encode(RECORDING).decode())
    for answer, param in ((spoken, "reference_text"), (create(client, transcript=None), "transcript")):
        error = refusal(answer)
        assert (answer.status_code, error["param"]) == (400, param)
        assert "what is said in the recording" in error["message"]
        assert "whisper_model" in error["message"]
    assert crew.learned == 0


def test_with_a_whisper_the_transcript_is_written_down(crew: FakeCrew, tmp_path: Path) -> None:
    client = client_of(tmp_path, crew, whisper_model="whisper")
    assert create(client, transcript=None, language="ja-JP").json()["transcript"] == crew.transcript
    speak(client, reference_audio=base64.b64encode(RECORDING).decode())
    assert crew.transcribed == ["ja-JP", None]
    assert crew.segments[0].prompt is not None
    assert crew.segments[0].prompt.transcript == crew.transcript
    crew.transcript = ""
    assert "no speech was found" in refusal(create(client, transcript=None))["message"]


def test_a_transcript_that_is_too_long_once_its_figures_are_spoken_is_refused(crew: FakeCrew, tmp_path: Path) -> None:
    """A voice that could be kept and never speak."""
    crew.facts_reply = Reply(replace(FACTS, text_normaliser="english_words"))
    client = client_of(tmp_path, crew, whisper_model="whisper")
    years = "1974 and " * 80
    crew.transcript = years
    recording = base64.b64encode(RECORDING).decode()
    for answer, param in (
        (create(client, transcript=years), "transcript"),
        (create(client, transcript=None), "transcript"),
        (speak(client, reference_audio=recording, reference_text=years), "reference_text"),
    ):
        error = refusal(answer)
        assert (answer.status_code, error["param"]) == (400, param)
        assert "as it is spoken, at most 750" in error["message"]


def test_a_place_of_voices_that_fails_is_told_to_come_back_to(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(client)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(VoiceStore, "_write", full)
    answer = create(client)
    assert (answer.status_code, refusal(answer)["code"]) == (503, "not_ready")
    assert len(client.get("/v1/audio/voices").json()["data"]) == 2


def test_a_voice_that_was_kept_too_late_is_taken_back(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that was told 503 makes it again, and must not find it twice."""
    store_create, over = VoiceStore.create, threading.Event()

    def slow(self: VoiceStore, *args: Any) -> Voice:
        over.wait(10)
        return store_create(self, *args)

    monkeypatch.setattr(voice_desk, "STORE_SECONDS", 0.5)
    monkeypatch.setattr(VoiceStore, "create", slow)
    assert create(client).status_code == 503
    taken_back = threading.Event()
    delete = VoiceStore.delete
    monkeypatch.setattr(VoiceStore, "delete", lambda *args: (delete(*args), taken_back.set()))
    over.set()
    assert taken_back.wait(10)
    assert VoiceStore(str(tmp_path)).voices() == []


def test_a_large_body_needs_a_recording_in_it(client: TestClient) -> None:
    recording = audio_file(hum(29.0, 22050), 22050)
    assert len(recording) > 1_048_576
    large = speak(client, reference_audio=base64.b64encode(recording).decode(), reference_text=WORDS)
    assert large.status_code == 200
    assert speak(client, input="x" * 1_100_000).status_code == 413


# What is refused


def multipart(*parts: tuple[str, bytes]) -> bytes:
    """A body of parts, each its header and its content."""
    lines = [f"--edge\r\n{header}\r\n\r\n".encode() + content + b"\r\n" for header, content in parts]
    return b"".join(lines) + b"--edge--\r\n"


def part(name: str, content: bytes, filename: str | None = None) -> tuple[str, bytes]:
    file = f'; filename="{filename}"' if filename else ""
    return f'Content-Disposition: form-data; name="{name}"{file}', content


NAME, CONSENTED, SAID = part("name", b"Ann"), part("consent", CONSENT.encode()), part("transcript", WORDS.encode())
FILE = part("audio_sample", RECORDING, "a.wav")
MALFORMED_BODIES = {
    "no body": b"",
    "no form": b"hello",
    "cut in the file": multipart(NAME, CONSENTED, SAID, FILE)[:-2000],
    "no file": multipart(NAME, CONSENTED, SAID),
    "two files": multipart(NAME, CONSENTED, SAID, FILE, FILE),
    "a file without a name": multipart(NAME, CONSENTED, SAID, ('Content-Disposition: form-data; filename="a"', b"x")),
    "a text as the file": multipart(NAME, CONSENTED, SAID, part("audio_sample", b"hello")),
    "a file as the name": multipart(part("name", b"Ann", "a.txt"), CONSENTED, SAID),
    "two names": multipart(NAME, NAME, CONSENTED, SAID, FILE),
    "unknown field": multipart(NAME, CONSENTED, SAID, FILE, part("colour", b"red")),
    "too many fields": multipart(*[part(f"field{number}", b"") for number in range(40)]),
    "no headers in a part": b"--edge\r\n\r\nhello\r\n--edge--\r\n",
}
MALFORMED_FIELDS: dict[str, dict[str, str | None]] = {
    "no name": {"name": None},
    "empty name": {"name": ""},
    "path in the name": {"name": "../../etc/passwd"},
    "null in the name": {"name": "a\0b"},
    "long name": {"name": "x" * 65},
    "reserved name": {"name": "default"},
    "no consent": {"consent": None},
    "blank consent": {"consent": "  "},
    "no transcript": {"transcript": None},
    "a book as transcript": {"transcript": "word " * 1000},
    "no language": {"language": "?"},
    "a voice of words": {"type": "prompt"},
}


@pytest.fixture
def nothing_is_left(client: TestClient, crew: FakeCrew, tmp_path: Path) -> Iterator[None]:
    yield
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert len(client.get("/v1/audio/voices").json()["data"]) == 1


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("name", MALFORMED)
def test_a_recording_that_holds_no_voice_is_refused(client: TestClient, name: str) -> None:
    file, reason = MALFORMED[name]
    answer = create(client, file)
    assert (answer.status_code, refusal(answer)["param"]) == (400, "audio_sample")
    assert reason.replace("\\", "") in refusal(answer)["message"]


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("name", MALFORMED_FIELDS)
def test_a_wrong_field_is_refused_by_name(client: TestClient, crew: FakeCrew, name: str) -> None:
    answer = create(client, **MALFORMED_FIELDS[name])
    assert answer.status_code == 400
    assert refusal(answer)["param"] in MALFORMED_FIELDS[name]
    assert crew.learned == 0


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("name", MALFORMED_BODIES)
def test_a_body_that_is_no_right_form_is_refused(client: TestClient, name: str) -> None:
    kind = {"content-type": "multipart/form-data; boundary=edge"}
    answer = client.post("/v1/audio/voices", content=MALFORMED_BODIES[name], headers=kind)
    assert answer.status_code == 400
    assert refusal(answer)["message"]


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", "text/plain"])
def test_a_body_of_another_kind_is_refused(client: TestClient, kind: str) -> None:
    answer = client.post("/v1/audio/voices", content=json.dumps({"name": "Ann"}), headers={"content-type": kind})
    assert answer.status_code in (400, 415)


def test_a_body_of_300_mb_is_refused_by_its_header(client: TestClient) -> None:
    kind = {"content-type": "multipart/form-data; boundary=edge", "content-length": "300000000"}
    answer = client.post("/v1/audio/voices", content=b"", headers=kind)
    assert (answer.status_code, refusal(answer)["code"]) == (413, "request_too_large")


def test_a_body_of_unknown_length_is_not_read_beyond_the_limit() -> None:
    taken_bytes = 0

    async def receive() -> dict[str, Any]:
        nonlocal taken_bytes
        taken_bytes += 1_000_000
        return {"type": "http.request", "body": bytes(1_000_000), "more_body": True}

    endless = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(ApiError) as refused:
        asyncio.run(read_form(endless, largest_bytes=LARGEST_BYTES))
    assert refused.value.status == 413
    assert taken_bytes == LARGEST_BYTES + 1_000_000


def test_a_stereo_mp3_is_taken(client: TestClient) -> None:
    stereo = np.stack([hum(3.0, 44100), hum(3.0, 44100, pitch=121)], axis=1)
    assert create(client, audio_file(stereo, 44100, "MP3", "MPEG_LAYER_III")).status_code == 200


def test_a_voice_is_gone_also_when_no_encoder_answers(
    client: TestClient, crew: FakeCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: str) -> None:
        raise RuntimeError("the encoder can't be loaded")

    async def hang(_: str) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(voice_desk, "FORGET_SECONDS", 0.05)
    for forget in (fail, hang):
        voice = create(client).json()
        monkeypatch.setattr(crew, "forget", forget)
        assert client.delete(f"/v1/audio/voices/{voice['id']}").status_code == 200
        assert client.get(f"/v1/audio/voices/{voice['id']}").status_code == 404


def test_an_encoder_that_never_learned_has_nothing_to_forget() -> None:
    undecorated: Any = VoiceEncoder
    encoder = undecorated.func_or_class(Settings(model="/nowhere"))
    asyncio.run(encoder.forget("hash"))


@pytest.mark.parametrize("content", [None, b"", b"something else"])
def test_a_voice_whose_files_are_lost_is_told_to_be_and_can_be_deleted(
    client: TestClient, crew: FakeCrew, tmp_path: Path, content: bytes | None
) -> None:
    voice = create(client).json()
    for path in (tmp_path / "objects" / voice["id"]).iterdir():
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
    sample = client.get(f"/v1/audio/voices/{voice['id']}/sample")
    assert (sample.status_code, refusal(sample)["param"]) == (410, "voice_id")
    assert (speak(client, "Ann").status_code, refusal(speak(client, "Ann"))["param"]) == (400, "voice")
    assert client.delete(f"/v1/audio/voices/{voice['id']}").status_code == 200
    assert list(tmp_path.rglob("*.json")) == []


def test_a_voice_whose_record_cannot_be_read_can_be_deleted(client: TestClient, crew: FakeCrew, tmp_path: Path) -> None:
    voice = create(client).json()
    (tmp_path / "records" / f"{voice['id']}.json").write_text("{")
    fresh = client_of(tmp_path, crew)
    assert fresh.get(f"/v1/audio/voices/{voice['id']}").status_code == 404
    assert fresh.delete(f"/v1/audio/voices/{voice['id']}").status_code == 200
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("transcript", ["!!!", "\U0001f600", "\u200b"])
def test_a_transcript_without_a_letter_or_number_is_refused(
    client: TestClient, crew: FakeCrew, tmp_path: Path, transcript: str
) -> None:
    answer = create(client, transcript=transcript)
    assert (answer.status_code, refusal(answer)["param"]) == (400, "transcript")
    spoken = speak(client, reference_audio=base64.b64encode(RECORDING).decode(), reference_text=transcript)
    assert (spoken.status_code, refusal(spoken)["param"]) == (400, "reference_text")
    crew.transcript = transcript
    heard = create(client_of(tmp_path, crew, whisper_model="whisper"), transcript=None)
    assert (heard.status_code, refusal(heard)["param"]) == (400, "audio_sample")
