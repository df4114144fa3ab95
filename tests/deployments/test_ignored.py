"""What of a request has no effect is told, wherever the answer has a place for it; what has one is not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from fake_crew import FACTS, FakeCrew, Reply
from starlette.testclient import TestClient

from deployments.api import SpeechApi
from deployments.live import PATH
from deployments.settings import Settings
from voice_core.speech import ENGLISH_WORDS

LEAST = {"model": "voice", "voice": "default", "input": "Here is a line.", "response_format": "wav"}


@pytest.fixture
def crew() -> FakeCrew:
    return FakeCrew()


@pytest.fixture
def client(crew: FakeCrew) -> TestClient:
    return TestClient(SpeechApi(Settings(), crew).routes())


def warnings(client: TestClient, **fields: Any) -> list[str]:
    quote = client.post("/v1/audio/speech/estimate", json=LEAST | fields)
    assert quote.status_code == 200, quote.text
    return list(quote.json()["warnings"])


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"temperature": 0, "top_k": 5, "top_p": 0.5}, ["top_k", "top_p"]),
        ({"top_k": 1, "temperature": 0.5}, ["temperature"]),
        ({"temperature": 0, "n": 2, "best_of": 2}, ["n", "best_of"]),
        ({"min_p": 0.1, "top_k": 1, "top_p": 0.5}, ["top_k", "top_p"]),
        ({"inter_segment_silence": 1}, ["inter_segment_silence"]),
        ({"speed": 4, "input": "No.\nHere is a line that takes its time."}, ["speed"]),
        ({"seconds_tolerance": 0.1, "on_bad_segment": "keep"}, ["seconds_tolerance"]),
    ],
)
def test_what_has_no_effect_is_told_by_its_field(client: TestClient, fields: dict[str, Any], named: list[str]) -> None:
    assert [warning.partition(":")[0] for warning in warnings(client, **fields)] == named


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0, "seed": 5},
        {"temperature": 0, "top_k": 30},  # a client that spells defaults out asked for nothing
        {"top_k": 1},
        {"min_p": 0.1, "temperature": 0.5},
        {"inter_segment_silence": 1, "input": "One line.\nAnd one more."},
        {"segment": False},
        {"speed": 2, "input": "Here is a line that takes its time, as lines do."},
        {"seconds_tolerance": 0.1, "on_bad_segment": "keep", "manifest": True},
        {"language": "ja", "input": "これは一行です。"},
    ],
)
def test_what_has_an_effect_or_was_not_asked_for_is_not_told(client: TestClient, fields: dict[str, Any]) -> None:
    assert warnings(client, **fields) == []


def test_a_language_that_the_voice_does_not_read_is_told(crew: FakeCrew, client: TestClient) -> None:
    crew.facts_reply = Reply(replace(FACTS, text_normaliser=ENGLISH_WORDS))
    assert warnings(client, language="en-GB") == []
    (warning,) = warnings(client, language="de")
    assert warning.startswith("language: this voice reads English")


def test_signs_that_japanese_is_read_without_are_told(client: TestClient) -> None:
    text = "今日の気温は−5度です。①から10–20分です。"
    [warning] = warnings(client, input=text)
    assert warning.startswith("input: ")
    assert all(sign in warning for sign in ("U+2212", "U+2013", "U+2460"))
    spoken = client.post("/v1/audio/speech", json=LEAST | {"input": text})
    assert spoken.headers["X-Warnings"] == warning
    assert not warnings(client, input="二つの話――それだけです。")  # a dash that is a pause in thought
    assert not warnings(client, input="It was −5, from 10–20.")


def test_every_kind_of_answer_has_a_place_for_it(client: TestClient) -> None:
    """Also a session over a WebSocket, for what does not depend on the text."""
    fields = LEAST | {"temperature": 0, "top_p": 0.5}
    (expected,) = warnings(client, temperature=0, top_p=0.5)
    for more in ({}, {"manifest": True}, {"stream_format": "audio"}, {"stream_format": "sse"}):
        assert client.post("/v1/audio/speech", json=fields | more).headers["x-warnings"] == expected
    as_object = client.post("/v1/audio/speech", json=fields, headers={"accept": "application/json"})
    assert as_object.json()["warnings"] == [expected]
    events = client.post("/v1/audio/speech", json=fields | {"stream_format": "sse"}).text.split("\n\n")
    assert json.loads(events[-2].removeprefix("data: "))["warnings"] == [expected]
    with client.websocket_connect(PATH) as session:
        session.send_json({"type": "session.config", "temperature": 0, "top_p": 0.5})
        assert session.receive_json()["warnings"] == [expected]
    assert "x-warnings" not in client.post("/v1/audio/speech", json=LEAST).headers


def test_a_dub_tells_it_in_its_report(client: TestClient) -> None:
    cues = [{"start_seconds": 0, "end_seconds": 2, "text": "Here is a line."}]
    wanted = {"model": "voice", "voice": "default", "cues": cues, "temperature": 0, "top_p": 0.5}
    (expected,) = warnings(client, temperature=0, top_p=0.5)
    wanted["loudness_lufs"] = None  # a hum is too even to be made loud
    assert client.post("/v1/audio/dub", json=wanted).json()["report"]["warnings"] == [expected]
