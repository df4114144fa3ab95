"""Judges what was spoken by what can be counted: length, end, repetition, silence. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voice_core.speech import FinishReason, Speech

REPEATED_CODES = 8  # 0.16 s: shorter stretches return in every speech, as its vowels do
SILENT_PEAK = 1 / 32768  # what a file of 16 bits can't hold any more
QUIET_DB = -45.0  # relative to the speech's own peak, as where its ends are trimmed
BLOCK_SECONDS = 0.02  # one frame of the codec


@dataclass(frozen=True)
class Judgement:
    """What can be said of a speech without understanding it. Shares are 0..1."""

    ended: bool  # by itself
    length_error: float  # how far got seconds are from asked seconds, as a share of the asked ones
    repeated_share: float
    silence_share: float

    @property
    def score(self) -> float:
        """0 is best. What did not end is worse than whatever ended within twice its length."""
        return (0.0 if self.ended else 1.0) + self.length_error + self.repeated_share + self.silence_share


def judge(speech: Speech) -> Judgement:
    return Judgement(
        ended=speech.finish_reason is FinishReason.STOP,
        length_error=abs(speech.seconds - speech.asked_seconds) / speech.asked_seconds,
        repeated_share=speech.repeated_share,
        silence_share=silence_share(speech),
    )


def repeated_share(codes: Sequence[int]) -> float:
    """Return the share of runs of REPEATED_CODES codes that came before, without a run of one code alone.

    A model that is caught in a loop says the same codes over and over; a held vowel or a pause, one code for many
    frames, is no loop.
    """
    runs = [tuple(codes[start : start + REPEATED_CODES]) for start in range(len(codes) - REPEATED_CODES + 1)]
    moving = [run for run in runs if len(set(run)) > 1]
    return (len(moving) - len(set(moving))) / len(runs) if runs else 0.0


def silence_share(speech: Speech) -> float:
    """Return the share of blocks of BLOCK_SECONDS that stay QUIET_DB below the loudest sample; 1 for silence."""
    block_samples = max(1, round(BLOCK_SECONDS * speech.sample_rate))
    magnitudes = np.abs(speech.samples)
    peak = magnitudes.max(initial=0)
    if peak < SILENT_PEAK:
        return 1.0
    whole_blocks = len(magnitudes) // block_samples
    if not whole_blocks:
        return 0.0
    peaks = magnitudes[: whole_blocks * block_samples].reshape(whole_blocks, block_samples).max(axis=1)
    return float(np.mean(peaks <= peak * 10 ** (QUIET_DB / 20)))


def is_silent(speech: Speech) -> bool:
    """True for what would be nothing but zeros in a file of 16 bits."""
    return bool(np.abs(speech.samples).max(initial=0) < SILENT_PEAK)
