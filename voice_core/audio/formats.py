"""Writes sounds as files: the one table of formats that a caller may ask for.

Letters in shape comments: N samples.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from voice_core.audio.ogg import with_fixed_serial_number
from voice_core.audio.waveform import Waveform
from voice_core.errors import RequestError, SynthesisError

FULL_SCALE = 32768  # of 16-bit samples; +1.0 itself is clipped by one step
WAV_PCM, WAV_FLOAT = 1, 3  # the format numbers in a RIFF header


@dataclass(frozen=True)
class Format:
    """A kind of file: how it is told to HTTP, what rates it can hold, and who writes it."""

    media_type: str
    write: Callable[[Waveform], bytes]
    sample_rates: tuple[int, ...] = ()  # Hz, rising; none: any

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
    return wanted.write(resample(waveform, wanted.rate_for(waveform.sample_rate)))


def format_named(name: str) -> Format:
    """Return the format of that name, or raise the RequestError that lists them all."""
    if name in FORMATS:
        return FORMATS[name]
    reason = f"{name!r} is not one of {', '.join(FORMATS)}"
    if name == "aac":
        reason = f"aac can't be written here (libsndfile has no AAC); choose one of {', '.join(FORMATS)}"
    raise RequestError("response_format", reason)


def resample(waveform: Waveform, sample_rate: int) -> Waveform:
    """Return the same sound at another rate in Hz; its length is right to the sample."""
    if sample_rate == waveform.sample_rate:
        return waveform
    samples = soxr.resample(waveform.samples, waveform.sample_rate, sample_rate, quality="HQ")
    return Waveform(samples, sample_rate)


def pcm16(waveform: Waveform) -> NDArray[np.int16]:
    """Return the samples [N] as 16-bit integers: rounded, and clipped where they are too loud."""
    scaled = np.rint(waveform.samples * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype("<i2")


def _write_pcm(waveform: Waveform) -> bytes:
    return pcm16(waveform).tobytes()


def _write_wav(waveform: Waveform) -> bytes:
    return _riff(WAV_PCM, pcm16(waveform), waveform.sample_rate)


def _write_wav_float32(waveform: Waveform) -> bytes:
    return _riff(WAV_FLOAT, waveform.samples.astype("<f4"), waveform.sample_rate)


def _riff(format_number: int, samples: NDArray[np.int16] | NDArray[np.float32], sample_rate: int) -> bytes:
    """Return a mono WAV file of samples [N]; libsndfile would put the time of day into one of floats."""
    width = samples.itemsize
    description = struct.pack("<HHIIHH", format_number, 1, sample_rate, sample_rate * width, width, 8 * width)
    chunks = _chunk(b"fmt ", description)
    if format_number != WAV_PCM:
        chunks += _chunk(b"fact", struct.pack("<I", len(samples)))  # the standard wants it in all but PCM
    return _chunk(b"RIFF", b"WAVE" + chunks + _chunk(b"data", samples.tobytes()))


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body  # 16- and 32-bit mono bodies are even: no padding byte


def _write_flac(waveform: Waveform) -> bytes:
    return _soundfile(pcm16(waveform), waveform.sample_rate, "FLAC", "PCM_16")


def _write_mp3(waveform: Waveform) -> bytes:
    return _soundfile(_clipped(waveform).samples, waveform.sample_rate, "MP3", "MPEG_LAYER_III")


def _write_opus(waveform: Waveform) -> bytes:
    return with_fixed_serial_number(_soundfile(_clipped(waveform).samples, waveform.sample_rate, "OGG", "OPUS"))


def _clipped(waveform: Waveform) -> Waveform:
    return replace(waveform, samples=waveform.samples.clip(-1, 1))


def _soundfile(
    samples: NDArray[np.int16] | NDArray[np.float32], sample_rate: int, container: str, encoding: str
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format=container, subtype=encoding)
    return file.getvalue()


MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # MPEG-1, -2 and -2.5
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)  # RFC 6716, section 2
PCM_RATES = (24000,)  # without a header the rate must be agreed on; this is OpenAI's

FORMATS = {
    "mp3": Format("audio/mpeg", _write_mp3, MP3_RATES),
    "opus": Format("audio/ogg", _write_opus, OPUS_RATES),
    "flac": Format("audio/flac", _write_flac),
    "wav": Format("audio/wav", _write_wav),
    "wav_float32": Format("audio/wav", _write_wav_float32),
    "pcm": Format("audio/pcm", _write_pcm, PCM_RATES),
}
