"""Dubs, asked over HTTP in the same process, with a crew that hums."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from fake_crew import FACTS, FakeCrew, Reply, spoken
from ray.exceptions import RayTaskError
from starlette.testclient import TestClient

from deployments.api import SpeechApi
from deployments.dub_script import cue_seed
from deployments.settings import Settings
from voice_core.audio.formats import FORMATS
from voice_core.audio.loudness import loudness_lufs
from voice_core.audio.waveform import Waveform
from voice_core.errors import RequestError, SynthesisError
from voice_core.speech import FinishReason, Segment
from voice_core.subtitles import read_cues

RATE = FACTS.sample_rate
ALPHABET = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ',.?!"

SRT = """1
00:00:01,000 --> 00:00:02,500
Hello there, you.

2
00:00:03,000 --> 00:00:04,000
How are things?
"""
LEAST: dict[str, Any] = {"model": "voice", "voice": "default", "cues": SRT, "loudness_lufs": None, "cache": False}


class DubCrew(FakeCrew):
    """Speaks as long as asked, or as a test wishes for a text."""

    def __init__(self) -> None:
        super().__init__()
        self.longer_seconds: dict[str, float] = {}  # by text, of the first attempt and of those after it
        self.failures: dict[str, Exception] = {}
        self.attempts: dict[str, int] = {}
        self.silent_texts: tuple[str, ...] = ()
        self.finish_reason = FinishReason.STOP
        self.sings = False  # a hum of one height has no loudness
        self.clicks = False  # now and then, much louder
        self.heals = False  # a second attempt is as asked

    def speak(self, segment: Segment) -> Reply:
        self.segments.append(segment)
        attempt = self.attempts[segment.text] = self.attempts.get(segment.text, 0) + 1
        if segment.text in self.failures:
            return Reply(self.failures[segment.text])
        speeches = spoken(segment)
        extra = 0.0 if self.heals and attempt > 1 else self.longer_seconds.get(segment.text, 0.0)
        if extra:
            longer = spoken(replace(segment, seconds=segment.seconds + extra))
            speeches = [replace(speech, asked_seconds=segment.seconds) for speech in longer]
        if segment.text in self.silent_texts:
            speeches = [replace(speech, samples=np.zeros_like(speech.samples)) for speech in speeches]
        tone = np.cos(np.arange(60 * RATE) * 0.2).astype(np.float32) if self.sings else np.ones(60 * RATE, np.float32)
        if self.clicks:
            tone[::RATE] *= 20
        return Reply(
            [
                replace(speech, finish_reason=self.finish_reason, samples=speech.samples * tone[: len(speech.samples)])
                for speech in speeches
            ]
        )


@pytest.fixture
def crew() -> DubCrew:
    return DubCrew()


@pytest.fixture
def client(crew: DubCrew) -> TestClient:
    return TestClient(SpeechApi(Settings(), crew).routes(), raise_server_exceptions=False)


def dub(client: TestClient, **fields: Any) -> httpx.Response:
    return client.post("/v1/audio/dub", json=LEAST | fields)


def answered(answer: httpx.Response) -> tuple[np.ndarray, dict[str, Any]]:
    """The samples of the track and the report."""
    assert answer.status_code == 200, answer.text
    document = answer.json()
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(document["audio"])))
    assert rate == document["sample_rate"]
    assert len(samples) / rate == pytest.approx(document["seconds"], abs=0.001)
    return samples, document["report"]


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["message"]


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    lines = [line for line in answer.text.split("\n") if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def srt(*cues: tuple[float, float, str]) -> list[dict[str, Any]]:
    return [{"start_seconds": start, "end_seconds": end, "text": text} for start, end, text in cues]


def test_every_cue_is_spoken_for_its_own_seconds_at_its_own_time(client: TestClient, crew: DubCrew) -> None:
    samples, report = answered(dub(client))
    assert [(segment.text, segment.seconds) for segment in crew.segments] == [
        ("Hello there, you.", pytest.approx(1.5)),
        ("How are things?", pytest.approx(1.0)),
    ]
    audible = np.flatnonzero(samples)
    assert audible[0] == pytest.approx(1.0 * RATE, abs=0.001 * RATE)
    assert audible[audible > 2.6 * RATE][0] == pytest.approx(3.0 * RATE, abs=0.001 * RATE)
    assert report["track_seconds"] == 4.0
    first, second = report["cues"]
    assert (first["asked_seconds"], first["got_seconds"], first["placed_seconds"]) == (1.5, 1.5, 1.0)
    assert (second["index"], second["moved_seconds"], second["flags"], second["cached"]) == (1, 0, [], False)


def test_the_answer_holds_captions_of_what_is_heard(client: TestClient) -> None:
    assert dub(client).json()["captions"] == SRT
    assert dub(client, captions="json").json()["captions"][1]["start_seconds"] == 3.0
    assert read_cues(dub(client, captions="vtt").json()["captions"]).cues == read_cues(SRT).cues


def test_a_form_with_a_file_and_json_with_a_list_are_the_same_request(client: TestClient) -> None:
    fields = {"model": "voice", "voice": "default", "loudness_lufs": "null", "seed": "5", "cache": "false"}
    form = client.post("/v1/audio/dub", data=fields, files={"cues": ("film.srt", SRT.encode("utf-8-sig"))})
    listed = [
        {"start_seconds": cue.start_seconds, "end_seconds": cue.end_seconds, "text": cue.text}
        for cue in read_cues(SRT).cues
    ]
    assert form.json() == dub(client, cues=listed, seed=5).json() == dub(client, seed=5).json()


def test_an_inserted_cue_changes_nothing_of_the_others(client: TestClient, crew: DubCrew) -> None:
    dub(client)
    before = {segment.text: (segment.seeds, segment.index) for segment in crew.segments}
    crew.segments.clear()
    dub(client, cues="0\n00:00:00,000 --> 00:00:00,900\nFirst of all.\n\n" + SRT)
    after = {segment.text: (segment.seeds, segment.index) for segment in crew.segments}
    assert after.items() > before.items()


def test_seeds_follow_from_what_is_said_by_whom_and_for_how_long() -> None:
    seeds = {cue_seed(0, None, "Hello.", 1.0), cue_seed(1, None, "Hello.", 1.0), cue_seed(0, "Ann", "Hello.", 1.0)}
    seeds |= {cue_seed(0, None, "Hello!", 1.0), cue_seed(0, None, "Hello.", 1.1)}
    assert len(seeds) == 5
    assert cue_seed(0, None, "Hello.", 1.0) == cue_seed(0, None, "Hello.", 3.0 - 2.0)


def test_a_cue_out_of_tolerance_is_spoken_again(client: TestClient, crew: DubCrew) -> None:
    crew.longer_seconds, crew.heals = {"How are things?": 0.5}, True
    _, report = answered(dub(client))
    assert (report["cues"][1]["attempts"], report["cues"][1]["flags"]) == (2, [])
    assert report["cues"][0]["attempts"] == 1


def test_a_cue_that_stays_out_of_tolerance_is_kept_and_flagged(client: TestClient, crew: DubCrew) -> None:
    crew.longer_seconds = {"Hello there, you.": 0.6}
    _, report = answered(dub(client))
    first, second = report["cues"]
    assert first["attempts"] == 3
    assert first["flags"] == ["tolerance", "overlong", "overrun"]
    assert (second["placed_seconds"], second["moved_seconds"], second["flags"]) == (3.1, 0.1, ["moved", "overrun"])


def test_where_bad_segments_fail_the_cue_is_named(client: TestClient, crew: DubCrew) -> None:
    crew.longer_seconds = {"How are things?": 0.6}
    for policy, times in (("retry", 3), ("fail", 1)):
        crew.attempts.clear()
        status, param, message = refusal(dub(client, on_bad_segment=policy))
        assert (status, param) == (422, "cues")
        assert message.startswith("cues: cue 2: segment 1")
        assert crew.attempts["How are things?"] == times


def test_a_cue_that_the_voice_cannot_read_is_left_out_and_told(client: TestClient, crew: DubCrew) -> None:
    crew.facts_reply = Reply(replace(FACTS, alphabet=ALPHABET))
    samples, report = answered(dub(client, cues=srt((0, 1, "Hello."), (1, 2, "こんにちは。"), (2, 3, "Bye."))))
    assert [segment.text for segment in crew.segments] == ["Hello.", "Bye."]
    row = report["cues"][1]
    assert (row["flags"], row["placed_seconds"], row["got_seconds"]) == (["unreadable"], None, 0)
    assert "can't read 'こ'" in row["reason"]
    assert not np.any(samples[RATE + 1 : 2 * RATE - 1])
    refused = dub(client, cues=srt((0, 1, "Hello."), (1, 2, "こんにちは。")), on_bad_segment="retry")
    assert refusal(refused)[:2] == (400, "cues")
    assert "cue 2: this voice can't read 'こ'" in refusal(refused)[2]


def test_japanese_cues_are_spoken_by_a_model_that_reads_them(client: TestClient, crew: DubCrew) -> None:
    _, report = answered(dub(client, cues=srt((0, 1.5, "こんにちは、世界。"), (2, 3, "Hello."))))
    assert crew.segments[0].text.startswith("こんにちは")
    assert [row["flags"] for row in report["cues"]] == [[], []]


def test_where_no_cue_can_be_spoken_nothing_is(client: TestClient, crew: DubCrew) -> None:
    assert refusal(dub(client, cues=srt((0, 1, "♪"), (1, 2, "..."))))[:2] == (400, "cues")
    assert not crew.segments


def test_a_cue_without_words_is_silent_and_flagged(client: TestClient) -> None:
    _, report = answered(dub(client, cues=srt((0, 1, "Hello."), (1, 2, "♪ ♪"))))
    assert report["cues"][1]["flags"] == ["wordless"]


def test_cues_that_are_too_fast_too_short_or_too_long_are_flagged(client: TestClient, crew: DubCrew) -> None:
    cues = srt((0, 1, "This is far too much to be said in a second."), (2, 2.1, "Oh"), (3, 25, "Ah!"))
    _, report = answered(dub(client, cues=cues))
    assert [row["flags"] for row in report["cues"]] == [["fast"], ["short", "overrun"], ["long"]]
    assert [row["asked_seconds"] for row in report["cues"]] == [1.0, 0.25, 20.0]
    _, report = answered(dub(client, cues=cues, max_characters_per_second=None))
    assert report["cues"][0]["flags"] == []


def test_a_cue_longer_than_the_model_speaks_in_one_go_is_several_segments(client: TestClient, crew: DubCrew) -> None:
    text = "This is a long line of a film. " * 20
    samples, report = answered(dub(client, cues=srt((0, 30, text))))
    assert len(crew.segments) > 1
    assert report["cues"][0]["asked_seconds"] == pytest.approx(30)
    assert report["cues"][0]["flags"] == []
    assert len(samples) == 30 * RATE


def test_speakers_have_their_voices_and_the_others_the_first_one(client: TestClient, crew: DubCrew) -> None:
    recording = io.BytesIO()
    soundfile.write(recording, np.sin(np.arange(2 * RATE) * 0.1), RATE, format="WAV")
    form = {"name": "Ann", "transcript": "What Ann says.", "consent": "Yes."}
    client.post("/v1/audio/voices", data=form, files={"audio_sample": recording.getvalue()})
    vtt = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Anna>Hello.\n\n00:03.000 --> 00:04.000\n<v Bob>Hello.\n"
    _, report = answered(dub(client, cues=vtt, voices={"Anna": "Ann", "Carl": "Ann"}))
    assert [segment.prompt is None for segment in crew.segments] == [False, True]
    assert [row["speaker"] for row in report["cues"]] == ["Anna", "Bob"]
    assert report["warnings"] == ["voices: no cue is spoken by 'Carl'"]
    assert refusal(dub(client, cues=vtt, voices={"Anna": "Nobody"}))[:2] == (400, "voices")
    assert refusal(dub(client, cues=vtt, voice="Nobody"))[:2] == (400, "voice")


def test_the_track_is_as_long_as_the_film(client: TestClient) -> None:
    samples, report = answered(dub(client, track_seconds=10))
    assert len(samples) == 10 * RATE
    assert report["track_seconds"] == 10
    _, report = answered(dub(client, track_seconds=3.5))
    assert report["cues"][1]["flags"] == ["cut"]


def test_sounds_that_are_mixed_are_not_clipped(client: TestClient) -> None:
    cues = srt((0, 2, "One and two."), (0.5, 2, "Two and three."), (1, 2, "Three and four."), (1, 2, "Four and five."))
    samples, report = answered(dub(client, cues=cues, response_format="wav_float32"))
    assert 0.9 < np.abs(samples).max() <= 1.0
    assert all("overlap" in row["flags"] for row in report["cues"])


def test_a_cue_that_cannot_be_spoken_at_all_does_not_take_the_others_with_it(client: TestClient, crew: DubCrew) -> None:
    crew.failures = {"How are things?": RayTaskError("speak", "traceback", SynthesisError("no codes"))}
    _, report = answered(dub(client))
    assert report["cues"][1]["flags"] == ["failed"]
    assert report["cues"][1]["reason"] == "no codes"
    assert dub(client, on_bad_segment="retry").status_code == 500
    crew.failures = {"How are things?": SynthesisError("out of memory", may_succeed_later=True)}
    assert dub(client).status_code == 503


def test_a_cue_without_room_in_the_decoder_does_not_take_the_others_with_it(client: TestClient, crew: DubCrew) -> None:
    too_long = RequestError("input", "a segment has 1200 tokens, at most 1024 fit")
    crew.failures = {"How are things?": RayTaskError("speak", "traceback", too_long)}
    _, report = answered(dub(client))
    assert report["cues"][1]["flags"] == ["failed"]
    assert report["cues"][1]["reason"] == "a segment has 1200 tokens, at most 1024 fit"
    message = "cues: cue 2: a segment has 1200 tokens, at most 1024 fit"
    assert refusal(dub(client, on_bad_segment="retry")) == (400, "cues", message)


def test_a_silent_cue_is_flagged(client: TestClient, crew: DubCrew) -> None:
    crew.silent_texts = ("How are things?",)
    _, report = answered(dub(client))
    assert report["cues"][1]["flags"] == ["silent"]
    assert report["cues"][1]["attempts"] == 3


def test_events_tell_progress_then_the_track_then_the_report(client: TestClient) -> None:
    answer = dub(client, stream_format="sse")
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = events(answer)
    assert [event["type"] for event in told] == ["dub.progress"] * 2 + ["dub.audio.delta", "dub.done"]
    assert [(event["done"], event["total"], event["cue"]["index"]) for event in told[:2]] == [(1, 2, 0), (2, 2, 1)]
    whole = dub(client).json()
    assert told[2]["audio"] == whole["audio"]
    assert (told[3]["report"], told[3]["captions"]) == (whole["report"], whole["captions"])


@pytest.mark.parametrize("audio_format", ["wav", "mp3", "flac", "opus"])
def test_the_file_knows_its_length_in_every_format(client: TestClient, audio_format: str) -> None:
    document = dub(client, response_format=audio_format, track_seconds=60).json()
    file = soundfile.info(io.BytesIO(base64.b64decode(document["audio"])))
    assert file.duration == pytest.approx(60, abs=0.01)


def test_what_fails_after_the_first_event_is_the_last_event(client: TestClient, crew: DubCrew) -> None:
    crew.failures = {"How are things?": SynthesisError("out of memory", may_succeed_later=True)}
    told = events(dub(client, stream_format="sse"))
    assert told[-1]["type"] == "dub.error"
    assert all(event["type"] == "dub.progress" for event in told[:-1])
    assert told[-1]["error"]["code"] == "synthesis_failed"
    assert told[-1]["retry_after_seconds"] == 5
    crew.failures = {"How are things?": SynthesisError("no codes")}
    last = events(dub(client, stream_format="sse", on_bad_segment="retry"))[-1]
    assert last["type"] == "dub.error"
    assert "retry_after_seconds" not in last


def test_an_aac_whose_first_cue_leaves_no_room_for_its_delay_says_so(client: TestClient) -> None:
    if "aac" not in FORMATS:
        pytest.skip("PyAV is an optional extra")
    for start, warned in ((0.0, True), (0.5, False)):
        cues = srt((start, 3, "Hello there."))
        warnings = dub(client, cues=cues, response_format="aac").json()["report"]["warnings"]
        assert any("64 ms late" in warning for warning in warnings) is warned


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        ({"cues": "nonsense"}, "cues", "neither SRT nor WebVTT"),
        ({"cues": 5}, "cues", ""),
        ({"cues": srt((2, 1, "Hello."))}, "cues", "cue 1: ends at 1 s, and begins at 2 s"),
        ({"cues": srt((1, 2, "Hello."), (99_999, 100_000, "Bye."))}, "cues", "the longest track made here"),
        (
            {"cues": [{"start_seconds": 1, "end_seconds": 10**400, "text": "a"}]},
            "cues",
            "end_seconds: must be a number",
        ),
        ({"track_seconds": 1e-5}, "track_seconds", "0.01"),
        ({"track_seconds": 2}, "track_seconds", "before cue 2 begins"),
        ({"track_seconds": 100_000}, "track_seconds", "the longest track made here"),
        ({"response_format": "aiff"}, "response_format", "aiff"),
        ({"language": "klingon"}, "language", "klingon"),
        ({"loudness_lufs": 5}, "loudness_lufs", ""),
        ({"stream_format": "audio"}, "stream_format", ""),
        ({"input": "Hello."}, "input", "the fields are model, voice, cues"),
        ({"voices": {"Ann": 5}}, "voices", ""),
        ({"cues": srt((1, 2, "a" * 5001))}, "cues", "at most 5000"),
        ({"cues": [{"start_seconds": 1, "end_seconds": 2, "text": "a"}] * 10_801}, "cues", "at most 10800 s"),
        ({"best_of": 8, "cues": [{"start_seconds": 1, "end_seconds": 2, "text": "a"}] * 1400}, "cues", "at most 10800"),
    ],
)
def test_a_wrong_field_is_refused_before_anything_is_spoken(
    client: TestClient, crew: DubCrew, fields: dict[str, Any], param: str, reason: str
) -> None:
    status, named, message = refusal(dub(client, **fields))
    assert (status, named) == (400, param)
    assert reason in message
    assert not crew.segments


def test_best_of_speaks_candidates_in_one_call(client: TestClient, crew: DubCrew) -> None:
    answered(dub(client, best_of=3))
    assert [len(segment.seeds) for segment in crew.segments] == [3, 3]


def test_a_row_that_does_not_end_by_itself_is_flagged(client: TestClient, crew: DubCrew) -> None:
    crew.finish_reason = FinishReason.LENGTH
    _, report = answered(dub(client))
    assert report["cues"][0]["flags"] == ["unfinished"]
    assert report["cues"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("lufs", [-16.0, -30.0])
def test_the_track_is_as_loud_as_wished(client: TestClient, crew: DubCrew, lufs: float) -> None:
    crew.sings = True
    samples, report = answered(
        dub(client, loudness_lufs=lufs, cues=srt((1, 4, "Hello there."), (20, 23, "Bye, then.")))
    )
    assert report["loudness_lufs"] == pytest.approx(lufs, abs=0.05)
    assert loudness_lufs(Waveform(samples.astype(np.float32), RATE)) == pytest.approx(lufs, abs=0.1)


def test_what_is_too_peaked_to_be_so_loud_is_told(client: TestClient, crew: DubCrew) -> None:
    crew.sings = True
    crew.clicks = True
    samples, report = answered(dub(client, loudness_lufs=-5.0))
    assert np.abs(samples).max() < 0.9
    assert report["loudness_lufs"] < -6
    assert loudness_lufs(Waveform(samples.astype(np.float32), RATE)) == pytest.approx(report["loudness_lufs"], abs=0.2)
    assert "its peaks allow no more" in report["warnings"][0]


def test_what_was_spoken_once_is_not_spoken_again(client: TestClient, crew: DubCrew) -> None:
    first = dub(client, cache=True)
    again = dub(client, cache=True, cues="0\n00:00:00,000 --> 00:00:00,900\nFirst of all.\n\n" + SRT)
    assert [segment.text for segment in crew.segments] == ["Hello there, you.", "How are things?", "First of all."]
    assert [row["cached"] for row in answered(again)[1]["cues"]] == [False, True, True]
    assert not any(row["cached"] for row in answered(first)[1]["cues"])
    assert dub(client, cache=True).json()["audio"] == first.json()["audio"]
    assert [row["cached"] for row in answered(dub(client, cache=False))[1]["cues"]] == [False, False]


def test_a_dub_of_more_than_may_be_in_flight_is_refused_for_good(crew: DubCrew) -> None:
    settings = Settings().model_copy(update={"most_seconds_in_flight": 2.0})
    client = TestClient(SpeechApi(settings, crew).routes())
    assert refusal(dub(client)) == (400, "cues", "cues: 2 cues of 2 s in all; at most 2 s are spoken for one dub")
    assert dub(client, cues=srt((0, 1, "Hello."))).status_code == 200
