"""The HTTP interface, asked by a client in the same process, with a crew that hums."""

from __future__ import annotations

import asyncio
import base64
import email
import io
import json
import logging
import time
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile
from fake_crew import FACTS, FakeCrew, Reply, spoken
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError
from starlette.testclient import TestClient
from starlette.types import Message

from deployments import fleet, metrics
from deployments.api import SpeechApi
from deployments.errors import CLIENT_LEFT
from deployments.fleet import Running
from deployments.keys import new_key
from deployments.logs import NoTexts
from deployments.metrics import Tally
from deployments.settings import Settings
from voice_core.errors import RequestError, SynthesisError
from voice_core.speech import Segment


class SlowCrew(FakeCrew):
    """Takes a moment for each segment, and counts those that it has at once."""

    def __init__(self) -> None:
        super().__init__()
        self.most_at_once = 0
        self._now = 0

    def speak(self, segment: Segment) -> Reply:
        self.segments.append(segment)
        return SlowReply(self, segment)


class SlowReply(Reply):
    def __init__(self, crew: SlowCrew, segment: Segment) -> None:
        super().__init__(spoken(segment))
        self._crew = crew

    async def _wait(self) -> object:
        self._crew._now += 1
        self._crew.most_at_once = max(self._crew.most_at_once, self._crew._now)
        await asyncio.sleep(0.01)
        self._crew._now -= 1
        return await super()._wait()


LEAST = {
    "model": "voice",
    "voice": "default",
    "input": "Here is the first line.\nThere is the second one.",
    "response_format": "wav",
}


@pytest.fixture
def crew() -> FakeCrew:
    return FakeCrew()


@pytest.fixture
def settings() -> Settings:
    return Settings(longest_text_characters=100, largest_body_bytes=1000)


@pytest.fixture
def client(settings: Settings, crew: FakeCrew) -> TestClient:
    return TestClient(SpeechApi(settings, crew).routes(), raise_server_exceptions=False)


def speak(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/audio/speech", json=LEAST | fields)


def refusal(answer: Any) -> dict[str, Any]:
    """The envelope's content; nothing else may stand in the body."""
    document = answer.json()
    assert set(document) == {"error"}
    assert set(document["error"]) == {"message", "type", "param", "code"}
    return document["error"]


def test_a_text_comes_back_as_a_file_with_its_facts_in_headers(client: TestClient) -> None:
    answer = speak(client, seed=5, seconds=4, inter_segment_silence=0.5)
    samples, sample_rate = soundfile.read(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["x-sample-rate"] == str(sample_rate) == "16000"
    assert len(samples) / sample_rate == pytest.approx(4.0, abs=0.01)
    assert float(answer.headers["x-audio-seconds"]) == pytest.approx(4.0, abs=0.01)
    assert answer.headers["x-segments"] == "2"
    assert answer.headers["x-seed"] == "5"
    assert answer.headers["x-finish-reasons"] == "stop,stop"


def test_every_segment_is_one_call_with_all_its_seeds(client: TestClient, crew: FakeCrew) -> None:
    speak(client, n=3, seed=5, temperature=0.5)
    assert [segment.index for segment in crew.segments] == [0, 1]
    assert all(len(set(segment.seeds)) == 3 and segment.seeds[0] == 5 for segment in crew.segments)
    assert all(segment.sampling.temperature == 0.5 for segment in crew.segments)


def test_several_samples_come_as_json_and_each_repeats_alone(client: TestClient) -> None:
    audios = speak(client, n=3, seed=5).json()["audios"]
    assert len({audio["seed"] for audio in audios}) == 3
    for audio in audios:
        alone = speak(client, seed=audio["seed"])
        assert base64.b64decode(audio["audio"]) == alone.content
        assert audio["finish_reasons"] == ["stop", "stop"]


def test_a_request_without_a_seed_is_told_the_one_that_was_drawn(client: TestClient) -> None:
    first, second = speak(client), speak(client)
    assert first.headers["x-seed"] != second.headers["x-seed"]
    assert speak(client, seed=int(first.headers["x-seed"])).content == first.content


def test_speed_divides_the_estimated_duration(client: TestClient, crew: FakeCrew) -> None:
    speak(client, speed=1)
    speak(client, speed=2)
    one, _, fast, _ = crew.segments
    assert fast.seconds == pytest.approx(one.seconds / 2)


def test_unsplit_text_is_one_segment(client: TestClient, crew: FakeCrew) -> None:
    assert speak(client, segment=False).headers["x-segments"] == "1"
    assert len(crew.segments) == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": "  "}, "input"),
        ({"input": "x" * 101}, "input"),
        ({"language": "klingon"}, "language"),
        ({"voice": "alloy"}, "voice"),
        ({"response_format": "ogg"}, "response_format"),
        ({"tempo": 2}, "tempo"),
    ],
)
def test_a_wrong_field_is_refused_before_anything_is_spoken(
    client: TestClient, crew: FakeCrew, fields: dict[str, Any], param: str
) -> None:
    answer = speak(client, **fields)
    assert answer.status_code == 400
    assert refusal(answer)["param"] == param
    assert refusal(answer)["type"] == "invalid_request_error"
    assert not crew.segments


