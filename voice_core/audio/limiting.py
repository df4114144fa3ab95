"""Lets a sound be loud though it has a few high peaks: a gain that sinks smoothly around them, not a clip.

Letters in shape comments: N samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PIECE_SECONDS = 30.0  # at once
REACH_SECONDS = 0.02  # before and after a peak; a few periods of a low voice, so that its wave keeps its form


def reach_samples(sample_rate: int) -> int:
    """Return by how many samples what is limited may depend on those around it."""
    return 2 * round(REACH_SECONDS * sample_rate)


def limit(samples: NDArray[np.float32], sample_rate: int, ceiling: float) -> NDArray[np.float32]:
    """Return samples [N] of which none is above the `ceiling`; those far from such ones are as they were.

    The gain at a sample is the mean, over REACH_SECONDS on both sides, of the least gain that is needed within
    REACH_SECONDS of each: never more than the sample itself needs. In parts, each with `reach_samples` more at both
    ends, it gives the same as in one go; so a long sound is limited some at a time, in little memory.
    """
    reach, step = reach_samples(sample_rate), round(PIECE_SECONDS * sample_rate)
    limited = np.empty_like(samples)
    for start in range(0, len(samples), step):
        before, end = max(0, start - reach), min(start + step, len(samples))
        piece = _limited(samples[before : end + reach], sample_rate, ceiling)
        limited[start:end] = piece[start - before :][: end - start]
    return limited


def _limited(samples: NDArray[np.float32], sample_rate: int, ceiling: float) -> NDArray[np.float32]:
    magnitudes = np.abs(samples)
    if magnitudes.max(initial=0.0) <= ceiling:
        return samples
    from scipy.ndimage import minimum_filter1d, uniform_filter1d  # takes a moment; few need it

    window = reach_samples(sample_rate) + 1
    needed = ceiling / np.maximum(magnitudes.astype(np.float64), ceiling)
    gains = uniform_filter1d(minimum_filter1d(needed, window, mode="nearest"), window, mode="nearest")
    limited: NDArray[np.float32] = (samples * np.minimum(gains, needed)).astype(np.float32)
    return limited
