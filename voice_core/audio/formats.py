"""Writes sounds as files: the one table of formats that a caller may ask for.

Letters in shape comments: N samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import soxr
from numpy.typing import NDArray

from voice_core.audio.aac import AAC_LEAD_SAMPLES, HOW_TO_INSTALL, INSTALLED, AacWriter
from voice_core.audio.waveform import Waveform
from voice_core.audio.writers import (
    MP3_LEAD_SAMPLES,
    FlacWriter,
    Mp3Writer,
    OpusWriter,
    PcmWriter,
    WavWriter,
    Writer,
    as_pcm16,
    write_whole,
)
from voice_core.errors import RequestError, SynthesisError

RESAMPLING_QUALITY = "HQ"  # of soxr: 20 bits


@dataclass(frozen=True)
class Format:
    """A kind of file: how it is told to HTTP, what rates it can hold, and who writes it."""

    media_type: str
    open: Callable[[int], Writer]  # for a rate in Hz that the format can hold
    sample_rates: tuple[int, ...] = ()  # Hz, rising; none: any
    # What is heard before the sound, the codec's delay, where nothing in the file tells players to leave it out.
    lead_samples: int = 0  # of a whole file, at the file's rate
    stream_lead_samples: int = 0  # of a stream

    def rate_for(self, sample_rate: int) -> int:
        """Return the rate that a sound of `sample_rate` gets in the file: the next higher one, or the highest."""
        if not self.sample_rates:
            return sample_rate
        return next((rate for rate in self.sample_rates if rate >= sample_rate), self.sample_rates[-1])


def encode(waveform: Waveform, format_name: str) -> bytes:
    """Return the file: the same bytes whenever the same samples are given.

    A rate that the format can't hold is changed (`Format.rate_for`). Samples beyond -1..1 are clipped, except in
    `wav_float32`. Raises RequestError for an unknown format, and SynthesisError if there is no sample to write.
    """
    wanted = format_named(format_name)
    if waveform.seconds == 0:
        raise SynthesisError(f"nothing to write as {format_name}: the sound has no samples")
    sample_rate = wanted.rate_for(waveform.sample_rate)
    return write_whole(wanted.open(sample_rate), resample(waveform, sample_rate).samples)


def format_named(name: str) -> Format:
    """Return the format of that name, or raise the RequestError that lists them all."""
    if name in FORMATS:
        return FORMATS[name]
    reason = f"{name!r} is not one of {', '.join(FORMATS)}"
    if name == "aac":
        reason = f"aac needs PyAV, which isn't installed here: {HOW_TO_INSTALL}; or choose one of {', '.join(FORMATS)}"
    raise RequestError("response_format", reason)


def resample(waveform: Waveform, sample_rate: int) -> Waveform:
    """Return the same sound at another rate in Hz; its length is right to the sample."""
    if sample_rate == waveform.sample_rate:
        return waveform
    samples = soxr.resample(waveform.samples, waveform.sample_rate, sample_rate, quality=RESAMPLING_QUALITY)
    return Waveform(samples, sample_rate)


def resampled_length(samples: int, sample_rate: int, other_rate: int) -> int:
    """Return how many samples a sound has at another rate in Hz: as soxr counts, half a sample is a whole one."""
    return (2 * samples * other_rate + sample_rate) // (2 * sample_rate)


def pcm16(waveform: Waveform) -> NDArray[np.int16]:
    """Return the samples [N] as 16-bit integers: rounded, and clipped where they are too loud."""
    return as_pcm16(waveform.samples)


MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # MPEG-1, -2 and -2.5
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)  # RFC 6716, section 2
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # those that every decoder takes
PCM_RATES = (24000,)  # without a header the rate must be agreed on; this is OpenAI's

FORMATS = {
    "mp3": Format("audio/mpeg", Mp3Writer, MP3_RATES, stream_lead_samples=MP3_LEAD_SAMPLES),
    "opus": Format("audio/ogg", OpusWriter, OPUS_RATES),
    "flac": Format("audio/flac", FlacWriter),
    "wav": Format("audio/wav", WavWriter),
    "wav_float32": Format("audio/wav", partial(WavWriter, floats=True)),
    "pcm": Format("audio/pcm", PcmWriter, PCM_RATES),
}
if INSTALLED:
    FORMATS["aac"] = Format(
        "audio/aac", AacWriter, AAC_RATES, lead_samples=AAC_LEAD_SAMPLES, stream_lead_samples=AAC_LEAD_SAMPLES
    )
