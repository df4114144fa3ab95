"""The whole way on a real Ray cluster with the embedded model, asked by the real OpenAI client."""

from __future__ import annotations

import base64
import io
import itertools
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import ray
import soundfile
from ray import serve
from websockets.sync.client import connect

from deployments import autoscaling
from deployments.app import build
from deployments.settings import Settings
from tests.audio.ffmpeg import heard_by_ffmpeg
from tests.voices.recordings import audio_file, hum_of_16_bits
from voice_core.decoding.engine import EngineCounters
from voice_core.errors import RequestError
from voice_core.speech import Segment

# Ray leaves sockets and subprocesses to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

OPENAI_PCM_RATE = 24000  # Hz; raw samples can't say it themselves
START_SECONDS, STOP_SECONDS = 60, 30
FREED_SECONDS = 0.2  # after a client has left, its rows are others' again
TRIES = 3
LONG_LINE = "This is a line that goes on, and on, and on, since it has nothing to say and will take its time to say it,"
A_LINE = "This is one more line of the text."
LINES = "\n".join([A_LINE] * 3)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """An OpenAI client of a service on a small cluster of its own."""
    voices = str(tmp_path_factory.mktemp("voices"))
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=100_000_000,
        log_to_driver=False,
    )
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(Settings(device="cpu", voices=voices)), name="voice")
    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as connected:
        yield connected
    serve.shutdown()
    ray.shutdown()


@pytest.fixture
def counters(client: openai.OpenAI) -> Callable[[], EngineCounters]:
    synthesizer: Any = serve.get_deployment_handle("Synthesizer", app_name="voice")
    return lambda: synthesizer.counters.remote().result()


def speak(client: openai.OpenAI, text: str = "Hello there.", audio_format: Any = "wav", **extra: Any) -> Any:
    """Ask for speech that is spoken for this request, whatever was spoken before."""
    extra = {"cache": False, **extra}
    return client.audio.speech.with_raw_response.create(
        model="any", voice="default", input=text, response_format=audio_format, extra_body=extra
    )


def seconds(audio: bytes, audio_format: str) -> float:
    if audio_format == "pcm":
        return len(audio) / 2 / OPENAI_PCM_RATE
    return float(soundfile.info(io.BytesIO(audio)).duration)


def test_every_format_decodes_to_the_same_duration(client: openai.OpenAI) -> None:
    durations = {}
    for audio_format in ("wav", "flac", "mp3", "opus", "pcm"):
        answer = speak(client, audio_format=audio_format, seed=1)
        durations[audio_format] = seconds(answer.content, audio_format)
        assert float(answer.headers["x-audio-seconds"]) == pytest.approx(durations["wav"], abs=0.01)
    assert durations["wav"] > 0.2
    assert max(durations.values()) - min(durations.values()) < 0.15


def test_the_same_seed_gives_the_same_bytes(client: openai.OpenAI) -> None:
    first, second, other = (speak(client, seed=seed, audio_format="mp3").content for seed in (1, 1, 2))
    assert first == second != other


def test_what_was_spoken_before_is_not_spoken_again(
    client: openai.OpenAI, counters: Callable[[], EngineCounters]
) -> None:
    text = "Here is one sentence of the page. And here is the other one."
    first = speak(client, text, seed=1, cache=True).content
    before = counters()
    assert speak(client, text, seed=1, cache=True).content == first
    assert counters().rows_spoken == before.rows_spoken
    speak(client, text.replace("other", "second"), seed=1, cache=True)
    assert counters().rows_spoken == before.rows_spoken + 1


def test_samples_of_one_request_are_spoken_in_one_pass_and_repeat_alone(
    client: openai.OpenAI, counters: Callable[[], EngineCounters]
) -> None:
    before = counters()
    audios = speak(client, n=3, seed=1).http_response.json()["audios"]
    after = counters()
    assert (after.passes - before.passes, after.rows_spoken - before.rows_spoken) == (1, 3)
    last = audios[-1]
    assert base64.b64decode(last["audio"]) == speak(client, seed=last["seed"]).content


