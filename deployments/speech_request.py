"""One request for speech, as it stands in the body, JSON or a form: OpenAI's fields and ours, checked at the door."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from deployments.body import Form
from deployments.keys import Priority
from deployments.speaking import MOST_RETRIES, Wishes
from voice_core.audio.formats import FORMATS, format_named
from voice_core.errors import RequestError
from voice_core.speech import (
    DEFAULT_VOICE,
    HIGHEST_TEMPERATURE,
    LARGEST_TOP_K,
    LONGEST_PAUSE_SECONDS,
    MAX_SEED,
    Sampling,
)
from voice_core.text import BCP_47

LONGEST_NAME_CHARACTERS = 256
LONGEST_TRANSCRIPT_CHARACTERS = 750  # 30 s at 25 characters a second; a row of the decoder has room for it
MOST_SAMPLES = 16
MOST_CANDIDATES = 8
# What stands in a form as it is; the other fields are written there as in JSON.
TEXT_FIELDS = (
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

CaptionFormat = Literal["srt", "vtt", "json"]

_REFERENCE = Sampling()
_NAME = {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME_CHARACTERS}
_EXACTLY_ID = {"required": ["id"], "additionalProperties": False}

# What other servers call it, and OpenAI's clients send in their name.
_OTHER_NAMES = {
    "stream": "stream_format",
    "format": "response_format",
    "text": "input",
    "speaker": "voice",
    "ref_audio": "reference_audio",
    "ref_text": "reference_text",
    "lang_code": "language",
    "duration_seconds": "seconds",
    "target_duration": "seconds",
    "split_text": "segment",
    "silence_ms": "inter_segment_silence",
    "speed_factor": "speed",
    "num_samples": "n",
}


def voice_name(voice: object) -> object:
    """OpenAI's clients send a voice as its name or as {"id": name}."""
    if isinstance(voice, dict) and set(voice) == {"id"}:
        return voice["id"]
    return voice


def _file_bytes(file: object) -> object:
    """Return the bytes of a file in base64, bare or as a data URL."""
    if not isinstance(file, str):
        return file
    encoded = file.partition(",")[2] if file.startswith("data:") else file
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError("reference_audio", f"must be base64, bare or as a data URL: {error}") from error


VoiceName = Annotated[
    str,
    BeforeValidator(voice_name),
    Field(min_length=1, max_length=LONGEST_NAME_CHARACTERS),
    WithJsonSchema({"anyOf": [_NAME, {"type": "object", "properties": {"id": _NAME}} | _EXACTLY_ID]}),
]
LanguageTag = Annotated[str, Field(json_schema_extra={"pattern": f"^{BCP_47}$"})]


class SpeechRequest(BaseModel):
    """What is to be said, how, and in which format it goes back."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    model: str = Field(
        min_length=1,
        max_length=LONGEST_NAME_CHARACTERS,
        description="any name; one model is served, `GET /v1/models` tells which",
    )
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
        description="the same seed gives the same bytes; drawn if none is given, and told",
    )
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
        default=0.05, ge=0, le=LONGEST_PAUSE_SECONDS, description="seconds between segments"
    )
    n: int = Field(default=1, ge=1, le=MOST_SAMPLES, description="samples of the same text, spoken in one pass")

    on_bad_segment: Literal["retry", "fail", "keep"] = Field(
        default="retry",
        description="what becomes of a segment that did not end by itself, came out silent or missed "
        "`seconds_tolerance`. `retry`: it is spoken again with a derived seed, at most twice, then the answer is 422; "
        "`fail`: it is 422 at once; `keep`: the segment is taken as it is",
    )
    seconds_tolerance: float | None = Field(
        default=None, gt=0, description="seconds by which a segment may miss what it was asked to take"
    )
    best_of: int = Field(
        default=1,
        ge=1,
        le=MOST_CANDIDATES,
        description="candidates for every segment and sample, spoken in the same pass; the best by score is kept",
    )
    captions: CaptionFormat | None = Field(default=None, description="captions of the segments, beside the audio")
    manifest: bool = Field(default=False, description="everything about each segment, beside the audio")
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

    @classmethod
    def from_json(cls, body: bytes, *, longest_text_characters: int) -> Self:
        """Read the body; whatever is wrong with it is one RequestError that names the field."""
        return cls.checked(json_object(body), longest_text_characters=longest_text_characters)

    @classmethod
    def from_form(cls, form: Form, *, longest_text_characters: int) -> Self:
        """Read a form whose one file, if any, is the recording of the voice."""
        document: dict[str, Any] = {
            name: text if name in TEXT_FIELDS else json_value(name, text) for name, text in form.texts.items()
        }
        return cls.checked(document | form.files, longest_text_characters=longest_text_characters)

    @classmethod
    def checked(cls, document: dict[str, Any], *, longest_text_characters: int) -> Self:
        """Check fields and their values, whatever they were read from."""
        # A client that spells out "not given" sends null.
        given = {name: value for name, value in document.items() if value is not None or name not in cls.model_fields}
        try:
            wanted = cls.model_validate(given)
        except ValidationError as error:
            raise request_error(error.errors(include_url=False)[0], cls) from error
        if len(wanted.input) > longest_text_characters:
            reason = f"{len(wanted.input)} characters, at most {longest_text_characters} are spoken in one request"
            raise RequestError("input", reason)
        return wanted

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)

    @property
    def wishes(self) -> Wishes:
        """What is asked of every segment."""
        return Wishes(
            # without noise a repeat would be the same
            retries=MOST_RETRIES if self.on_bad_segment == "retry" and not self.sampling.greedy else 0,
            keep_bad=self.on_bad_segment == "keep",
            tolerance_seconds=self.seconds_tolerance,
            best_of=self.best_of,
            cached=self.cache,
        )

    @field_validator("input")
    @classmethod
    def _input_is_unicode(cls, text: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RequestError("input", f"half of a surrogate pair at character {error.start}") from error
        return text

    @field_validator("response_format")
    @classmethod
    def _response_format_is_written(cls, response_format: str) -> str:
        format_named(response_format)
        return response_format

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


def json_object(body: bytes | str) -> dict[str, Any]:
    """Return an object written in JSON as the standard has it; RequestError for anything else."""
    try:
        document = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RequestError("body", f"is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise RequestError("body", "must be a JSON object")
    return document


def json_value(field: str, text: str) -> Any:
    """Return a number, a truth or an object as JSON writes it; only `reference_audio` may be text, its base64."""
    if field == "reference_audio":
        return text
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RequestError(field[:LONGEST_NAME_CHARACTERS], "must be written as in JSON: 1.5, true, null") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def request_error(error: ErrorDetails, kind: type[BaseModel]) -> RequestError:
    """Say what pydantic found in a request of that kind in one sentence about one field."""
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, RequestError):
        return cause
    if not error["loc"]:  # a name that is no text, half of a surrogate pair in it
        return RequestError("body", f"holds {str(error['input'])[:LONGEST_NAME_CHARACTERS]!r}, which is not Unicode")
    field = str(error["loc"][0])[:LONGEST_NAME_CHARACTERS]
    match error["type"]:
        case "extra_forbidden":
            known = ", ".join(kind.model_fields)
            ours = f": here it is {_OTHER_NAMES[field]!r}" if _OTHER_NAMES.get(field) in kind.model_fields else ""
            return RequestError(field, f"is not a field of this request{ours}; the fields are {known}")
        case "missing":
            return RequestError(field, "is required")
        case _:
            message = error["msg"]
            return RequestError(field, message[0].lower() + message[1:])