def test_a_body_over_the_limit_is_refused_by_its_header_and_by_what_comes(client: TestClient) -> None:
    announced = client.post("/v1/audio/speech", content=b" " * 1001, headers={"content-type": "application/json"})
    streamed = client.post(
        "/v1/audio/speech",
        content=iter([b" " * 600, b" " * 600]),
        headers={"content-type": "application/json"},
    )
    for answer in (announced, streamed):
        assert answer.status_code == 413
        assert refusal(answer)["code"] == "request_too_large"


def test_only_json_is_read(client: TestClient) -> None:
    form = client.post("/v1/audio/speech", data={"input": "Hello."})
    assert form.status_code == 415
    charset = {"content-type": "Application/JSON; charset=utf-8"}
    assert client.post("/v1/audio/speech", content=json.dumps(LEAST), headers=charset).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/audio/speech", 405), ("POST", "/v1/models", 405), ("GET", "/nowhere", 404)],
)
def test_a_wrong_address_gets_the_envelope_too(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert path in refusal(answer)["message"]
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (RayActorError(), 503, "not_ready"),
        (ObjectLostError("id", None, ""), 503, "not_ready"),
        (BackPressureError(9, 8), 429, "overloaded"),
        (SynthesisError("no codes"), 500, "synthesis_failed"),
        (SynthesisError("out of memory", may_succeed_later=True), 503, "synthesis_failed"),
        (
            RayTaskError("speak", "traceback", SynthesisError("out of memory", may_succeed_later=True)),
            503,
            "synthesis_failed",
        ),
        (RayTaskError("speak", "traceback", SynthesisError("no codes")), 500, "synthesis_failed"),
        (RayTaskError("speak", "traceback", KeyError("bug")), 500, "internal_error"),
        (ZeroDivisionError("a secret"), 500, "internal_error"),
    ],
)
def test_a_failure_behind_the_door_gets_its_status(
    client: TestClient, crew: FakeCrew, failure: Exception, status: int, code: str
) -> None:
    crew.speak_failure = failure
    answer = client.post("/v1/audio/speech", json=LEAST, headers={"x-request-id": "abc"})
    assert (answer.status_code, refusal(answer)["code"]) == (status, code)
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    assert (answer.headers.get("x-should-retry") == "false") == (status == 500)
    if code == "internal_error":
        assert "abc" in refusal(answer)["message"]
        assert "secret" not in answer.text