def test_sixteen_segments_join_the_pass_that_is_being_spoken(
    client: openai.OpenAI, counters: Callable[[], EngineCounters]
) -> None:
    before = counters()
    with ThreadPoolExecutor(1) as other_caller:
        other = other_caller.submit(speak, client, "This is one long line.", segment=False, seconds=5)
        deadline = time.monotonic() + START_SECONDS
        while counters().passes == before.passes:
            assert time.monotonic() < deadline, "the other caller's line was never spoken"
            time.sleep(0.01)
        answer = speak(client, "\n".join(["This is one more line of the text."] * 16), seed=1)
        other.result()
    after = counters()
    assert answer.headers["x-segments"] == "16"
    assert len(answer.headers["x-finish-reasons"].split(",")) == 16
    assert (after.passes - before.passes, after.rows_spoken - before.rows_spoken) == (1, 17)


def test_sixteen_segments_of_one_request_are_one_pass(
    client: openai.OpenAI, counters: Callable[[], EngineCounters]
) -> None:
    before = counters()
    speak(client, "\n".join(["This is one more line of the text."] * 16), seed=1)
    after = counters()
    assert (after.passes - before.passes, after.rows_spoken - before.rows_spoken) == (1, 16)


def test_two_requests_at_once_are_spoken_in_one_pass_as_each_alone(
    client: openai.OpenAI, counters: Callable[[], EngineCounters]
) -> None:
    alone = [speak(client, seed=seed).content for seed in (1, 2)]
    before = counters()
    with ThreadPoolExecutor(2) as callers:
        together = list(callers.map(lambda seed: speak(client, seed=seed).content, (1, 2)))
    after = counters()
    assert together == alone
    assert (after.passes - before.passes, after.rows_spoken - before.rows_spoken) == (1, 2)


def test_the_asked_duration_is_kept(client: openai.OpenAI) -> None:
    short, long = (speak(client, "Hello there, how are you?", seconds=asked, seed=1) for asked in (1.5, 3.0))
    assert float(long.headers["x-audio-seconds"]) > float(short.headers["x-audio-seconds"]) + 0.5


def test_a_replica_tells_the_autoscaler_what_it_has_in_hand_and_could_speak(client: openai.OpenAI) -> None:
    synthesizer: Any = serve.get_deployment_handle("Synthesizer", app_name="voice")
    synthesizer.record_autoscaling_stats.remote().result()  # from here on
    speak(client, "This was never said before.", seconds=2.0)
    told = synthesizer.record_autoscaling_stats.remote().result()
    assert told[autoscaling.SEGMENTS] == told[autoscaling.SPEAKING] == told[autoscaling.WAITING] == 0
    assert 0 < told[autoscaling.RATE] < told[autoscaling.CAPACITY]


def test_speech_is_no_silence(client: openai.OpenAI) -> None:
    samples, _ = soundfile.read(io.BytesIO(speak(client, seed=1).content))
    assert np.abs(samples).max() > 0.01


@pytest.mark.parametrize("audio_format", ["wav", "flac", "mp3", "opus", "pcm", "wav_float32"])
def test_a_streamed_file_plays_and_holds_the_samples_of_the_whole(client: openai.OpenAI, audio_format: Any) -> None:
    wanted: dict[str, Any] = {"model": "any", "voice": "default", "input": LINES, "response_format": audio_format}
    wanted["extra_body"] = {"seed": 1}
    whole = client.audio.speech.create(**wanted).content
    with client.audio.speech.with_streaming_response.create(**wanted, stream_format="audio") as answer:
        pieces = list(answer.iter_bytes())
        assert answer.headers["x-segments"] == "3"
        assert "content-length" not in answer.headers
    streamed = b"".join(pieces)
    assert len(pieces) >= 3
    if audio_format == "pcm":
        assert streamed == whole
    else:
        if audio_format == "mp3":  # a stream has no info frame
            assert whole.endswith(streamed)
        played, expected = (decoded(file, audio_format) for file in (streamed, whole))
        assert len(played) == pytest.approx(len(expected), abs=2000)
        assert audio_format == "mp3" or np.array_equal(played, expected)


