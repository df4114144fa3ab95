"""A text that grows: sentences are spoken as they are complete, in order, until the client is done or leaves."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_crew import FACTS, FakeCrew, Reply, spoken
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from deployments import door, live
from deployments.api import SpeechApi
from deployments.errors import ApiError, close_code, overloaded
from deployments.live import PATH
from deployments.settings import Settings
from tests.voices.recordings import audio_file, hum
from voice_core.speech import Segment
from voice_core.voices import store as store_module
from voice_core.voices.store import VoiceDraft, VoiceStore

CONFIG = {"type": "session.config", "seed": 5, "response_format": "wav"}


@pytest.fixture
def crew() -> FakeCrew:
    return FakeCrew()


@pytest.fixture
def client(crew: FakeCrew) -> TestClient:
    return TestClient(SpeechApi(Settings(), crew).routes())


def say(session: WebSocketTestSession, *pieces: str) -> None:
    for piece in pieces:
        session.send_json({"type": "input.text", "text": piece})


def segment(session: WebSocketTestSession) -> tuple[dict[str, Any], bytes]:
    row = session.receive_json()
    assert row["type"] == "segment", row
    return row, session.receive_bytes()


def error(session: WebSocketTestSession) -> dict[str, Any]:
    message = session.receive_json()
    assert message["type"] == "error", message
    return message["error"]


def test_sentences_are_spoken_as_they_are_complete_and_what_is_left_at_the_end(client: TestClient) -> None:
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        created = session.receive_json()
        assert (created["type"], created["seed"], created["sample_rate"]) == ("session.created", 5, FACTS.sample_rate)
        say(session, "The first sen", "tence is here. The sec", "ond one")
        first, sound = segment(session)
        assert first["text"] == "The first sentence is here."
        assert sound[:4] == b"RIFF"
        say(session, " is not done")
        session.send_json({"type": "input.done"})
        second, more = segment(session)
        assert (second["index"], second["text"]) == (1, "The second one is not done")
        assert second["start_sample"] > first["end_sample"]
        assert len(sound + more) > 44
        done = session.receive_json()
        assert done["type"] == "session.done"
        with pytest.raises(WebSocketDisconnect) as closed:
            session.receive_json()
        assert closed.value.code == 1000


class SlowCrew(FakeCrew):
    """Takes a moment over every segment."""

    def speak(self, segment: Segment) -> Reply:
        return SlowReply(spoken(segment))


class SlowReply(Reply):
    async def _wait(self) -> object:
        await asyncio.sleep(0.1)
        return await super()._wait()


SENTENCES = "Here is one sentence of this text. " * 6


def test_a_session_waits_for_room_that_its_own_sentences_take() -> None:
    small = Settings().model_copy(update={"most_seconds_in_flight": 5})
    client = TestClient(SpeechApi(small, SlowCrew()).routes())
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        say(session, SENTENCES)
        session.send_json({"type": "input.done"})
        assert [segment(session)[0]["index"] for _ in range(6)] == list(range(6))
        assert session.receive_json()["type"] == "session.done"


def test_a_session_that_begins_where_there_is_no_room_is_told_so() -> None:
    tiny = Settings().model_copy(update={"most_seconds_in_flight": 1})
    client = TestClient(SpeechApi(tiny, FakeCrew()).routes())
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        say(session, "Here is a sentence of more than a second. And")
        assert error(session)["code"] == "overloaded"
        with pytest.raises(WebSocketDisconnect) as closed:
            session.receive_json()
        assert closed.value.code == 1013


def test_a_text_that_grows_faster_than_it_is_spoken_is_refused_in_the_end() -> None:
    client = TestClient(SpeechApi(Settings(longest_speech_seconds=20), SlowCrew()).routes())
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        say(session, *[SENTENCES] * 4)
        while (message := session.receive())["type"] == "websocket.send" and "error" not in (message.get("text") or ""):
            pass
        assert "s of speech are waiting" in message["text"]


def test_whoever_listens_need_not_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PATIENCE_SECONDS", 0.05)
    client = TestClient(SpeechApi(Settings(), SlowCrew()).routes())
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        say(session, "Here is a sentence. And")
        assert segment(session)[0]["text"] == "Here is a sentence."
        assert error(session)["code"] == "timeout"


def test_half_of_a_surrogate_pair_is_refused_by_name(client: TestClient) -> None:
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        session.send_text(r'{"type": "input.text", "text": "hi \ud800"}')
        assert error(session)["param"] == "text"


def test_the_sound_is_that_of_the_whole_text_at_once(client: TestClient) -> None:
    text = "Here is the first line of it. There is the second one, right here."
    fields = {"model": "voice", "voice": "default", "response_format": "pcm", "seed": 5}
    whole = client.post("/v1/audio/speech", json={**fields, "input": text}).content
    with client.websocket_connect(PATH) as session:
        session.send_json({"type": "session.config", **fields})
        session.receive_json()
        say(session, *text)
        session.send_json({"type": "input.done"})
        sounds = b""
        while (message := session.receive())["type"] != "websocket.close":
            sounds += message.get("bytes") or b""
    assert np.array_equal(np.frombuffer(sounds, "<i2"), np.frombuffer(whole, "<i2"))


def test_marks_without_a_word_go_with_the_words_that_follow_and_end_no_session(client: TestClient) -> None:
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        say(
            session,
            "Here is the first line of it.\n",
            "***\n",
            '"\n',
            "And here is more of it.\n",
            "So it ends. \U0001f389",
        )
        session.send_json({"type": "input.done"})
        assert [segment(session)[0]["text"] for _ in range(3)] == [
            "Here is the first line of it.",
            '*** " And here is more of it.',
            "So it ends.",
        ]
        assert session.receive_json()["type"] == "session.done"


def test_the_sentences_of_a_session_share_a_turn_at_the_decoder(client: TestClient, crew: FakeCrew) -> None:
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        say(session, "Here is the first line of it.\n", "And here is more of it.\n")
        assert [segment(session)[0]["index"] for _ in range(2)] == [0, 1]
    assert len({spoken.request for spoken in crew.segments}) == 1


def test_a_session_that_has_spoken_waits_for_room_although_nothing_of_it_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = threading.Event()

    def noted(reason: str, retry_after_seconds: float) -> ApiError:
        refused.set()
        return overloaded(reason, retry_after_seconds)

    monkeypatch.setattr(door, "overloaded", noted)
    api = SpeechApi(Settings().model_copy(update={"most_seconds_in_flight": 5}), FakeCrew())
    with TestClient(api.routes()).websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        say(session, "Here is the first line of it.\n")
        assert segment(session)[0]["index"] == 0
        with api._door.take_on(5):
            say(session, "And here is more of it.\n")
            assert refused.wait(5)
        assert segment(session)[0]["index"] == 1


def test_a_flush_speaks_what_has_no_end_yet(client: TestClient) -> None:
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        say(session, "An open end")
        session.send_json({"type": "input.flush"})
        assert segment(session)[0]["text"] == "An open end"


class Hanging(FakeCrew):
    def __init__(self) -> None:
        super().__init__()
        self.replies: list[Reply] = []

    def speak(self, segment: Segment) -> Reply:
        self.segments.append(segment)
        self.replies.append(Reply(hangs=True))
        return self.replies[-1]


def wait_for(replies: list[Reply]) -> Reply:
    deadline = time.monotonic() + 5
    while not replies and time.monotonic() < deadline:
        time.sleep(0.01)
    return replies[0]


def test_a_cancel_calls_off_what_is_spoken_and_the_session_goes_on() -> None:
    crew = Hanging()
    with TestClient(SpeechApi(Settings(), crew).routes()).websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        say(session, "This will be cut off. And this is never said")
        reply = wait_for(crew.replies)
        session.send_json({"type": "input.cancel"})
        assert session.receive_json() == {"type": "input.cancelled"}
        session.send_json({"type": "input.done"})
        assert session.receive_json()["type"] == "session.done"
    assert reply.cancelled
    assert len(crew.segments) == 1


def test_a_client_that_leaves_in_the_middle_of_a_word_frees_its_rows_and_its_place() -> None:
    crew = Hanging()
    api = SpeechApi(Settings(most_requests_in_flight=1), crew)
    client = TestClient(api.routes())
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        say(session, "This is being spoken. And th")
        reply = wait_for(crew.replies)
    assert reply.cancelled
    with client.websocket_connect(PATH) as session:  # the one place is free again
        session.send_json(CONFIG)
        assert session.receive_json()["type"] == "session.created"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"type": "input.text", "text": "Hello."}, "type"),
        (CONFIG | {"n": 2}, "n"),
        (CONFIG | {"seconds": 3}, "seconds"),
        (CONFIG | {"input": "Hello."}, "input"),
        (CONFIG | {"temperature": 9}, "temperature"),
        (CONFIG | {"no_such": 1}, "no_such"),
        (CONFIG | {"language": "no language"}, "language"),
    ],
)
def test_a_session_that_can_not_be_is_refused_by_its_field(
    client: TestClient, message: dict[str, Any], param: str
) -> None:
    with client.websocket_connect(PATH) as session:
        session.send_json(message)
        assert error(session)["param"] == param
        with pytest.raises(WebSocketDisconnect) as closed:
            session.receive_json()
        assert closed.value.code == 1008


@pytest.mark.parametrize("message", ["no json", "[]", '{"type": "input.text"}', '{"type": "input.sing"}'])
def test_a_message_that_can_not_be_read_ends_the_session_with_its_reason(client: TestClient, message: str) -> None:
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        session.send_text(message)
        assert error(session)["type"] == "invalid_request_error"


def spoken_in(session: WebSocketTestSession, sentence: str) -> None:
    say(session, f"{sentence} And")
    segment(session)
    session.send_json({"type": "input.cancel"})
    assert session.receive_json()["type"] == "input.cancelled"


def test_a_recording_is_learned_and_heard_once_a_session(crew: FakeCrew, tmp_path: Path) -> None:
    client = TestClient(SpeechApi(Settings(voices=str(tmp_path), whisper_model="whisper"), crew).routes())
    recording = base64.b64encode(audio_file(hum())).decode()
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG | {"reference_audio": recording})
        session.receive_json()
        for sentence in ("One is here.", "Two is here."):
            spoken_in(session, sentence)
    assert (crew.learned, len(crew.transcribed)) == (1, 1)
    first, second = crew.segments
    assert first.prompt is not None
    assert first.prompt == second.prompt


def test_a_name_means_one_voice_throughout_a_session(
    crew: FakeCrew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "FRESH_SECONDS", 0)  # a newer voice is known at once
    store = VoiceStore(str(tmp_path))

    def ann(code: int) -> None:
        known = {"transcript": "Hello.", "consent": "I agree.", "recording_hash": "", "code_fingerprint": "codec"}
        store.create(VoiceDraft(name="Ann", seconds=2.0, **known), b"flac", (code,) * 100)

    ann(1)
    client = TestClient(SpeechApi(Settings(voices=str(tmp_path)), crew).routes())
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG | {"voice": "Ann"})
        session.receive_json()
        spoken_in(session, "One is here.")
        ann(2)
        spoken_in(session, "Two is here.")
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG | {"voice": "Ann"})
        session.receive_json()
        spoken_in(session, "Three is here.")
    assert [one.prompt and one.prompt.codes[0] for one in crew.segments] == [1, 1, 2]


def test_a_voice_that_is_not_there_is_refused_before_a_word_is_sent(client: TestClient) -> None:
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG | {"voice": "nobody"})
        assert error(session)["param"] == "voice"


def test_a_segment_that_stays_bad_ends_the_session_with_its_reason(client: TestClient, crew: FakeCrew) -> None:
    crew.silent_segments = (0,)
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        say(session, "This comes out silent. And")
        assert error(session)["code"] == "bad_segment"


def closed_with(session: WebSocketTestSession) -> int:
    with pytest.raises(WebSocketDisconnect) as closed:
        session.receive_json()
    return closed.value.code


SMALL = Settings(largest_upload_bytes=2000, largest_body_bytes=1000)


def test_the_first_message_may_be_as_large_as_an_upload_and_later_ones_as_a_body() -> None:
    client = TestClient(SpeechApi(SMALL, FakeCrew()).routes())
    with client.websocket_connect(PATH) as session:
        session.send_text(f"{' ' * 2000}{{}}")
        told = error(session)
        assert (told["code"], told["param"]) == ("request_too_large", "message")
        assert "2002 bytes, at most 2000" in told["message"]
        assert closed_with(session) == 1009
    with client.websocket_connect(PATH) as session:
        session.send_text(" " * 1500 + json.dumps(CONFIG))
        assert session.receive_json()["type"] == "session.created"
        session.send_text(" " * 1000 + json.dumps({"type": "input.flush"}))
        assert "at most 1000" in error(session)["message"]
        assert closed_with(session) == 1009


def test_messages_that_say_nothing_do_not_come_for_ever() -> None:
    with TestClient(SpeechApi(SMALL, FakeCrew()).routes()).websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        for _ in range(5):
            session.send_text(" " * 900 + json.dumps({"type": "input.flush"}))
        session.send_json({"type": "input.done"})
        assert "more than 4000 bytes together" in error(session)["message"]
        assert closed_with(session) == 1009


@pytest.mark.parametrize(
    ("message", "known"),
    [
        ({"type": "input.text", "text": "Hello", "extra": 1}, "type and text"),
        ({"type": "input.flush", "extra": None}, "type are"),
    ],
)
def test_a_field_that_a_message_has_not_is_refused_by_its_name(
    client: TestClient, message: dict[str, Any], known: str
) -> None:
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        session.send_json(message)
        session.send_json({"type": "input.done"})
        told = error(session)
        assert told["param"] == "extra"
        assert known in told["message"]


def test_sound_that_nobody_can_have_heard_yet_is_waiting_too() -> None:
    """Whatever is sent is taken in by Serve, also for a client who never reads it."""
    client = TestClient(SpeechApi(Settings(longest_speech_seconds=40), FakeCrew()).routes())
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG | {"cache": False})
        session.receive_json()
        for _ in range(10):
            say(session, f"{SENTENCES}\n")
            messages = [session.receive_json()]
            while messages[-1]["type"] == "segment" and len(messages) < 6:
                session.receive_bytes()
                messages.append(session.receive_json())
            if messages[-1]["type"] == "error":
                break
            session.receive_bytes()
        assert "waiting to be spoken, sent or heard" in messages[-1]["error"]["message"]


def test_texts_and_recordings_are_read_beside_the_event_loop(
    client: TestClient, crew: FakeCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_loop: list[str] = []

    def noting(name: str, usual: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            with suppress(RuntimeError):
                asyncio.get_running_loop()
                on_loop.append(name)
            return usual(*args)

        return noted

    for name in ("json_object", "detect_language", "complete_length"):
        monkeypatch.setattr(live, name, noting(name, getattr(live, name)))
    monkeypatch.setattr(live.SpeechRequest, "checked", noting("checked", live.SpeechRequest.checked))
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        assert not on_loop
        say(session, "Here is a sentence. And")
        segment(session)
    assert on_loop == ["json_object"]  # of a message that is a body at most


def test_whole_sentences_may_be_longer_together_than_a_text_and_none_of_them_alone() -> None:
    client = TestClient(SpeechApi(Settings(longest_text_characters=100), FakeCrew()).routes())
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG)
        session.receive_json()
        say(session, f"{SENTENCES}And")  # 213 characters
        texts = [segment(session)[0]["text"] for _ in range(6)]
        assert texts == ["Here is one sentence of this text."] * 6
        say(session, " so it goes on" * 7)
        assert error(session)["message"] == "text: 101 characters wait for the end of a sentence, at most 100 may"


def test_every_row_tells_its_faults_so_a_tolerance_has_an_effect(client: TestClient) -> None:
    with client.websocket_connect(PATH) as session:
        session.send_json(CONFIG | {"seconds_tolerance": 0.1, "on_bad_segment": "keep"})
        assert session.receive_json()["warnings"] == []


def test_a_service_that_stops_speaks_what_it_has_read_and_tells_sessions_to_come_later() -> None:
    api = SpeechApi(Settings(), FakeCrew())
    with (
        TestClient(api.routes()) as client,
        client.websocket_connect(PATH) as silent,
        client.websocket_connect(PATH) as session,
    ):
        session.send_json(CONFIG)
        session.receive_json()
        say(session, "Here is a sentence. And an open end")
        segment(session)
        assert client.portal is not None
        stopped = client.portal.start_task_soon(api.drain)
        assert segment(session)[0]["text"] == "And an open end"
        for one in (session, silent):
            told = one.receive_json()
            assert (told["type"], told["error"]["code"]) == ("error", "not_ready")
            assert closed_with(one) == 1013
        stopped.result(5)


@pytest.mark.parametrize(
    ("status", "code"), [(400, 1008), (408, 1008), (413, 1009), (429, 1013), (500, 1011), (503, 1013)]
)
def test_a_session_is_closed_as_its_error_says(status: int, code: int) -> None:
    assert close_code(status) == code
