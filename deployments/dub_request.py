"""One request for a dub, as it stands in the body, JSON or a form: cues, voices and how they are spoken."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, field_validator

from deployments.body import Form
from deployments.keys import Priority
from deployments.speaking import MOST_RETRIES, Wishes
from deployments.speech_request import (
    LONGEST_NAME_CHARACTERS,
    MOST_CANDIDATES,
    CaptionFormat,
    LanguageTag,
    VoiceName,
    json_object,
    json_value,
    request_error,
)
from voice_core.audio.formats import FORMATS, format_named
from voice_core.errors import RequestError
from voice_core.speech import HIGHEST_TEMPERATURE, LARGEST_TOP_K, MAX_SEED, Sampling
from voice_core.subtitles import LONGEST_SPEAKER_CHARACTERS, CueSheet, read_cues
from voice_core.timeline import OVERRUN_SECONDS

# What stands in a form as it is; the other fields are written there as in JSON.
TEXT_FIELDS = (
    "model",
    "voice",
    "cues",
    "response_format",
    "on_bad_segment",
    "language",
    "priority",
    "captions",
    "stream_format",
)
# Where null switches something off that is on by itself.
NULLABLE_FIELDS = ("max_characters_per_second", "loudness_lufs", "seconds_tolerance")
LONGEST_OVERRUN_SECONDS = 60.0
LOUDEST_LUFS, QUIETEST_LUFS = -5.0, -50.0

_REFERENCE = Sampling()

CUE_LIST = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "start_seconds": {"type": "number", "minimum": 0},
            "end_seconds": {"type": "number", "exclusiveMinimum": 0},
            "text": {"type": "string"},
            "speaker": {"type": ["string", "null"], "maxLength": LONGEST_SPEAKER_CHARACTERS},
            "index": {},  # is in captions, and says nothing
        },
        "required": ["start_seconds", "end_seconds", "text"],
        "additionalProperties": False,
    },
}


class DubRequest(BaseModel):
    """What is said when, by whom, and what the track is to be like."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    model: str = Field(min_length=1, max_length=LONGEST_NAME_CHARACTERS, description="any name; one model is served")
    voice: VoiceName = Field(description="of cues without a speaker, and of speakers who aren't in `voices`")
    cues: Annotated[str | bytes | list[Any], WithJsonSchema({"anyOf": [{"type": "string"}, CUE_LIST]})] = Field(
        description="the text of an SRT or WebVTT file, or a list"
    )
    voices: dict[str, VoiceName] = Field(default_factory=dict, description="by speaker")

    response_format: str = Field(default="wav", json_schema_extra={"enum": list(FORMATS)}, description="of the track")
    stream_format: Literal["sse"] | None = Field(
        default=None, description="`sse`: events, a progress for every cue; none: one object at the end"
    )
    captions: CaptionFormat = Field(default="srt", description="of what is heard")
    track_seconds: float | None = Field(
        default=None, gt=0, description="length of the film; by default the track ends with its last cue"
    )
    overrun_seconds: float = Field(
        default=OVERRUN_SECONDS,
        ge=0,
        le=LONGEST_OVERRUN_SECONDS,
        description="that a cue may run over its end, only into silence before the next one",
    )
    max_characters_per_second: float | None = Field(
        default=25.0, gt=0, description="beyond it a cue is flagged `fast`; null: none is"
    )
    loudness_lufs: float | None = Field(
        default=-16.0,
        ge=QUIETEST_LUFS,
        le=LOUDEST_LUFS,
        description="of the track, by EBU R 128; null: as loud as it was spoken",
    )

    seconds_tolerance: float | None = Field(
        default=0.3, gt=0, description="seconds by which a cue may miss its own; null: any"
    )
    on_bad_segment: Literal["retry", "fail", "keep"] = Field(
        default="keep",
        description="what becomes of a cue that stays bad after two more tries: `keep` takes and flags it, `retry` "
        "answers 422; `fail`: 422 without another try",
    )
    best_of: int = Field(default=1, ge=1, le=MOST_CANDIDATES, description="candidates for every cue")
    cache: bool = Field(
        default=True, description="false: neither looks among what was spoken before, nor is kept there"
    )

    priority: Priority | None = Field(
        default=None,
        description="`batch` stands back for those who wait; by default `interactive`, if the key may",
    )
    timeout_seconds: float | None = Field(
        default=None, gt=0, description="from the request's arrival to its last byte; it only ever shortens"
    )

    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="the same seed gives the same track")
    temperature: float = Field(
        default=_REFERENCE.temperature, ge=0, le=HIGHEST_TEMPERATURE, description="of sampling; 0 is greedy"
    )
    top_k: int = Field(
        default=_REFERENCE.top_k, ge=0, le=LARGEST_TOP_K, description="of sampling; 0 switches it off, 1 is greedy"
    )
    top_p: float = Field(default=_REFERENCE.top_p, gt=0, le=1, description="of sampling; 1 switches it off")
    min_p: float = Field(
        default=_REFERENCE.min_p, ge=0, lt=1, description="of sampling; above 0 it replaces `top_k` and `top_p`"
    )
    language: LanguageTag | None = Field(
        default=None, description="of all cues, a tag; detected cue by cue if none is given"
    )

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read the body; whatever is wrong with it is one RequestError that names the field."""
        return cls._checked(json_object(body))

    @classmethod
    def from_form(cls, form: Form) -> Self:
        """Read a form whose one file, if any, holds the cues."""
        document: dict[str, Any] = {
            name: text if name in TEXT_FIELDS else json_value(name, text) for name, text in form.texts.items()
        }
        return cls._checked(document | form.files)

    @classmethod
    def _checked(cls, document: dict[str, Any]) -> Self:
        # A client that spells out "not given" sends null.
        given = {
            name: value
            for name, value in document.items()
            if value is not None or name in NULLABLE_FIELDS or name not in cls.model_fields
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise request_error(error.errors(include_url=False)[0], cls) from error

    @field_validator("response_format")
    @classmethod
    def _response_format_is_written(cls, response_format: str) -> str:
        format_named(response_format)
        return response_format

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)

    @property
    def wishes(self) -> Wishes:
        """What is asked of every segment; kept bad ones were tried again before."""
        return Wishes(
            retries=0 if self.on_bad_segment == "fail" or self.sampling.greedy else MOST_RETRIES,
            keep_bad=self.on_bad_segment == "keep",
            tolerance_seconds=self.seconds_tolerance,
            best_of=self.best_of,
            cached=self.cache,
        )

    def sheet(self, longest_track_seconds: float) -> CueSheet:
        """Read the cues. Takes a moment for thousands, so it isn't for an event loop."""
        sheet = read_cues(self.cues, self.voices)
        last_seconds = max(cue.end_seconds for cue in sheet.cues)
        if max(last_seconds, self.track_seconds or 0) > longest_track_seconds:
            field = "cues" if last_seconds > longest_track_seconds else "track_seconds"
            raise RequestError(field, f"end after more than {longest_track_seconds:g} s, the longest track made here")
        if self.track_seconds is not None:
            for number, cue in zip(sheet.numbers, sheet.cues, strict=True):
                if cue.start_seconds >= self.track_seconds:
                    reason = f"the film ends at {self.track_seconds:g} s, before cue {number} begins"
                    raise RequestError("track_seconds", reason)
        return sheet

    def voice_of(self, speaker: str | None) -> str:
        return self.voice if speaker is None else self.voices.get(speaker, self.voice)