def decoded(file: bytes, audio_format: str) -> np.ndarray[Any, Any]:
    """Return the samples; a flac's head can't tell their number in a stream: libsndfile needs it, FFmpeg doesn't."""
    return heard_by_ffmpeg(file)[0] if audio_format == "flac" else soundfile.read(io.BytesIO(file))[0]


def test_events_are_read_line_by_line_and_end_with_usage(client: openai.OpenAI) -> None:
    wanted: dict[str, Any] = {"model": "any", "voice": "default", "input": LINES, "response_format": "mp3"}
    wanted["extra_body"] = {"seed": 1}
    with client.audio.speech.with_streaming_response.create(**wanted, stream_format="sse") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line and not line.startswith(":")]
    *deltas, done = (json.loads(line.removeprefix("data: ")) for line in lines)
    assert {delta["type"] for delta in deltas} == {"speech.audio.delta"}
    assert [delta["segment"]["index"] for delta in deltas if "segment" in delta] == [0, 1, 2]
    sound = b"".join(base64.b64decode(delta["audio"]) for delta in deltas)
    assert client.audio.speech.create(**wanted).content.endswith(sound)
    usage = done["usage"]
    assert done["type"] == "speech.audio.done"
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["output_tokens"] == pytest.approx(50 * done["seconds"], rel=0.3)


def test_a_bad_segment_is_told_once_and_not_asked_for_again(
    client: openai.OpenAI, counters: Callable[[], EngineCounters]
) -> None:
    """The client tries again what may succeed; this would not."""
    before = counters()
    with pytest.raises(openai.UnprocessableEntityError, match=r"input: segment 1 .*, asked for were") as refusal:
        speak(client.with_options(max_retries=2), on_bad_segment="fail", seconds_tolerance=1e-9, seconds=1.01)
    assert (refusal.value.code, refusal.value.param) == ("bad_segment", "input")
    assert counters().rows_spoken - before.rows_spoken == 1


def test_a_bad_segment_fails_before_the_first_byte_of_a_stream(client: openai.OpenAI) -> None:
    for stream_format in ("audio", "sse"):
        with pytest.raises(openai.UnprocessableEntityError):
            speak(client, stream_format=stream_format, on_bad_segment="fail", seconds_tolerance=1e-9, seconds=1.01)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"text": "   "}, "input"),
        ({"text": "x" * 20_001}, "input"),
        ({"audio_format": "ogg"}, "response_format"),
        ({"seconds": -1}, "seconds"),
        ({"tempo": 2}, "tempo"),
        ({"stream": True}, "stream"),
        ({"instructions": "Whisper."}, "instructions"),
        ({"stream_format": "sse", "n": 2}, "n"),
    ],
)
def test_an_error_keeps_its_message_through_the_client(
    client: openai.OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=f"{param}: ") as refusal:
        speak(client, **fields)
    assert refusal.value.param == param


def test_a_client_who_leaves_frees_the_decoder(client: openai.OpenAI) -> None:
    minutes_of_work = "\n".join(["This is one more line of the text."] * 16)
    with pytest.raises(openai.APITimeoutError):
        speak(client.with_options(timeout=1), minutes_of_work, seconds=600)
    left_at = time.monotonic()
    speak(client)
    assert time.monotonic() - left_at < 10


def seconds_until(it_is_so: Callable[[], bool]) -> float:
    left_at = time.monotonic()
    while not it_is_so():
        assert time.monotonic() - left_at < STOP_SECONDS, "it never came so far"
        time.sleep(0.005)
    return time.monotonic() - left_at


