"""What every request that has something spoken shares: its fields, and how they are read from JSON or a form."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import ErrorDetails

from deployments.body import Form
from deployments.keys import Priority
from deployments.speaking import MOST_RETRIES, Wishes
from voice_core.audio.formats import FORMATS, format_named
from voice_core.errors import RequestError
from voice_core.speech import HIGHEST_TEMPERATURE, LARGEST_TOP_K, MAX_SEED, Sampling
from voice_core.text import BCP_47

LONGEST_NAME_CHARACTERS = 256
MOST_CANDIDATES = 8

CaptionFormat = Literal["srt", "vtt", "json"]
OnBadSegment = Literal["retry", "fail", "keep"]

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


VoiceName = Annotated[
    str,
    BeforeValidator(voice_name),
    Field(min_length=1, max_length=LONGEST_NAME_CHARACTERS),
    WithJsonSchema({"anyOf": [_NAME, {"type": "object", "properties": {"id": _NAME}} | _EXACTLY_ID]}),
]
LanguageTag = Annotated[str, Field(json_schema_extra={"pattern": f"^{BCP_47}$"})]


class SpokenRequest(BaseModel):
    """Who speaks, how codes are drawn, what becomes of a bad segment, and who waits for it how long."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    TEXT_FIELDS: ClassVar[tuple[str, ...]]  # stand in a form as they are; the other fields are written as in JSON
    NULLABLE_FIELDS: ClassVar[tuple[str, ...]] = ()  # where null switches off what is on by itself
    RETRIED: ClassVar[tuple[OnBadSegment, ...]]  # where a bad segment is spoken again

    model: str = Field(
        min_length=1,
        max_length=LONGEST_NAME_CHARACTERS,
        description="any name; one model is served, `GET /v1/models` tells which",
    )
    voice: VoiceName
    response_format: str = Field(json_schema_extra={"enum": list(FORMATS)})

    seed: int | None = Field(ge=0, le=MAX_SEED)
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
    language: LanguageTag | None = None

    on_bad_segment: OnBadSegment
    seconds_tolerance: float | None = Field(gt=0)
    best_of: int = Field(
        default=1,
        ge=1,
        le=MOST_CANDIDATES,
        description="candidates for every segment and sample, spoken in the same pass; the best by score is kept",
    )
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

    @classmethod
    def field_names(cls) -> list[str]:
        """Return the names of all fields, those that are required first."""
        return sorted(cls.model_fields, key=lambda name: not cls.model_fields[name].is_required())

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read the body; whatever is wrong with it is one RequestError that names the field."""
        return cls.checked(json_object(body))

    @classmethod
    def from_form(cls, form: Form) -> Self:
        """Read a form, its fields and its files; whatever is wrong is one RequestError that names the field."""
        document: dict[str, Any] = {
            name: text if name in cls.TEXT_FIELDS else json_value(name, text) for name, text in form.texts.items()
        }
        return cls.checked(document | form.files)

    @classmethod
    def checked(cls, document: dict[str, Any]) -> Self:
        """Check fields and their values, whatever they were read from."""
        # A client that spells out "not given" sends null.
        given = {
            name: value
            for name, value in document.items()
            if value is not None or name in cls.NULLABLE_FIELDS or name not in cls.model_fields
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise request_error(error.errors(include_url=False)[0], cls) from error

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)

    @property
    def wishes(self) -> Wishes:
        """What is asked of every segment."""
        return Wishes(
            # without noise a repeat would be the same
            retries=MOST_RETRIES if self.on_bad_segment in self.RETRIED and not self.sampling.greedy else 0,
            keep_bad=self.on_bad_segment == "keep",
            tolerance_seconds=self.seconds_tolerance,
            best_of=self.best_of,
            cached=self.cache,
        )

    @field_validator("response_format")
    @classmethod
    def _response_format_is_written(cls, response_format: str) -> str:
        format_named(response_format)
        return response_format


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


def check_unicode(field: str, text: str) -> None:
    """Refuse a text that UTF-8 can't say."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(field, f"half of a surrogate pair at character {error.start}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def request_error(error: ErrorDetails, kind: type[SpokenRequest]) -> RequestError:
    """Say what pydantic found in a request of that kind in one sentence about one field."""
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, RequestError):
        return cause
    if not error["loc"]:  # a name that is no text, half of a surrogate pair in it
        return RequestError("body", f"holds {str(error['input'])[:LONGEST_NAME_CHARACTERS]!r}, which is not Unicode")
    field = str(error["loc"][0])[:LONGEST_NAME_CHARACTERS]
    match error["type"]:
        case "extra_forbidden":
            known = ", ".join(kind.field_names())
            ours = f": here it is {_OTHER_NAMES[field]!r}" if _OTHER_NAMES.get(field) in kind.model_fields else ""
            return RequestError(field, f"is not a field of this request{ours}; the fields are {known}")
        case "missing":
            return RequestError(field, "is required")
        case _:
            message = error["msg"]
            return RequestError(field, message[0].lower() + message[1:])
