"""The deployment that makes a file of spoken segments: trims, joins, encodes, on a CPU."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from ray import serve

from deployments import logs, traces
from deployments.settings import Settings
from voice_core.audio.formats import encode, format_named, resampled_length
from voice_core.audio.joining import Joiner, Part
from voice_core.audio.waveform import Waveform
from voice_core.speech import Speech
from voice_core.upkeep import keep_memory_low


@dataclass(frozen=True)
class Span:
    """Where a segment's sound lies in the file, in its samples; a silent segment ends where it starts."""

    start_samples: int
    end_samples: int

    @classmethod
    def of(cls, part: Part, sample_rate: int, file_rate: int, lead_samples: int) -> Self:
        """Find a part, counted at the codec's rate, in a file of another rate (both in Hz) that begins with a delay."""
        places = (part.start_samples, part.end_samples)
        return cls(*(lead_samples + resampled_length(place, sample_rate, file_rate) for place in places))


@dataclass(frozen=True)
class Composed:
    """A playable file."""

    audio: bytes
    media_type: str
    samples: int  # the format's delay included, what fills its last frame not
    sample_rate: int  # Hz, of the file: formats that can't hold the codec's rate have another
    spans: tuple[Span, ...]  # of every segment, in the file

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate


@serve.deployment(
    max_ongoing_requests=16, graceful_shutdown_timeout_s=30, graceful_shutdown_wait_loop_s=0.2, health_check_period_s=2
)
class Composer:
    """Takes the segments of one sample in order and gives back one file."""

    def __init__(self, settings: Settings) -> None:
        logs.set_up(texts=settings.log_texts)
        keep_memory_low()
        traces.set_up(settings.traces, "Composer")

    async def compose(
        self, speeches: Sequence[Speech], audio_format: str, pause_seconds: float, traceparent: str | None = None
    ) -> Composed:
        with traces.span("compose", traceparent, segments=len(speeches), format=audio_format):
            return await asyncio.to_thread(compose, speeches, audio_format, pause_seconds)

    async def answers(self) -> bool:
        """For whoever wants to know whether somebody is here."""
        return True


def compose(speeches: Sequence[Speech], audio_format: str, pause_seconds: float) -> Composed:
    sample_rate = speeches[0].sample_rate
    joiner = Joiner(sample_rate, pause_seconds)
    parts = [joiner.add(Waveform(speech.samples, speech.sample_rate)) for speech in speeches]
    whole = Waveform(np.concatenate([part.samples for part in parts]), sample_rate)
    file_format = format_named(audio_format)
    file_rate = file_format.rate_for(sample_rate)
    return Composed(
        audio=encode(whole, audio_format),
        media_type=file_format.media_type,
        samples=file_format.lead_samples + resampled_length(len(whole.samples), sample_rate, file_rate),
        sample_rate=file_rate,
        spans=tuple(Span.of(part, sample_rate, file_rate, file_format.lead_samples) for part in parts),
    )
