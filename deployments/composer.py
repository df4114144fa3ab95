"""The deployment that makes a file of spoken segments: trims, joins, encodes, on a CPU."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ray import serve

from voice_core.audio.formats import encode, format_named
from voice_core.audio.joining import join
from voice_core.audio.waveform import Waveform
from voice_core.speech import Speech


@dataclass(frozen=True)
class Composed:
    """A playable file."""

    audio: bytes
    media_type: str
    seconds: float
    sample_rate: int  # Hz, of the file: formats that can't hold the codec's rate have another


@serve.deployment(
    max_ongoing_requests=16, graceful_shutdown_timeout_s=30, graceful_shutdown_wait_loop_s=0.2, health_check_period_s=2
)
class Composer:
    """Takes the segments of one sample in order and gives back one file."""

    async def compose(self, speeches: Sequence[Speech], audio_format: str, pause_seconds: float) -> Composed:
        return await asyncio.to_thread(compose, speeches, audio_format, pause_seconds)

    async def answers(self) -> bool:
        """For whoever wants to know whether somebody is here."""
        return True


def compose(speeches: Sequence[Speech], audio_format: str, pause_seconds: float) -> Composed:
    waveforms = [Waveform(speech.samples, speech.sample_rate) for speech in speeches]
    whole = join(waveforms, pause_seconds=pause_seconds)
    file_format = format_named(audio_format)
    return Composed(
        audio=encode(whole, audio_format),
        media_type=file_format.media_type,
        seconds=whole.seconds,
        sample_rate=file_format.rate_for(whole.sample_rate),
    )
