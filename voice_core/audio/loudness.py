"""How loud a whole sound is to a listener (EBU R 128), and the gain that makes it as loud as wanted without clipping.

Loudness is that of ITU-R BS.1770-4, in LUFS: what the ear hears of it, over blocks of 0.4 s, without the pauses. Peaks
are true peaks, of the sound between the samples too (BS.1770-4, annex 2), in dB of full scale (dBTP).

Letters in shape comments: B blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from voice_core.audio.waveform import Waveform

BLOCK_SECONDS = 0.4  # below it nothing can be measured
HOP_SECONDS = 0.1  # from block to block
SILENCE_LUFS = -70.0  # blocks below it don't count
BLOCKS_AT_ONCE = 600  # a minute
LEAD_BLOCKS = 10  # before them, for the filters to settle
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
    """Return the integrated loudness; None for what is silent, all below -70 LUFS, or shorter than BLOCK_SECONDS."""
    if waveform.seconds < BLOCK_SECONDS:
        return None
    powers = 10 ** (_block_loudness(waveform) / 10)  # [B]
    audible = powers[powers >= 10 ** (SILENCE_LUFS / 10)]
    if not audible.size:
        return None
    counted = audible[audible > audible.mean() / 10]  # 10 LU below the mean of what is audible is a pause
    return float(10 * np.log10(counted.mean()))


def _block_loudness(waveform: Waveform) -> NDArray[np.float64]:
    """Return the loudness of every block, [B] LUFS, one each HOP_SECONDS, -inf for silence.

    They are measured some at a time: pyloudnorm takes five times the memory of what it is given, and a film's track is
    long. What was before a block echoes in its filters for a few hundredths of a second.
    """
    import pyloudnorm  # brings scipy, which takes a moment; few need it

    meter = pyloudnorm.Meter(
        waveform.sample_rate, filter_class=FILTERS, block_size=BLOCK_SECONDS, overlap=1 - HOP_SECONDS / BLOCK_SECONDS
    )
    hop_samples = HOP_SECONDS * waveform.sample_rate  # perhaps no whole number
    last_block = round((waveform.seconds - BLOCK_SECONDS) / HOP_SECONDS)
    loudness: list[float] = []
    for first in range(0, last_block + 1, BLOCKS_AT_ONCE):
        lead = min(first, LEAD_BLOCKS)
        begin, end = first - lead, first + BLOCKS_AT_ONCE - 1 + BLOCK_SECONDS / HOP_SECONDS
        meter.integrated_loudness(waveform.samples[round(begin * hop_samples) : round(end * hop_samples)])
        loudness += meter.blockwise_loudness[lead : lead + BLOCKS_AT_ONCE]
    return np.array(loudness)


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


def _factor(decibels: float) -> float:
    return float(10 ** (decibels / 20))
