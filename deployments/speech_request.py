"""One request for speech, as it stands in the body, JSON or a form: OpenAI's fields and ours, checked at the door."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from deployments.spoken_request import (
    CaptionFormat,
    LanguageTag,
    OnBadSegment,
    SpokenRequest,
    VoiceName,
    check_unicode,
)
from voice_core.audio.formats import FORMATS
from voice_core.errors import RequestError
from voice_core.speech import DEFAULT_VOICE, LONGEST_PAUSE_SECONDS, MAX_SEED, PAUSE_SECONDS

LONGEST_TRANSCRIPT_CHARACTERS = 750  # 30 s at 25 characters a second; a row of the decoder has room for it
MOST_SAMPLES = 16


def _file_bytes(file: object) -> object:
    """Return the bytes of a file in base64, bare or as a data URL."""
    if not isinstance(file, str):
        return file
    encoded = file.partition(",")[2] if file.startswith("data:") else file
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError("reference_audio", f"must be base64, bare or as a data URL: {error}") from error


class SpeechRequest(SpokenRequest):
    """What is to be said, how, and in which format it goes back."""

    TEXT_FIELDS: ClassVar[tuple[str, ...]] = (
        "model",
        "input",
        "voice",
        "response_format",
        "instructions",
        "stream_format",
        "on_bad_segment",
        "captions",
        "language",
        "priority",
        "reference_text",
    )
    RETRIED: ClassVar[tuple[OnBadSegment, ...]] = ("retry",)

    input: str = Field(description="the text")
    voice: VoiceName = Field(description='`"default"`, a voice\'s name or id, or `{"id": …}`')
    response_format: str = Field(
        default="mp3",
        json_schema_extra={"enum": list(FORMATS)},
        description="of the file; `pcm` is 24 kHz, 16 bit, mono, without a header",
    )
    speed: float = Field(
        default=1.0,
        ge=0.25,
        le=4.0,
        description="divides the estimated duration, as far as the model can; not together with `seconds`",
    )
    instructions: str = Field(
        default="",
        json_schema_extra={"pattern": "^[ \\t\\r\\n]*$"},
        description="must be empty: this model can't follow any",
    )
    stream_format: Literal["audio", "sse"] | None = Field(
        default=None,
        description="`audio`: the file in pieces, as segments are spoken; `sse`: events; none: the whole at its end",
    )

    seed: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        description="the same seed gives the same speech, with the setting `deterministic` the same bytes; "
        "drawn if none is given, and told",
    )
    language: LanguageTag | None = Field(
        default=None,
        description="a tag such as `en`, `ja-JP`, `zh`; detected if none is given",
    )
    seconds: float | None = Field(
        default=None,
        gt=0,
        description="how long the whole takes, pauses included, shared out over the segments; estimated if not given",
    )
    segment: bool = Field(default=True, description="split the text into sentences; false speaks it in one go")
    inter_segment_silence: float = Field(
        default=PAUSE_SECONDS, ge=0, le=LONGEST_PAUSE_SECONDS, description="seconds between segments"
    )
    n: int = Field(default=1, ge=1, le=MOST_SAMPLES, description="samples of the same text, spoken in one pass")

    on_bad_segment: OnBadSegment = Field(
        default="retry",
        description="what becomes of a segment that did not end by itself, came out silent or missed "
        "`seconds_tolerance`. `retry`: it is spoken again with a derived seed, at most twice, then the answer is 422; "
        "`fail`: it is 422 at once; `keep`: the segment is taken as it is",
    )
    seconds_tolerance: float | None = Field(
        default=None, gt=0, description="seconds by which a segment may miss what it was asked to take"
    )
    captions: CaptionFormat | None = Field(default=None, description="captions of the segments, beside the audio")
    manifest: bool = Field(default=False, description="everything about each segment, beside the audio")

    reference_audio: Annotated[
        bytes | None,
        BeforeValidator(_file_bytes),
        WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
    ] = Field(default=None, description="a voice for this request alone: a recording, in base64, bare or as a data URL")
    reference_text: str = Field(
        default="",
        max_length=LONGEST_TRANSCRIPT_CHARACTERS,
        description="what is said in `reference_audio`, word for word",
    )

    def check_length(self, longest_text_characters: int) -> None:
        """Refuse a text that is longer. Raises RequestError."""
        if len(self.input) > longest_text_characters:
            reason = f"{len(self.input)} characters, at most {longest_text_characters} are spoken in one request"
            raise RequestError("input", reason)

    @field_validator("input")
    @classmethod
    def _input_is_unicode(cls, text: str) -> str:
        check_unicode("input", text)
        return text

    @field_validator("instructions")
    @classmethod
    def _instructions_are_empty(cls, instructions: str) -> str:
        if instructions.strip(" \t\r\n"):
            raise RequestError("instructions", "this model can't follow instructions; leave the field out")
        return instructions

    @model_validator(mode="after")
    def _what_is_streamed_is_one_file(self) -> Self:
        if self.stream_format is not None and self.n > 1:
            raise RequestError("n", "samples can't be streamed side by side; leave stream_format out, or ask for one")
        if self.stream_format == "audio" and (self.captions is not None or self.manifest):
            field = "manifest" if self.manifest else "captions"
            raise RequestError(field, "has no place in a stream of bare audio; stream_format 'sse' has one")
        return self

    @model_validator(mode="after")
    def _speed_and_seconds_agree(self) -> Self:
        if self.seconds is not None and self.speed != 1:
            raise RequestError("speed", "contradicts 'seconds', which already says how long the speech is to be")
        return self

    @model_validator(mode="after")
    def _one_voice_is_meant(self) -> Self:
        if self.reference_audio is not None and self.voice != DEFAULT_VOICE:
            raise RequestError("voice", f"contradicts 'reference_audio'; with a recording it is {DEFAULT_VOICE!r}")
        if self.reference_text.strip() and self.reference_audio is None:
            raise RequestError("reference_text", "says what is spoken in 'reference_audio', which is missing")
        return self
