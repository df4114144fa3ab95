"""The objects in answers, as types: openapi.py describes the API by them, and tests hold the answers against it.

Most builders are checked against them by type, too; not those of captions in JSON, of events that tell an error, and of
dubs but for their report.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic reads typing's own from Python 3.12 on only


class ErrorObject(TypedDict):
    """What went wrong."""

    message: Annotated[str, Field(description="for people: which field, and why")]
    type: Annotated[str, Field(description="`invalid_request_error`, `rate_limit_error` or `server_error`")]
    param: Annotated[str | None, Field(description="the field that is wrong")]
    code: Annotated[str | None, Field(description="for programs")]


class ErrorEnvelope(TypedDict):
    """OpenAI's envelope; every error comes in it."""

    error: ErrorObject


class CandidateRow(TypedDict):
    """One of the candidates that a sample of a segment was chosen from (`best_of`)."""

    seed: int
    score: Annotated[float, Field(description="0 is best: the sum of the shares below, and 1 if it did not end")]
    length_error: Annotated[float, Field(description="by which got misses asked, as a share of asked")]
    ended: Annotated[bool, Field(description="by itself")]
    repeated_share: Annotated[float, Field(description="of its codes that say again what was said, 0 to 1")]
    silence_share: Annotated[float, Field(description="of its time, 0 to 1")]


class SegmentRow(TypedDict):
    """Everything that is told of one segment. Places are in the file, at the file's own rate."""

    index: Annotated[int, Field(description="place in the text, from 0")]
    text: Annotated[str, Field(description="as the model read it")]
    start_sample: int
    end_sample: Annotated[int, Field(description="the first sample after it; a silent segment ends where it starts")]
    start_seconds: float
    end_seconds: float
    seed: Annotated[int, Field(description="that it was spoken with; a retry has one of its own")]
    finish_reason: Annotated[
        Literal["stop", "length", "cancelled"], Field(description="`stop`: it ended by itself; `length`: it was cut")
    ]
    asked_seconds: float
    got_seconds: Annotated[float, Field(description="as spoken, before its edges are trimmed")]
    attempts: Annotated[int, Field(description="1, or more where it was spoken again")]
    cached: Annotated[bool, Field(description="it had been spoken before")]
    faults: Annotated[list[str], Field(description="what makes it bad; only `on_bad_segment: keep` lets such through")]
    dropped_codes: Annotated[int, Field(description="special codes in mid-speech that have no sound")]
    candidates: NotRequired[Annotated[list[CandidateRow], Field(description="with `best_of` above 1")]]


class Manifest(TypedDict):
    """What a sample is made of."""

    format: str
    sample_rate: Annotated[int, Field(description="Hz, of the file")]
    samples: Annotated[int, Field(description="of the file")]
    seconds: float
    seed: int
    language: Annotated[str, Field(description="`en`, `ja`, `zh` or `other`")]
    voice: str
    segments: list[SegmentRow]


class CaptionRow(TypedDict):
    """A caption in JSON: the time of a segment's sound."""

    index: Annotated[int, Field(description="place among those that can be heard, from 0")]
    start_seconds: float
    end_seconds: float
    text: str
    speaker: NotRequired[Annotated[str, Field(description="of a dub's cue that has one")]]


Captions = Annotated[str | list[CaptionRow], Field(description="a text in SRT or WebVTT, or a list")]
Warnings = Annotated[list[str], Field(description="what of the request has no effect, and why")]


class SampleObject(TypedDict):
    """One sample of the whole text."""

    seed: Annotated[int, Field(description="gives this sample again alone, with `n` 1")]
    audio: Annotated[str, Field(description="the file", json_schema_extra={"contentEncoding": "base64"})]
    format: str
    media_type: str
    sample_rate: Annotated[int, Field(description="Hz, of the file")]
    seconds: float
    finish_reasons: Annotated[list[str], Field(description="of each segment")]
    asked_seconds: Annotated[list[float], Field(description="of each segment")]
    got_seconds: Annotated[list[float], Field(description="of each segment, without pauses, before trimming")]
    dropped_codes: int
    captions: NotRequired[Captions]
    manifest: NotRequired[Manifest]


class SpeechObject(TypedDict):
    """The whole answer in JSON."""

    audios: Annotated[list[SampleObject], Field(description="`n` of them")]
    warnings: Warnings


class SegmentQuote(TypedDict):
    """A segment that would be spoken."""

    index: int
    text: str
    seconds: Annotated[float, Field(description="that it is asked to take")]


class Quote(TypedDict):
    """What a request would take. Nothing was spoken."""

    segments: list[SegmentQuote]
    seconds: Annotated[float, Field(description="of one sample, pauses included")]
    work_seconds: Annotated[
        float, Field(description="of speech in all rows, a segment counted as 1 s at least; what limits are counted in")
    ]
    rows: Annotated[int, Field(description="of the decoder: segments × n × best_of")]
    frames: Annotated[int, Field(description="codes to be spoken, all rows together")]
    expected_wait_seconds: Annotated[float, Field(description="that requests before it add")]
    expected_seconds: Annotated[float, Field(description="until the last row is done")]
    language: Annotated[str, Field(description="`en`, `ja`, `zh` or `other`")]
    warnings: Warnings


class Usage(TypedDict):
    """OpenAI's count."""

    input_tokens: Annotated[int, Field(description="of text that was read")]
    output_tokens: Annotated[int, Field(description="codes that were spoken")]
    total_tokens: int