@pytest.mark.parametrize("body", [b'{"\\ud800x":1}', b'{"model":"m","voice":"\\ud800","input":"hi"}'])
def test_what_is_no_unicode_is_refused_in_an_answer_that_is(client: TestClient, body: bytes) -> None:
    answer = client.post("/v1/audio/speech", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert refusal(answer)["type"] == "invalid_request_error"


def test_a_client_who_leaves_while_sending_is_no_bug(
    settings: Settings, crew: FakeCrew, caplog: pytest.LogCaptureFixture
) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == CLIENT_LEFT

    scope = {"type": "http", "method": "POST", "path": "/v1/audio/speech", "headers": [], "query_string": b""}
    asyncio.run(SpeechApi(settings, crew).routes()(scope, receive, send))
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_models_names_the_one_that_is_served(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [(model["id"], model["object"]) for model in listed["data"]] == [("fake", "model")]


def test_the_service_is_ready_when_the_synthesizer_answers(client: TestClient) -> None:
    assert client.get("/readyz").json() == {"status": "ready", "model": "fake"}


def test_the_service_is_alive_but_not_ready_without_a_synthesizer(client: TestClient, crew: FakeCrew) -> None:
    crew.facts_reply = Reply(RayActorError())
    assert client.get("/healthz").status_code == 200
    for path in ("/readyz", "/v1/models"):
        answer = client.get(path)
        assert (answer.status_code, refusal(answer)["code"]) == (503, "not_ready")
    assert speak(client).status_code == 503


@pytest.mark.parametrize(("synthesizers", "composers", "status"), [(1, 1, 200), (0, 1, 503), (1, 0, 503)])
def test_those_too_busy_to_answer_are_ready_as_long_as_they_run(
    client: TestClient,
    crew: FakeCrew,
    monkeypatch: pytest.MonkeyPatch,
    synthesizers: int,
    composers: int,
    status: int,
) -> None:
    monkeypatch.setattr(fleet, "ANSWER_SECONDS", 0.01)
    assert client.get("/readyz").status_code == 200
    crew.facts_reply, crew.replicas = Reply(hangs=True), Running(synthesizers, composers)
    assert client.get("/readyz").status_code == status


@pytest.mark.parametrize(
    ("who", "failure"),
    [
        ("facts_reply", RayTaskError("facts", "traceback", RuntimeError("the decoder's thread has ended"))),
        ("composer_reply", RayActorError()),
    ],
)
def test_the_service_is_not_ready_without_a_composer_or_a_decoder_that_lives(
    client: TestClient, crew: FakeCrew, who: str, failure: Exception
) -> None:
    assert client.get("/readyz").status_code == 200
    setattr(crew, who, Reply(failure))
    answer = client.get("/readyz")
    assert (answer.status_code, refusal(answer)["code"]) == (503, "not_ready")


def test_the_facts_are_learned_at_the_start_and_again_until_somebody_tells_them(
    settings: Settings, crew: FakeCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(fleet, "LOOK_AGAIN_SECONDS", (0.01, 0.01))
    crew.facts_reply = Reply(RayActorError())
    with TestClient(SpeechApi(settings, crew).routes()) as client:
        time.sleep(0.05)
        crew.facts_reply = Reply(FACTS)
        time.sleep(0.2)
        crew.facts_reply = Reply(hangs=True)
        assert speak(client).status_code == 200


def test_a_long_request_leaves_room_for_a_short_one_that_comes_later(settings: Settings) -> None:
    """The long one has no more than its window under way, so the short one is spoken among its first segments."""
    crew = SlowCrew()
    settings = settings.model_copy(update={"longest_text_characters": 20_000, "largest_body_bytes": 100_000})

    async def scenario() -> None:
        transport = httpx.ASGITransport(SpeechApi(settings, crew).routes())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

            def post(text: str) -> Coroutine[Any, Any, httpx.Response]:
                return client.post("/v1/audio/speech", json=LEAST | {"input": text})

            long = asyncio.create_task(post("This is one more line of the text.\n" * 250))
            while not crew.segments:
                await asyncio.sleep(0.001)
            assert (await post("Here is a line.\nHere is another one.")).status_code == 200
            assert len(crew.segments) < 100
            assert not long.done()
            assert (await long).headers["x-segments"] == "250"

    asyncio.run(scenario())
    assert crew.most_at_once <= FACTS.max_rows * fleet.ROWS_IN_HAND + 2


def test_more_speech_than_one_request_may_ask_for_is_refused_by_its_field(crew: FakeCrew, settings: Settings) -> None:
    settings = settings.model_copy(update={"longest_speech_seconds": 10.0})
    client = TestClient(SpeechApi(settings, crew).routes())
    for fields, param in (({"n": 16}, "n"), ({"seconds": 30}, "seconds"), ({"input": "a\n" * 11}, "input")):
        answer = speak(client, **fields)
        assert (answer.status_code, refusal(answer)["param"]) == (400, param)
        assert "at most 10 s" in refusal(answer)["message"]
    assert not crew.segments
    assert speak(client).status_code == 200


def test_more_speech_than_the_service_has_in_hand_is_to_come_later(crew: FakeCrew, settings: Settings) -> None:
    settings = settings.model_copy(update={"most_seconds_in_flight": 1.5})
    answer = speak(TestClient(SpeechApi(settings, crew).routes()))
    assert (answer.status_code, refusal(answer)["type"]) == (429, "rate_limit_error")
    assert int(answer.headers["retry-after"]) > 0


def test_every_segments_asked_and_got_seconds_are_told(client: TestClient) -> None:
    headers = speak(client, seconds=4, inter_segment_silence=0).headers
    asked, got = ([float(one) for one in headers[name].split(",")] for name in ("x-asked-seconds", "x-got-seconds"))
    assert len(asked) == 2
    assert sum(asked) == pytest.approx(4, abs=0.01)
    assert got == pytest.approx(asked, abs=0.01)
    assert "x-dropped-codes" not in headers
    for audio in speak(client, n=2).json()["audios"]:
        assert len(audio["asked_seconds"]) == len(audio["got_seconds"]) == 2
        assert audio["dropped_codes"] == 0


def test_text_that_became_silence_fails_the_request(client: TestClient, crew: FakeCrew) -> None:
    crew.silent_segments = (1,)
    answer = speak(client)
    assert (answer.status_code, refusal(answer)["code"]) == (422, "bad_segment")
    assert "segment 2" in refusal(answer)["message"]
    assert "silent" in refusal(answer)["message"]


def parts(answer: Any) -> dict[str, tuple[str, bytes]]:
    """Media type and content of every part of a multipart answer, by name."""
    message = email.message_from_bytes(
        b"Content-Type: " + answer.headers["content-type"].encode() + b"\r\n\r\n" + answer.content
    )
    found = {}
    for part in message.get_payload():
        content = part.get_payload(decode=True)
        found[part.get_param("name", header="content-disposition")] = (part.get_content_type(), content)
    return found


def test_captions_and_manifest_come_beside_the_file(client: TestClient) -> None:
    answer = speak(client, seed=5, captions="srt", manifest=True)
    assert answer.headers["x-seed"] == "5"
    found = parts(answer)
    assert list(found) == ["audio", "captions", "manifest"]
    assert found["audio"] == ("audio/wav", speak(client, seed=5).content)
    media_type, captions = found["captions"]
    assert media_type == "application/x-subrip"
    assert captions.decode().startswith("1\n00:00:00,000 --> ")
    manifest = json.loads(found["manifest"][1])
    assert manifest["seed"] == 5
    assert manifest["samples"] == soundfile.info(io.BytesIO(found["audio"][1])).frames
    assert [row["text"] for row in manifest["segments"]] == LEAST["input"].splitlines()
    assert manifest["segments"][-1]["end_sample"] == manifest["samples"]


def test_who_accepts_json_gets_one_object(client: TestClient) -> None:
    fields = LEAST | {"captions": "json", "manifest": True, "seed": 5}
    answer = client.post("/v1/audio/speech", json=fields, headers={"accept": "application/json"})
    (audio,) = answer.json()["audios"]
    assert base64.b64decode(audio["audio"]) == speak(client, seed=5).content
    assert [caption["text"] for caption in audio["captions"]] == LEAST["input"].splitlines()
    assert len(audio["manifest"]["segments"]) == 2


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json", "application/json"),
        ("application/json; charset=utf-8, text/plain", "application/json"),
        ("application/json, text/plain, */*", "audio/wav"),  # what axios says of itself
        ("application/json;q=0, audio/*", "audio/wav"),
        ("audio/wav, application/json;q=0.5", "audio/wav"),
        ("*/*", "audio/wav"),
    ],
)
def test_only_who_wants_no_sound_gets_an_object(client: TestClient, accept: str, kind: str) -> None:
    answer = client.post("/v1/audio/speech", json=LEAST | {"response_format": "wav"}, headers={"accept": accept})
    assert answer.headers["content-type"] == kind


def test_a_part_has_an_ending_that_programs_know(client: TestClient) -> None:
    answer = speak(client, response_format="wav_float32", manifest=True)
    assert b'filename="speech.wav"' in answer.content


@pytest.mark.parametrize(("audio_format", "rate"), [("pcm", 24000), ("opus", 16000), ("mp3", 16000)])
def test_places_in_the_manifest_are_counted_in_samples_of_the_file(
    client: TestClient, audio_format: str, rate: int
) -> None:
    manifest = json.loads(parts(speak(client, seconds=4, response_format=audio_format, manifest=True))["manifest"][1])
    assert manifest["sample_rate"] == rate
    assert manifest["samples"] == pytest.approx(4 * rate, abs=rate // 50)
    first, second = manifest["segments"]
    assert second["start_sample"] - first["end_sample"] == round(0.05 * rate)


def test_every_candidate_of_the_best_is_told(client: TestClient, crew: FakeCrew) -> None:
    manifest = json.loads(parts(speak(client, best_of=4, manifest=True))["manifest"][1])
    assert all(len(segment.seeds) == 4 for segment in crew.segments)
    for row in manifest["segments"]:
        assert len(row["candidates"]) == 4
        assert {"seed", "score", "length_error", "ended", "repeated_share", "silence_share"} == set(
            row["candidates"][0]
        )


def test_a_quote_names_segments_and_seconds_and_speaks_nothing(client: TestClient, crew: FakeCrew) -> None:
    answer = client.post("/v1/audio/speech/estimate", json=LEAST | {"seconds": 4, "n": 2, "best_of": 3})
    quote = answer.json()
    assert [segment["text"] for segment in quote["segments"]] == LEAST["input"].splitlines()
    assert quote["seconds"] == pytest.approx(4, abs=0.01)
    assert quote["rows"] == 2 * 2 * 3
    assert quote["work_seconds"] == pytest.approx(6 * (4 - 0.05), abs=0.05)
    assert not crew.segments


class StuckCrew(FakeCrew):
    """Speaks the first segment, unless it is stuck from the start, and then nothing more."""

    def __init__(self, stuck_from: int) -> None:
        super().__init__()
        self.hanging: list[Reply] = []
        self._stuck_from = stuck_from

    def speak(self, segment: Segment) -> Reply:
        if segment.index < self._stuck_from:
            return super().speak(segment)
        self.hanging.append(Reply(hangs=True))
        return self.hanging[-1]


def test_a_request_whose_time_is_up_calls_its_segments_off(settings: Settings) -> None:
    crew = StuckCrew(stuck_from=0)
    answer = speak(TestClient(SpeechApi(settings, crew).routes()), timeout_seconds=0.1)
    assert (answer.status_code, refusal(answer)["code"]) == (408, "deadline_exceeded")
    assert len(crew.hanging) == 2
    assert all(reply.cancelled for reply in crew.hanging)


def test_events_end_with_an_error_when_their_time_is_up(settings: Settings) -> None:
    crew = StuckCrew(stuck_from=1)
    answer = speak(TestClient(SpeechApi(settings, crew).routes()), stream_format="sse", timeout_seconds=0.6)
    last = json.loads(answer.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert (last["type"], last["error"]["code"]) == ("speech.audio.error", "deadline_exceeded")
    assert all(reply.cancelled for reply in crew.hanging)


def test_batch_gives_way_while_an_interactive_request_is_inside(settings: Settings) -> None:
    crew = SlowCrew()
    api = SpeechApi(settings.model_copy(update={"longest_text_characters": 10_000}), crew)

    async def scenario() -> int:
        transport = httpx.ASGITransport(api.routes())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            body = LEAST | {"input": "This is one more line.\n" * 20, "priority": "batch"}
            with api._door.let_in(), api._door.take_on(1):
                assert (await client.post("/v1/audio/speech", json=body)).status_code == 200
        return crew.most_at_once

    assert asyncio.run(scenario()) == 1


def test_a_key_is_asked_for_where_keys_are_set(settings: Settings, crew: FakeCrew, tmp_path: Path) -> None:
    key, line = new_key("ann")
    (tmp_path / "keys").write_text(line)
    client = TestClient(SpeechApi(settings.model_copy(update={"api_keys": str(tmp_path / "keys")}), crew).routes())
    assert speak(client).status_code == 401
    client.headers["Authorization"] = f"Bearer {key}"
    assert speak(client).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/audio/speech", {"input": "A line that takes a while.", "seconds": 3.0}),
        ("/v1/audio/dub", {"cues": [{"start_seconds": 0, "end_seconds": 3, "text": "A line that takes a while."}]}),
    ],
)
def test_a_key_pays_for_what_was_spoken(
    settings: Settings, crew: FakeCrew, tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    key, line = new_key("ann")
    (tmp_path / "keys").write_text(json.dumps(json.loads(line) | {"seconds_per_minute": 2}))
    client = TestClient(SpeechApi(settings.model_copy(update={"api_keys": str(tmp_path / "keys")}), crew).routes())
    client.headers["Authorization"] = f"Bearer {key}"
    wanted = {"model": "voice", "voice": "default", "response_format": "wav", "cache": False} | body
    assert client.post(path, json=wanted).status_code == 200
    refused = client.post(path, json=wanted)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"


def test_no_text_of_a_request_stands_in_a_log(
    client: TestClient, crew: FakeCrew, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither of a good request nor of one that meets a bug, which quotes it."""
    secret = "Nobody may read this."
    logger, texts = logging.getLogger("ray.serve"), NoTexts()
    logger.addFilter(texts)
    with caplog.at_level(logging.DEBUG):
        assert speak(client, input=secret).status_code == 200
        for failure in (ValueError(secret), RayTaskError("speak", secret, RequestError("input", secret))):
            crew.speak_failure = failure
            assert speak(client, input=secret).status_code >= 400
    logger.removeFilter(texts)
    written = "\n".join(logging.Formatter().format(record) for record in caplog.records)
    assert "ValueError" in written
    assert secret not in written


def test_what_is_spoken_is_counted(client: TestClient) -> None:
    tally = Tally()
    metrics.use(tally)
    speak(client, seconds=4, n=2)
    metrics.use(Tally())
    assert tally["voice_segments_total", "stop"] == 4
    assert tally["voice_audio_seconds_total",] == pytest.approx(8, abs=0.3)
    assert tally["voice_requests_total", "/v1/audio/speech", "200"] == 1
    assert tally.observed["voice_audio_rtf"] == 1


def test_the_status_page_is_for_people_and_its_json_for_programs(client: TestClient, crew: FakeCrew) -> None:
    crew.facts_reply = Reply(replace(FACTS, longest_seconds=10.0))
    page = client.get("/status", headers={"Accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert "<h1>ready</h1>" in page.text
    document = client.get("/status", headers={"Accept": "application/json"}).json()
    assert document["ready"] is True
    assert document["decoders"]["rows_active"] == 3
    assert document["deployments"]["Synthesizer"]["RUNNING"] == 1
    assert document["this_ingress"]["requests_in_flight"] == 0
    assert document["model"] == {
        "id": "fake",
        "device": "cpu",
        "rows_of_each_replica": 16,
        "longest_segment_seconds": 10,
        "longest_segment_seconds_of_checkpoint": 20,
        "load_seconds": 1.0,
    }


def test_the_status_says_why_the_service_is_not_ready(client: TestClient, crew: FakeCrew) -> None:
    crew.facts_reply = Reply(RayActorError())
    document = client.get("/status", headers={"Accept": "application/json"}).json()
    assert document["ready"] is False
    assert "no replica" in document["reason"]


def test_metrics_are_those_of_the_whole_cluster(client: TestClient) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "ray_voice_rows_active" in answer.text
