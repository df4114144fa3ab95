"""What a request may say, and how it is told what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deployments.body import Form
from deployments.speaking import Wishes
from deployments.speech_request import SpeechRequest
from voice_core.errors import RequestError
from voice_core.speech import MAX_SEED, Sampling

LEAST = {"model": "voice", "voice": "default", "input": "Hello."}


def read(**fields: Any) -> SpeechRequest:
    return SpeechRequest.from_json(json.dumps(LEAST | fields).encode())


def refused(body: bytes) -> RequestError:
    with pytest.raises(RequestError) as refusal:
        SpeechRequest.from_json(body)
    return refusal.value


def test_the_defaults_are_openais_and_the_references() -> None:
    wanted = read()
    assert (wanted.response_format, wanted.speed, wanted.n, wanted.segment) == ("mp3", 1.0, 1, True)
    assert wanted.inter_segment_silence == 0.05
    assert wanted.seed is None
    assert wanted.sampling == Sampling()


def test_every_field_arrives() -> None:
    wanted = read(
        voice={"id": "default"},
        response_format="flac",
        speed=1,
        instructions="",
        stream_format=None,
        seed=MAX_SEED,
        temperature=0,
        top_k=1,
        top_p=1,
        min_p=0.1,
        language="ja",
        seconds=3,
        segment=False,
        inter_segment_silence=0,
        n=16,
    )
    assert wanted.voice == "default"
    assert wanted.sampling == Sampling(temperature=0, top_k=1, top_p=1, min_p=0.1)
    assert (wanted.seed, wanted.seconds, wanted.segment, wanted.n) == (MAX_SEED, 3, False, 16)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"stream_format": "sse", "n": 2}, "n"),
        ({"stream_format": "audio", "captions": "srt"}, "captions"),
        ({"stream_format": "audio", "manifest": True}, "manifest"),
    ],
)
def test_what_a_stream_has_no_place_for_is_refused(fields: dict[str, object], field: str) -> None:
    assert refused(json.dumps(LEAST | fields).encode()).field == field


def test_a_bad_segment_is_tried_three_times_unless_the_request_says_otherwise() -> None:
    assert read().wishes == Wishes(retries=2, keep_bad=False)
    assert read(on_bad_segment="fail").wishes == Wishes(retries=0, keep_bad=False)
    assert read(temperature=0).wishes.retries == 0  # without noise a repeat would be the same
    assert read(on_bad_segment="keep", best_of=3).wishes == Wishes(retries=0, keep_bad=True, best_of=3)


@pytest.mark.parametrize("encoded", ["UklGRg==", "data:audio/wav;base64,UklGRg==", "UklG\nRg=="])
def test_a_recording_comes_in_base64_or_as_a_data_url(encoded: str) -> None:
    assert read(reference_audio=encoded, reference_text="Hello.").reference_audio == b"RIFF"


def test_a_recording_and_a_voice_contradict_each_other() -> None:
    body = json.dumps(LEAST | {"voice": "Ann", "reference_audio": "UklGRg=="}).encode()
    assert refused(body).field == "voice"


def test_a_form_says_the_same_as_json() -> None:
    texts = LEAST | {"seconds": "3", "segment": "false", "temperature": "0.5", "reference_text": "1"}
    form = Form(texts, {"reference_audio": b"RIFF"})
    wanted = SpeechRequest.from_form(form)
    fields = {"seconds": 3, "segment": False, "temperature": 0.5}
    assert wanted == read(**fields, reference_text="1", reference_audio="UklGRg==")


@pytest.mark.parametrize(
    ("texts", "files", "field"),
    [
        ({"seconds": "three"}, {}, "seconds"),
        ({"seconds": '"3"'}, {}, "seconds"),
        ({"tempo": "2"}, {}, "tempo"),
        ({}, {"recording": b"RIFF"}, "recording"),
        ({}, {"input": b"Hello."}, "input"),
    ],
)
def test_a_wrong_form_is_refused_by_field(texts: dict[str, str], files: dict[str, bytes], field: str) -> None:
    given = {name: text for name, text in LEAST.items() if name not in files}
    with pytest.raises(RequestError) as refusal:
        SpeechRequest.from_form(Form(given | texts, files))
    assert refusal.value.field == field


def test_a_text_that_is_too_long_is_refused() -> None:
    read(input="x" * 20).check_length(20)
    with pytest.raises(RequestError, match=r"input.*21 characters, at most 20"):
        read(input="x" * 21).check_length(20)


def test_null_means_not_given() -> None:
    assert read(seed=None, speed=None) == read()


@pytest.mark.parametrize(("theirs", "ours"), [("stream", "stream_format"), ("lang_code", "language")])
def test_what_other_servers_call_otherwise_is_refused_with_our_name_for_it(theirs: str, ours: str) -> None:
    assert f"here it is {ours!r}" in refused(json.dumps(LEAST | {theirs: "x"}).encode()).reason


@pytest.mark.parametrize("name", ["model", "voice", "input"])
@pytest.mark.parametrize("absent", [{}, {"null": None}])
def test_a_required_field_is_asked_for_by_name(name: str, absent: dict[str, None]) -> None:
    document: dict[str, Any] = {key: value for key, value in LEAST.items() if key != name}
    if absent:
        document[name] = None
    refusal = refused(json.dumps(document).encode())
    assert (refusal.field, refusal.reason) == (name, "is required")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("unknown", 1),
        ("unknown", None),
        ("model", ""),
        ("input", 5),
        ("input", "\ud800"),
        ("voice", ""),
        ("voice", "x" * 257),
        ("voice", {"name": "default"}),
        ("reference_audio", "not base64!"),
        ("reference_audio", "data:audio/wav;base64,?"),
        ("reference_audio", 5),
        ("reference_text", "Without a recording."),
        ("reference_text", "x" * 751),
        ("response_format", "ogg"),
        ("response_format", "midi"),
        ("speed", 0.2),
        ("speed", 4.1),
        ("speed", True),
        ("speed", "1"),
        ("instructions", "Whisper."),
        ("stream_format", "bytes"),
        ("on_bad_segment", "ignore"),
        ("seconds_tolerance", 0),
        ("best_of", 0),
        ("best_of", 9),
        ("captions", "ass"),
        ("manifest", "yes"),
        ("cache", 1),
        ("seed", -1),
        ("seed", MAX_SEED + 1),
        ("seed", 1.5),
        ("seed", True),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("top_k", -1),
        ("top_k", 2**31),
        ("top_p", 0),
        ("top_p", 1.1),
        ("min_p", 1),
        ("min_p", -0.1),
        ("language", 1),
        ("seconds", 0),
        ("seconds", True),
        ("segment", 1),
        ("inter_segment_silence", -1),
        ("inter_segment_silence", 11),
        ("n", 0),
        ("n", 17),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(field: str, value: object) -> None:
    refusal = refused(json.dumps(LEAST | {field: value}).encode())
    assert refusal.field == field
    assert refusal.reason


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","voice":"default","input":"hi","\\ud800x":1}',
        b'{"model":"m","voice":{"\\ud800":1},"input":"hi"}',
        b'{"model":"\\ud800","voice":"default","input":"hi"}',
    ],
)
def test_half_of_a_surrogate_pair_is_refused_wherever_it_stands(body: bytes) -> None:
    assert refused(body).field in ("body", "voice", "model")


def test_speed_and_seconds_contradict_each_other() -> None:
    assert refused(json.dumps(LEAST | {"speed": 2, "seconds": 3}).encode()).field == "speed"
    assert read(speed=1, seconds=3).seconds == 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"speed": NaN}',
        b'{"speed": -Infinity}',
        b'{"seed": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    assert refused(body).field == "body"


def test_a_number_that_overflows_to_infinity_is_refused() -> None:
    assert refused(json.dumps(LEAST)[:-1].encode() + b', "seconds": 1e400}').field == "seconds"
