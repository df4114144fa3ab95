"""One request for a dub, as it stands in the body, JSON or a form: cues, voices and how they are spoken."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema

from deployments.spoken_request import CaptionFormat, LanguageTag, OnBadSegment, SpokenRequest, VoiceName
from voice_core.audio.formats import FORMATS
from voice_core.errors import RequestError
from voice_core.speech import MAX_SEED
from voice_core.subtitles import LONGEST_SPEAKER_CHARACTERS, CueSheet, read_cues
from voice_core.timeline import OVERRUN_SECONDS

LONGEST_OVERRUN_SECONDS = 60.0
SHORTEST_TRACK_SECONDS = 0.01  # a file of no sample at all is none
LOUDEST_LUFS, QUIETEST_LUFS = -5.0, -50.0

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


class DubRequest(SpokenRequest):
    """What is said when, by whom, and what the track is to be like."""

    TEXT_FIELDS: ClassVar[tuple[str, ...]] = (
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
    NULLABLE_FIELDS: ClassVar[tuple[str, ...]] = ("max_characters_per_second", "loudness_lufs", "seconds_tolerance")
    RETRIED: ClassVar[tuple[OnBadSegment, ...]] = ("retry", "keep")  # what is kept was tried again before

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
        default=None,
        ge=SHORTEST_TRACK_SECONDS,
        description="length of the film; by default the track ends with its last cue",
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
    on_bad_segment: OnBadSegment = Field(
        default="keep",
        description="what becomes of a cue that stays bad after two more tries: `keep` takes and flags it, `retry` "
        "answers 422; `fail`: 422 without another try",
    )
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="the same seed gives the same track")
    language: LanguageTag | None = Field(
        default=None, description="of all cues, a tag; detected cue by cue if none is given"
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
