"""Makes one sound of several: trims each, puts pauses between them, and lets no border click.

Letters in shape comments: N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from voice_core.audio.waveform import Waveform
from voice_core.speech import PAUSE_SECONDS

TRIM_DB = -45.0  # below a segment's own peak: what its ends may lose
FADE_SECONDS = 0.005  # enough not to click, little beside a consonant


def trim(waveform: Waveform, threshold_db: float = TRIM_DB) -> Waveform:
    """Cut off both ends as far as they stay at or below `threshold_db` relative to the waveform's own peak.

    A silent waveform becomes one of no samples.
    """
    magnitudes = np.abs(waveform.samples)
    threshold = np.float32(waveform.peak * 10 ** (threshold_db / 20))
    audible = np.flatnonzero(magnitudes > threshold)
    if audible.size == 0:
        return replace(waveform, samples=waveform.samples[:0])
    return replace(waveform, samples=waveform.samples[audible[0] : audible[-1] + 1])


@dataclass(frozen=True)
class Part:
    """What one waveform adds to the whole: a pause, if it isn't the first that is heard, and itself, fitted."""

    samples: NDArray[np.float32]  # [N], the pause first
    start_samples: int  # of the waveform's sound in the whole, counted from its beginning
    end_samples: int  # where the sound ends; a silent waveform ends where it starts


class Joiner:
    """Joins waveforms as they come: each is fitted by itself, so the whole is the same in one go or in parts."""

    def __init__(self, sample_rate: int, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._sample_rate = sample_rate
        self._pause = silence(pause_seconds, sample_rate)
        self._length_samples = 0

    def add(self, waveform: Waveform) -> Part:
        """Return the next part of the whole, no samples for a silent waveform. ValueError for another sample rate."""
        if waveform.sample_rate != self._sample_rate:
            raise ValueError(f"waveform: it has {waveform.sample_rate} Hz, those before it {self._sample_rate} Hz")
        trimmed = trim(waveform)
        start_samples = self._length_samples
        if not trimmed.seconds:
            return Part(trimmed.samples, start_samples, start_samples)
        pieces = [fade(trimmed).samples]
        if start_samples > 0:
            pieces.insert(0, self._pause.samples)
            start_samples += len(self._pause.samples)
        self._length_samples = start_samples + len(trimmed.samples)
        return Part(np.concatenate(pieces), start_samples, self._length_samples)


def join(waveforms: Sequence[Waveform], pause_seconds: float = PAUSE_SECONDS) -> Waveform:
    """Trim every waveform and put a pause between neighbours.

    The result lasts as long as the trimmed waveforms and the pauses together. A silent waveform adds neither
    sound nor pause. The ends of the whole need no trim of their own: it begins and ends with a trimmed
    waveform, and a second trim, relative to the loudest of them, would lose a quiet first or last one.

    Raises ValueError if there is nothing to join or the sample rates differ.
    """
    if not waveforms:
        raise ValueError("waveforms: nothing to join")
    sample_rate = waveforms[0].sample_rate
    joiner = Joiner(sample_rate, pause_seconds)
    return Waveform(np.concatenate([joiner.add(waveform).samples for waveform in waveforms]), sample_rate)


def silence(seconds: float, sample_rate: int) -> Waveform:
    """Return `seconds` of zeros, to the nearest sample."""
    return Waveform(np.zeros(round(seconds * sample_rate), dtype=np.float32), sample_rate)


def fade(waveform: Waveform) -> Waveform:
    """Let the waveform rise from and fall to zero within FADE_SECONDS, or half its length if that is shorter.

    The outer ends of a joined sound fade like the inner ones: a trim leaves a step of up to TRIM_DB there,
    and a segment that was stopped in mid-speech leaves a step of full height, against the silence before and
    after the sound.
    """
    length_samples = min(round(FADE_SECONDS * waveform.sample_rate), len(waveform.samples) // 2)
    rise = _half_cosine(length_samples)
    samples = waveform.samples.copy()
    samples[:length_samples] *= rise
    samples[len(samples) - length_samples :] *= rise[::-1]
    return replace(waveform, samples=samples)


def _half_cosine(length_samples: int) -> NDArray[np.float32]:
    """Return a rise from just above 0 to just below 1, [N], symmetric about 1/2."""
    phases = (np.arange(length_samples) + 0.5) / length_samples if length_samples else np.zeros(0)
    return (0.5 - 0.5 * np.cos(np.pi * phases)).astype(np.float32)
