"""Answers on their way: in order, sample for sample the whole, and with an end that tells how it ended."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import pytest
import soundfile
from fake_crew import FACTS, FakeCrew, Reply, spoken
from starlette.testclient import TestClient

from deployments import streaming
from deployments.api import SpeechApi
from deployments.composer import compose
from deployments.settings import Settings
from deployments.speaking import Utterance
from deployments.streaming import Recording, with_keep_alive
from tests.audio.ffmpeg import heard_by_ffmpeg
from voice_core.audio.formats import FORMATS
from voice_core.errors import SynthesisError
from voice_core.speech import FinishReason, Segment, Speech

TEXT = "Here is the first line.\nThere is the second one.\nAnd that was the third."
FLAC_HEAD_BYTES = 42
RATE = 16000  # Hz
LEAST = {"model": "voice", "voice": "default", "input": TEXT, "seed": 5, "seconds": 6, "inter_segment_silence": 0.25}


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("audio_format", ["mp3", "aac"])
def test_places_are_those_at_which_a_player_hears_the_segments(audio_format: str, streams: bool) -> None:
    """Both begin with a delay of the codec's, of which only a whole mp3 tells players."""
    if audio_format not in FORMATS:
        pytest.skip("PyAV is an optional extra")
    times = np.arange(RATE) / RATE
    sounds = [(0.4 * np.sin(2 * np.pi * (200 + 100 * place * times) * times)).astype(np.float32) for place in (1, 2)]
    segments = [Segment("One.", 1.0), Segment("Two.", 1.0, index=1)]
    speeches = [Speech(sound, RATE, 0, FinishReason.STOP, 1.0) for sound in sounds]
    if streams:
        recording = Recording(audio_format, RATE, 0.25)
        utterances = map(Utterance, segments, speeches)
        file = b"".join(asyncio.run(recording.add(one)) for one in utterances) + asyncio.run(recording.close())
        places = [(row["start_sample"], row["end_sample"]) for row in recording.rows]
        samples = recording.samples
    else:
        composed = compose(speeches, audio_format, 0.25)
        file, samples = composed.audio, composed.samples
        places = [(span.start_samples, span.end_samples) for span in composed.spans]
    heard, rate = heard_by_ffmpeg(file)
    assert rate == RATE
    assert 0 <= len(heard) - samples < 1024  # what fills the last frame
    for sound, (start, end) in zip(sounds, places, strict=True):
        assert np.corrcoef(heard[start:end], sound[: end - start])[0, 1] > 0.97


@pytest.fixture
def crew() -> FakeCrew:
    return FakeCrew()


@pytest.fixture
def client(crew: FakeCrew) -> TestClient:
    return TestClient(SpeechApi(Settings(), crew).routes(), raise_server_exceptions=False)


