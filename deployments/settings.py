"""What an operator may set, each setting once: the application's arguments and the live user_config."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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
    # segments, or samples of them, that one pass of the decoder speaks together
    max_rows: int = Field(default=16, ge=1)
    # of one request
    longest_text_characters: int = Field(default=20_000, ge=1)
    # a text of escaped emoji takes 12 bytes a character
    largest_body_bytes: int = Field(default=1_048_576, ge=1)


class Admission(BaseModel):
    """How the synthesizer gathers segments before it hands them to the decoder: its `user_config`, live."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # this many go in at once, without waiting for more
    segments: int = Field(default=16, ge=1)
    # an idle decoder waits so long for more: the 16 calls of one request arrive within 0.04 s on two free cores
    window_seconds: float = Field(default=0.1, ge=0)
