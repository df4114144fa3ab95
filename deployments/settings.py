"""What an operator may set, each setting once: the application's arguments and the live user_config."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from voice_core.speech import ReferenceLimits

EMBEDDED = "embedded"  # the model that comes with the package
LOCAL = "local"  # a Ray of our own on this machine
MEMORY, OFF = "memory", "off"  # instead of places

Device = Literal["auto", "cuda", "cpu"]  # no mps: draws are made in float64, which Metal does not have
Precision = Literal["auto", "float32", "bfloat16", "float16"]


class Settings(BaseModel):
    """The application's arguments: `args:` in the YAML. Replicas, GPUs, autoscaling: its `deployments:`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(default=EMBEDDED, min_length=1, description="'embedded', a checkpoint's directory or a hub id")
    device: Device = Field(default="auto", description="auto takes a GPU if the cluster has one, and says what it took")
    precision: Precision = Field(
        default="auto", description="of the weights; auto: bfloat16 on a GPU for those in bfloat16, else float32"
    )
    wait_for_gpu: bool = Field(
        default=False, description="with device cuda: wait for an autoscaler to bring a GPU instead of failing at once"
    )
    cpu_threads: int = Field(
        default=1, ge=1, description="of the decoder without a GPU; two threads on shared cores can be slower than one"
    )
    max_rows: int | None = Field(
        default=None, ge=1, description="rows (segments, or samples of them) spoken together; by default as many as fit"
    )
    longest_segment_seconds: float | None = Field(
        default=None,
        ge=2,  # a long word
        description="spoken in one go; by default the checkpoint's own, less where memory is short; less makes rows "
        "smaller",
    )
    in_flight: bool = Field(
        default=True,
        description="new rows join those that are being spoken, instead of waiting until all of those have ended",
    )
    largest_share: float = Field(
        default=0.5, gt=0, le=1, description="of the rows, that one request may take while others wait"
    )
    deterministic: bool = Field(
        default=False,
        description="the same bits whatever else is in flight, at the price of all slots in every step, taken or not",
    )
    cuda_graphs: Literal["auto", "off"] = Field(
        default="auto", description="auto captures decode steps on a GPU, before the service is ready; off never does"
    )
    longest_text_characters: int = Field(default=20_000, ge=1, description="of one request")
    longest_speech_seconds: float = Field(
        default=3600, gt=0, description="of one request, all its samples together; a segment counts as 1 s at least"
    )
    longest_dub_seconds: float = Field(
        default=10_800,
        gt=0,
        description="of a dub's track, and of the speech on it, all candidates together; a cue counts as 1 s at least",
    )
    most_requests_in_flight: int = Field(default=200, ge=1, description="at one ingress; the next is answered with 429")
    most_seconds_in_flight: float = Field(
        default=14_400, gt=0, description="of speech at one ingress, as for one request; beyond it the answer is 429"
    )
    longest_wait_seconds: float = Field(
        default=60, gt=0, description="that others may hold a request up; beyond it 429, for batch at half of it"
    )
    longest_request_seconds: float = Field(
        default=3600, gt=0, description="from its arrival to its last byte; a request may shorten it by timeout_seconds"
    )
    longest_upload_seconds: float = Field(default=60, gt=0, description="that a body may take to come")
    # a text of escaped emoji takes 12 bytes a character
    largest_body_bytes: int = Field(
        default=1_048_576, ge=1, description="of a request for speech in JSON without a recording in it"
    )
    # 10 MiB, in base64 a third more, and the rest of the request
    largest_upload_bytes: int = Field(
        default=16_777_216, ge=1, description="of a dub, a form, or a request with a recording in it"
    )
    voices: str = Field(
        default="~/.local/share/voice-serve/voices",
        description="where voices are kept: a folder that every node sees, or a URI of fsspec such as s3://bucket/voices",
    )
    segment_cache: str = Field(
        default=MEMORY,
        description="where spoken segments are kept for whoever asks for the same: 'memory' (of each ingress), 'off', "
        "a folder that every node sees, or a URI of fsspec",
    )
    # 256 MiB: an hour of speech at 16 kHz
    segment_cache_bytes: int = Field(default=268_435_456, ge=1, description="of spoken segments that are kept")
    most_voices: int = Field(default=1000, ge=0, description="that are kept")
    shortest_reference_seconds: float = Field(default=1.0, gt=0, description="of a recording to imitate")
    longest_reference_seconds: float = Field(
        default=30.0, gt=0, le=30, description="of a recording to imitate; less makes rows of the decoder smaller"
    )
    traces: str = Field(
        default="off", description="where spans go: a folder, the URL of an OTLP collector (…/v1/traces), or off"
    )
    log_texts: bool = Field(
        default=False, description="what users send may stand in logs; else it is kept out, in tracebacks too"
    )
    api_keys: str | None = Field(
        default=None,
        min_length=1,
        description="a file of hashed API keys, at every ingress; see python -m deployments key new",
    )
    codec: str | None = Field(
        default=None,
        min_length=1,
        description="another codec than the one that the checkpoint names, a directory or hub id",
    )
    whisper_model: str | None = Field(
        default=None,
        min_length=1,
        description="a Whisper's directory or hub id; it writes down recordings without transcript",
    )

    @field_validator("cuda_graphs", "segment_cache", "traces", mode="before")
    @classmethod
    def _off_may_stand_without_quotes(cls, where: object) -> object:
        """YAML reads a bare `off` as false."""
        return OFF if where is False else where

    @field_validator("voices")
    @classmethod
    def _voices_mean_the_same_everywhere(cls, voices: str) -> str:
        """A relative folder would lie in another place for every process."""
        if not _means_the_same_everywhere(voices):
            raise ValueError("must be an absolute path, one that begins with ~, or a URI")
        return voices

    @field_validator("segment_cache")
    @classmethod
    def _the_segment_cache_is_the_same_everywhere(cls, place: str) -> str:
        if place not in (MEMORY, OFF) and not _means_the_same_everywhere(place):
            raise ValueError(f"must be {MEMORY!r}, {OFF!r}, an absolute path, one that begins with ~, or a URI")
        return place

    @field_validator("traces")
    @classmethod
    def _traces_go_somewhere(cls, where: str) -> str:
        if where != OFF and not where.startswith(("/", "~", "http://", "https://")):
            raise ValueError(f"must be {OFF!r}, an absolute path, one that begins with ~, or an http URL")
        return where

    @field_validator("api_keys")
    @classmethod
    def _api_keys_are_the_same_everywhere(cls, api_keys: str | None) -> str | None:
        if api_keys is not None and not api_keys.startswith(("/", "~")):
            raise ValueError("must be an absolute path, or one that begins with ~")
        return api_keys

    @model_validator(mode="after")
    def _some_reference_fits(self) -> Self:
        if self.shortest_reference_seconds > self.longest_reference_seconds:
            raise ValueError("shortest_reference_seconds is above longest_reference_seconds")
        return self

    @model_validator(mode="after")
    def _the_largest_request_fits(self) -> Self:
        if self.longest_speech_seconds > self.most_seconds_in_flight:
            raise ValueError("longest_speech_seconds is above most_seconds_in_flight")
        return self

    @property
    def reference_limits(self) -> ReferenceLimits:
        return ReferenceLimits(self.shortest_reference_seconds, self.longest_reference_seconds)


def _means_the_same_everywhere(place: str) -> bool:
    return "://" in place or place.startswith(("/", "~"))


class Admission(BaseModel):
    """How the synthesizer gathers segments before it hands them to the decoder: its `user_config`, live."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # this many go in at once, without waiting for more
    segments: int = Field(default=16, ge=1)
    # so long is waited for more: the decoder takes them while it speaks, so waiting only makes larger groups
    window_seconds: float = Field(default=0.005, ge=0)