def speak(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/audio/speech", json=LEAST | fields)


def events_of(answer: Any) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = answer.text.split("\n\n")
    assert lines.pop() == ""
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def sound_of(events: list[dict[str, Any]]) -> bytes:
    return b"".join(base64.b64decode(event["audio"]) for event in events if event["type"] == "speech.audio.delta")


def samples_of(audio: bytes, audio_format: str) -> np.ndarray:
    if audio_format == "pcm":
        return np.frombuffer(audio, dtype="<i2")
    return soundfile.read(io.BytesIO(audio), dtype="float32")[0]


@pytest.mark.parametrize("audio_format", ["wav", "pcm", "mp3", "opus", "flac", "wav_float32"])
def test_streamed_samples_are_those_of_the_whole(client: TestClient, audio_format: str) -> None:
    whole = speak(client, response_format=audio_format)
    streamed = speak(client, response_format=audio_format, stream_format="audio")
    assert streamed.headers["content-type"] == whole.headers["content-type"]
    assert streamed.headers["x-sample-rate"] == whole.headers["x-sample-rate"]
    assert streamed.headers["x-seed"] == "5"
    assert "content-length" not in streamed.headers
    if audio_format == "mp3":  # a stream has no info frame, the rest is the same to the bit
        assert whole.content.endswith(streamed.content)
    elif audio_format == "flac":  # its head can't tell how many samples there are
        assert whole.content[FLAC_HEAD_BYTES:] == streamed.content[FLAC_HEAD_BYTES:]
    else:
        expected = samples_of(whole.content, audio_format)
        assert np.array_equal(samples_of(streamed.content, audio_format), expected)
    events = events_of(speak(client, response_format=audio_format, stream_format="sse"))
    assert sound_of(events) == streamed.content


def test_events_tell_every_segment_in_order_and_end_with_usage(client: TestClient) -> None:
    *deltas, done = events_of(speak(client, response_format="wav", stream_format="sse", manifest=True, captions="srt"))
    rows = [delta["segment"] for delta in deltas if "segment" in delta]
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert [row["finish_reason"] for row in rows] == ["stop"] * 3
    assert all(row["end_sample"] > row["start_sample"] for row in rows)
    assert done["type"] == "speech.audio.done"
    assert set(done["usage"]) == {"input_tokens", "output_tokens", "total_tokens"}
    assert done["manifest"]["segments"] == rows
    assert done["manifest"]["samples"] == rows[-1]["end_sample"]
    assert "There is the second one." in done["captions"]


def test_a_stream_tells_where_each_segment_lies_in_the_file(client: TestClient) -> None:
    audio = speak(client, response_format="wav").content
    samples = samples_of(audio, "wav")
    *_, done = events_of(speak(client, response_format="wav", stream_format="sse", manifest=True))
    first, second, third = done["manifest"]["segments"]
    assert second["start_sample"] - first["end_sample"] == round(0.25 * FACTS.sample_rate)
    assert not samples[first["end_sample"] : second["start_sample"]].any()
    assert samples[second["start_sample"] + 100 : second["end_sample"] - 100].all()
    assert third["end_sample"] == len(samples)


class Slow(FakeCrew):
    """Speaks the first segment at once, the others only when the test lets it; or fails with them."""

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__()
        self.replies: list[Reply] = []
        self._failure = failure

    def speak(self, segment: Segment) -> Reply:
        self.segments.append(segment)
        last = segment.index == 2
        self.replies.append(Reply(self._failure if last else spoken(segment), hangs=last and self._failure is None))
        return self.replies[-1]


def test_the_first_segment_is_spoken_alone_on_a_cpu_and_sent_before_the_last_is_done() -> None:
    crew = Slow()

    async def listen() -> list[bytes]:
        """Read the stream as a client does who leaves after the second segment."""
        received: list[bytes] = []
        enough = asyncio.Event()
        body = json.dumps(LEAST | {"stream_format": "audio", "response_format": "pcm"}).encode()
        sent = False

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await enough.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message.get("body"):
                received.append(message["body"])
            if len(received) == 2:
                enough.set()

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/audio/speech",
            "headers": [],
            "query_string": b"",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }
        await SpeechApi(Settings(), crew).routes()(scope, receive, send)  # type: ignore[arg-type]
        return received

    assert len(asyncio.run(asyncio.wait_for(listen(), 10))) == 2
    assert crew.replies[2].cancelled


def test_what_fails_with_the_first_segment_is_told_with_its_status(client: TestClient, crew: FakeCrew) -> None:
    crew.silent_segments = (0,)
    for stream_format in ("audio", "sse"):
        answer = speak(client, stream_format=stream_format)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_segment")


def test_what_fails_later_ends_the_events_with_an_error_and_the_audio_without_an_end() -> None:
    failing = SpeechApi(Settings(), Slow(SynthesisError("the decoder is tired"))).routes()
    client = TestClient(failing, raise_server_exceptions=False)
    events = events_of(speak(client, stream_format="sse"))
    assert [event["type"] for event in events[:-1]] == ["speech.audio.delta"]
    assert events[-1]["type"] == "speech.audio.error"
    assert "tired" in events[-1]["error"]["message"]
    with pytest.raises(SynthesisError):
        speak(TestClient(failing), stream_format="audio")


def test_a_stream_that_is_over_gives_back_its_place_at_the_door(crew: FakeCrew) -> None:
    api = SpeechApi(Settings(most_requests_in_flight=1), crew)
    client = TestClient(api.routes())
    for _ in range(3):
        assert speak(client, stream_format="sse").status_code == 200


def test_a_silent_wait_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "KEEP_ALIVE_SECONDS", 0.01)

    async def slow() -> AsyncGenerator[bytes]:
        await asyncio.sleep(0.05)
        yield b"data: {}\n\n"

    async def listen() -> list[bytes]:
        return [event async for event in with_keep_alive(slow())]

    *comments, event = asyncio.run(listen())
    assert event == b"data: {}\n\n"
    assert comments
    assert all(comment.startswith(b":") for comment in comments)


def test_a_stream_that_is_cancelled_again_and_again_is_closed_all_the_same() -> None:
    """Serve cancels whose client leaves, and so does the response; a generator that still runs can't be closed."""
    closed: list[str] = []

    async def events() -> AsyncGenerator[bytes]:
        try:
            await asyncio.sleep(60)
            yield b"never"
        finally:
            await asyncio.sleep(0.05)  # some last work
            closed.append("events")

    async def listen() -> None:
        async for _ in with_keep_alive(events()):
            pass

    async def scenario() -> None:
        listening = asyncio.create_task(listen())
        await asyncio.sleep(0.01)
        for _ in range(5):
            listening.cancel()
            await asyncio.sleep(0.001)
        with pytest.raises(asyncio.CancelledError):
            await listening

    asyncio.run(scenario())
    assert closed == ["events"]