def test_a_client_who_hangs_up_in_the_middle_of_a_stream_frees_its_row_at_once(
    client: openai.OpenAI, counters: Callable[[], EngineCounters]
) -> None:
    """The first segment is there, the second one is being spoken. On a busy machine the best of some times counts."""
    wanted: dict[str, Any] = {"model": "any", "voice": "default", "stream_format": "audio", "response_format": "pcm"}
    spoken_once = {"seed": 1, "on_bad_segment": "keep", "cache": False}  # two segments, two rows
    wanted |= {"input": f"{A_LINE}\n{LONG_LINE}", "extra_body": spoken_once}
    freed_after = []
    for _ in range(TRIES):
        before = counters().rows_spoken
        with client.audio.speech.with_streaming_response.create(**wanted) as answer:
            pieces = answer.iter_bytes()  # whoever lets go of it hangs up
            next(pieces)
            first_done = counters()
            assert first_done.rows_spoken == before + 1
            seconds_until(lambda goal=first_done.row_steps + 1: counters().row_steps >= goal)  # type: ignore[misc]
        freed_after.append(seconds_until(lambda goal=before + 2: counters().rows_spoken >= goal))  # type: ignore[misc]
    assert min(freed_after) < FREED_SECONDS, freed_after


def test_a_session_that_is_left_in_the_middle_of_a_word_frees_its_row_at_once(
    client: openai.OpenAI, counters: Callable[[], EngineCounters]
) -> None:
    address = f"ws://{client.base_url.host}:{client.base_url.port}/v1/audio/speech/stream"
    freed_after = []
    for _ in range(TRIES):
        before = counters()
        with connect(address) as session:
            session.send(json.dumps({"type": "session.config"}))
            assert json.loads(session.recv())["type"] == "session.created"
            session.send(json.dumps({"type": "input.text", "text": f"{LONG_LINE}\nAnd then some"}))
            seconds_until(lambda goal=before.row_steps + 1: counters().row_steps >= goal)  # type: ignore[misc]
            session.socket.close()  # without a word, as a client that crashes
        freed_after.append(seconds_until(lambda goal=before.rows_spoken + 1: counters().rows_spoken >= goal))  # type: ignore[misc]
    assert min(freed_after) < FREED_SECONDS, freed_after


def test_a_session_speaks_a_text_that_comes_in_pieces_as_the_whole_at_once(client: openai.OpenAI) -> None:
    address = f"ws://{client.base_url.host}:{client.base_url.port}/v1/audio/speech/stream"
    sound = b""
    with connect(address) as session:
        session.send(json.dumps({"type": "session.config", "seed": 1}))
        for word in LINES.split(" "):
            session.send(json.dumps({"type": "input.text", "text": f"{word} "}))
        session.send(json.dumps({"type": "input.done"}))
        rows = []
        for message in session:  # until the server closes
            if isinstance(message, bytes):
                sound += message
            elif (told := json.loads(message))["type"] == "segment":
                rows.append(told)
    assert told["type"] == "session.done"
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert rows[-1]["end_sample"] == len(sound) // 2