class DeltaEvent(TypedDict):
    """The next bytes of the file. All of them together are one file, as in a stream of bare audio."""

    type: Literal["speech.audio.delta"]
    audio: Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
    segment: NotRequired[Annotated[SegmentRow, Field(description="in the first event of each segment")]]


class DoneEvent(TypedDict):
    """The last event of a speech that is whole."""

    type: Literal["speech.audio.done"]
    usage: Usage
    seed: int
    sample_rate: Annotated[int, Field(description="Hz, of the file")]
    seconds: float
    warnings: Warnings
    captions: NotRequired[Captions]
    manifest: NotRequired[Manifest]


RetryAfter = Annotated[int, Field(description="where a repeat may succeed; after so long")]


class ErrorEvent(TypedDict):
    """The last event of a speech that failed on its way."""

    type: Literal["speech.audio.error"]
    error: ErrorObject
    retry_after_seconds: NotRequired[RetryAfter]


class CueRow(TypedDict):
    """What became of one cue."""

    index: Annotated[int, Field(description="place in the file, from 0")]
    text: str
    speaker: str | None
    start_seconds: Annotated[float, Field(description="of the cue")]
    end_seconds: Annotated[float, Field(description="of the cue")]
    placed_seconds: Annotated[
        float | None, Field(description="where its first audible sample is; null: nothing is heard")
    ]
    placed_end_seconds: Annotated[float | None, Field(description="where its sound ends")]
    asked_seconds: float
    got_seconds: float
    moved_seconds: Annotated[float, Field(description="by which it begins after its cue does")]
    seed: int
    attempts: int
    cached: Annotated[bool, Field(description="it had been spoken before")]
    finish_reason: Annotated[str | None, Field(description="`stop`, or `length`: it was cut")]
    flags: Annotated[
        list[str],
        Field(
            description="what is to be told of it: `fast`, `short`, `long`, `unreadable`, `wordless`, `failed`, "
            "`silent`, `unfinished`, `tolerance`, `overrun`, `overlong`, `moved`, `overlap`, `cut`"
        ),
    ]
    reason: NotRequired[Annotated[str, Field(description="why it is not heard")]]


class DubReport(TypedDict):
    """What became of every cue, and of the track."""

    track_seconds: float
    sample_rate: Annotated[int, Field(description="Hz, of the file")]
    loudness_lufs: Annotated[float | None, Field(description="that the track has; null: it was left as spoken")]
    cues: list[CueRow]
    empty_cues: Annotated[list[int], Field(description="places of cues without a text, which are left out")]
    warnings: Warnings


class DubObject(TypedDict):
    """A dub in one object."""

    audio: Annotated[str, Field(description="the track", json_schema_extra={"contentEncoding": "base64"})]
    format: str
    media_type: str
    sample_rate: Annotated[int, Field(description="Hz, of the file")]
    seconds: float
    report: DubReport
    captions: Captions


class DubProgressEvent(TypedDict):
    """A cue is spoken."""

    type: Literal["dub.progress"]
    done: Annotated[int, Field(description="cues so far")]
    total: int
    cue: CueRow


class DubDeltaEvent(TypedDict):
    """The next bytes of the track, once all cues are on it."""

    type: Literal["dub.audio.delta"]
    audio: Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]


class DubDoneEvent(TypedDict):
    """The last event of a dub that is whole."""

    type: Literal["dub.done"]
    report: DubReport
    captions: Captions


class DubErrorEvent(TypedDict):
    """The last event of a dub that failed."""

    type: Literal["dub.error"]
    error: ErrorObject
    retry_after_seconds: NotRequired[RetryAfter]


class VoiceObject(TypedDict):
    """A voice."""

    id: Annotated[str, Field(description="for ever")]
    object: Literal["audio.voice"]
    type: Literal["audio_sample"]
    name: Annotated[str, Field(description="a label; several voices may share one, and it means the newest")]
    created_at: Annotated[int, Field(description="seconds since 1970; 0 for the model's own voice")]
    transcript: NotRequired[Annotated[str, Field(description="what is said in the recording")]]
    language: NotRequired[Annotated[str | None, Field(description="of the transcript; null: detected")]]
    seconds: NotRequired[Annotated[float, Field(description="of the recording")]]


class NamedVoice(TypedDict):
    """What a menu shows of a voice."""

    id: str
    name: str


class VoiceList(TypedDict):
    """All voices, the model's own first, then the oldest first."""

    object: Literal["list"]
    data: list[VoiceObject]
    voices: Annotated[list[NamedVoice], Field(description="the same, as Open WebUI reads them")]
    first_id: str
    last_id: str
    has_more: bool


class DeletedVoice(TypedDict):
    """A voice that is gone."""

    id: str
    object: Literal["audio.voice.deleted"]
    deleted: bool


class ModelObject(TypedDict):
    """A model."""

    id: str
    object: Literal["model"]
    created: Annotated[int, Field(description="seconds since 1970, when the service started")]
    owned_by: str


class ModelList(TypedDict):
    """The one model that is served."""

    object: Literal["list"]
    data: list[ModelObject]


class Alive(TypedDict):
    """The process answers."""

    status: Literal["ok"]


class Ready(TypedDict):
    """A request that came now would be spoken."""

    status: Literal["ready"]
    model: str
