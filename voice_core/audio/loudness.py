"""How loud a whole sound is to a listener (EBU R 128), and the gain that makes it as loud as wanted without clipping.

Loudness is that of ITU-R BS.1770-4, in LUFS: what the ear hears of it, over blocks of 0.4 s, without the pauses. Peaks
are true peaks, of the sound between the samples too (BS.1770-4, annex 2), in dB of full scale (dBTP).

Letters in shape comments: N samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import soxr

from voice_core.audio.waveform import Waveform

BLOCK_SECONDS = 0.4  # below it nothing can be measured
CEILING_DBTP = -1.0  # EBU R 128: lossy codecs and players add a little to the peaks
OVERSAMPLING = 4  # BS.1770-4, annex 2: the peak is then read 0.6 dB too low at worst
PIECE_SECONDS = 30.0  # oversampled at once, so that a film's track doesn't take four times its memory
FILTERS = "DeMan"  # pyloudnorm's filters that keep to the standard at every rate; its own are 0.1 LU off


@dataclass(frozen=True)
class Gain:
    """What a sound is to be multiplied with, and what that makes of it."""

    factor: float
    measured_lufs: float | None  # before; None: it is silent, or shorter than a block
    peak_limited: bool  # the peaks allow no more: it stays more quiet than wanted

    @property
    def decibels(self) -> float:
        return 20 * math.log10(self.factor)

    @property
    def reached_lufs(self) -> float | None:
        return None if self.measured_lufs is None else self.measured_lufs + self.decibels


def loudness_lufs(waveform: Waveform) -> float | None:
    """Return the integrated loudness; None for what is silent, all below -70 LUFS, or shorter than BLOCK_SECONDS.

    Takes about three times the memory of the samples.
    """
    import pyloudnorm  # brings scipy, which takes a moment; few need it

    if waveform.seconds < BLOCK_SECONDS or not waveform.peak:
        return None
    meter = pyloudnorm.Meter(waveform.sample_rate, filter_class=FILTERS, block_size=BLOCK_SECONDS)
    loudness = float(meter.integrated_loudness(waveform.samples))
    return loudness if math.isfinite(loudness) else None


def true_peak(waveform: Waveform) -> float:
    """Return the largest magnitude of the sound, between its samples too; 1.0 is full scale, 0 dBTP."""
    oversampler = soxr.ResampleStream(
        waveform.sample_rate, OVERSAMPLING * waveform.sample_rate, 1, dtype="float32", quality="HQ"
    )
    peak, step = waveform.peak, round(PIECE_SECONDS * waveform.sample_rate)
    for start in range(0, len(waveform.samples), step):
        last = start + step >= len(waveform.samples)
        between = oversampler.resample_chunk(waveform.samples[start : start + step], last=last)
        peak = max(peak, float(np.abs(between).max(initial=0.0)))
    return peak


def gain_to(waveform: Waveform, target_lufs: float, ceiling_dbtp: float = CEILING_DBTP) -> Gain:
    """Return the gain that brings a sound to `target_lufs`, or as near as its true peak allows below `ceiling_dbtp`.

    It is one factor for the whole sound: nothing is compressed, so a sound of high peaks may stay more quiet than
    wanted. What has no loudness is left as it is, unless its peaks are above the ceiling.
    """
    loudness, peak = loudness_lufs(waveform), true_peak(waveform)
    wanted = 1.0 if loudness is None else _factor(target_lufs - loudness)
    most = _factor(ceiling_dbtp) / peak if peak else math.inf
    return Gain(min(wanted, most), loudness, peak_limited=most < wanted)


def amplified(waveform: Waveform, factor: float) -> Waveform:
    """Return the same sound, `factor` times as large."""
    return replace(waveform, samples=waveform.samples * np.float32(factor))


def _factor(decibels: float) -> float:
    return float(10 ** (decibels / 20))