def test_a_segment_that_nobody_waits_for_any_longer_leaves_the_decoder(
    client: openai.OpenAI, counters: Callable[[], EngineCounters]
) -> None:
    """Also without its ingress, which may have died: what it left behind knows its own end."""
    synthesizer: Any = serve.get_deployment_handle("Synthesizer", app_name="voice")
    hasty = synthesizer.speak.remote(Segment("This is one more line of the text.", 8.0, seeds=tuple(range(16))), -0.9)
    with pytest.raises(TimeoutError):
        hasty.result()
    deadline = time.monotonic() + 5
    while counters().rows_active or counters().rows_waiting:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_request_whose_time_is_up_leaves_the_decoder(
    client: openai.OpenAI, counters: Callable[[], EngineCounters]
) -> None:
    with pytest.raises(openai.APIStatusError) as refusal:
        speak(client, "\n".join(["This is one more line of the text."] * 64), seconds=240, timeout_seconds=1.0)
    assert (refusal.value.status_code, refusal.value.code) == (408, "deadline_exceeded")
    deadline = time.monotonic() + 5
    while counters().rows_active or counters().rows_waiting:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_text_of_a_request_stands_in_any_log(client: openai.OpenAI) -> None:
    """Neither of one that was spoken nor of one that every deployment had to refuse."""
    speak(client, "Quixotic zebras whisper.", seed=1)
    with pytest.raises(openai.BadRequestError):
        speak(client, "Quixotic zebras whisper in 世界.")
    with pytest.raises(openai.BadRequestError):
        client.audio.voices.create(
            name="Ann", audio_sample=b"Quixotic zebras", consent="Quixotic", extra_body={"transcript": "Quixotic"}
        )
    with pytest.raises(RequestError):
        serve.get_deployment_handle("Synthesizer", app_name="voice").speak.remote(Segment("世界", 1.0)).result()
    folder = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"  # type: ignore[attr-defined]
    logs = {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert any(b"POST /v1/audio/speech 200" in content for content in logs.values())
    assert any(b"RequestError (what it says" in content for content in logs.values())
    for text in ("Quixotic", "世界"):
        assert [file for file, content in logs.items() if text.encode() in content] == []


def test_the_status_and_the_figures_are_those_of_the_cluster(client: openai.OpenAI) -> None:
    with httpx.Client(base_url=str(client.base_url).removesuffix("v1/"), timeout=30) as plain:
        status = plain.get("/status", headers={"Accept": "application/json"}).json()
        assert status["ready"] is True
        assert status["deployments"]["Synthesizer"]["RUNNING"] == 1
        assert status["decoders"]["rows_active"] == 0
        assert status["this_ingress"]["rows"] == 16
        deadline = time.monotonic() + 30  # Ray's agents are told every ten seconds
        while "ray_voice_decoder_steps_total{" not in (told := plain.get("/metrics").text):
            assert time.monotonic() < deadline, told
            time.sleep(1)
    assert "ray_voice_requests_total{" in told


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id


def test_the_clients_own_voice_calls_work(client: openai.OpenAI) -> None:
    """One recording as three files is three voices, encoded once; a deleted one is gone."""
    encoder: Any = serve.get_deployment_handle("VoiceEncoder", app_name="voice")
    sounds = {container: audio_file(hum_of_16_bits(), container=container) for container in ("WAV", "FLAC", "AIFF")}
    words = {"transcript": "hello there"}
    voices = [
        client.audio.voices.create(name=f"Ann {name}", audio_sample=(name, file), consent="I agree", extra_body=words)
        for name, file in sounds.items()
    ]
    assert encoder.encoded.remote().result() == 1
    for voice, wanted in zip(voices, (voices[0].name, voices[1].id, {"id": voices[2].id}), strict=True):
        assert voice.object == "audio.voice"
        spoken = client.audio.speech.create(model="any", voice=wanted, input="Hello there.", response_format="wav")
        assert seconds(spoken.content, "wav") > 0.2
    deleted = client.audio.voices.delete(voices[0].id)
    assert (deleted.id, deleted.deleted) == (voices[0].id, True)
    with pytest.raises(openai.BadRequestError, match="there is no voice 'Ann WAV'"):
        client.audio.speech.create(model="any", voice="Ann WAV", input="Hello there.")
    with pytest.raises(openai.NotFoundError):
        client.audio.voices.delete(voices[0].id)


def test_what_is_refused_by_the_encoder_keeps_its_field_and_reason(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="audio_sample: is not audio") as refusal:
        client.audio.voices.create(
            name="Ann", audio_sample=b"no audio", consent="I agree", extra_body={"transcript": "hello"}
        )
    assert refusal.value.param == "audio_sample"


def test_the_launcher_serves_until_sigterm_and_frees_its_port() -> None:
    port = free_port()
    command = f"-m deployments --port {port} --device cpu --start-timeout {START_SECONDS}"
    launcher = subprocess.Popen(
        [sys.executable, *command.split()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert launcher.stdout is not None
    try:
        told = list(itertools.takewhile(lambda line: not line.startswith("Ready on "), launcher.stdout))
        assert launcher.poll() is None, "".join(told)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            assert answer.status == 200
        launcher.send_signal(signal.SIGTERM)
        launcher.communicate(timeout=STOP_SECONDS)
    finally:
        launcher.kill()
    assert launcher.returncode == 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
