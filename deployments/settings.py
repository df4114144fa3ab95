"""What an operator may set, each setting once: the application's arguments and the live user_config."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from voice_core.speech import ReferenceLimits

EMBEDDED = "embedded"  # the model that comes with the package

Device = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


class Settings(BaseModel):
    """The application's arguments: `args:` in the YAML. Replicas, GPUs, autoscaling: its `deployments:`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # "embedded", a checkpoint's directory or a hub id
    model: str = Field(default=EMBEDDED, min_length=1)
    # auto takes a GPU if the cluster has one, and says what it took
    device: Device = "auto"
    # of the weights; auto follows the device
    precision: Precision = "auto"
    # with device cuda: wait for the autoscaler to bring a GPU instead of failing at once
    wait_for_gpu: bool = False
    # of the decoder where there is no GPU; two threads on shared cores can be slower than one
    cpu_threads: int = Field(default=1, ge=1)
    # rows (segments, or samples of them) that are spoken together; without it as many as fit into the memory
    max_rows: int | None = Field(default=None, ge=1)
    # new rows join those that are being spoken; false lets them wait until all of those have ended
    in_flight: bool = True
    # of the rows, that one request may take while others wait
    largest_share: float = Field(default=0.5, gt=0, le=1)
    # the same bits whatever else is in flight, at the price of a full house in every step
    deterministic: bool = False
    # of one request
    longest_text_characters: int = Field(default=20_000, ge=1)
    # a text of escaped emoji takes 12 bytes a character
    largest_body_bytes: int = Field(default=1_048_576, ge=1)
    # of one with a recording in it: 10 MiB, in base64 a third more, and the rest of the request
    largest_upload_bytes: int = Field(default=16_777_216, ge=1)
    # where voices are kept: a folder that every node sees, or a URI of fsspec such as s3://bucket/voices
    voices: str = "~/.local/share/voice-serve/voices"
    most_voices: int = Field(default=1000, ge=0)
    # of a recording to imitate; a row of the decoder has room for 30 s
    shortest_reference_seconds: float = Field(default=1.0, gt=0)
    longest_reference_seconds: float = Field(default=30.0, gt=0, le=30)
    # transcribes recordings that come without a transcript: a Whisper's directory or hub id; off if not set
    whisper_model: str | None = Field(default=None, min_length=1)

    @field_validator("voices")
    @classmethod
    def _voices_mean_the_same_everywhere(cls, voices: str) -> str:
        """A relative folder would lie in another place for every process."""
        if "://" not in voices and not voices.startswith(("/", "~")):
            raise ValueError("must be an absolute path, one that begins with ~, or a URI")
        return voices

    @model_validator(mode="after")
    def _some_reference_fits(self) -> Self:
        if self.shortest_reference_seconds > self.longest_reference_seconds:
            raise ValueError("shortest_reference_seconds is above longest_reference_seconds")
        return self

    @property
    def reference_limits(self) -> ReferenceLimits:
        return ReferenceLimits(self.shortest_reference_seconds, self.longest_reference_seconds)


class Admission(BaseModel):
    """How the synthesizer gathers segments before it hands them to the decoder: its `user_config`, live."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # this many go in at once, without waiting for more
    segments: int = Field(default=16, ge=1)
    # so long is waited for more: the decoder takes them while it speaks, so waiting only makes larger groups
    window_seconds: float = Field(default=0.005, ge=0)
