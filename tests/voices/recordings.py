"""Recordings for tests: a hum that swells and fades like speech, as a file of any format."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray


def hum(seconds: float = 2.0, sample_rate: int = 16000, pitch: float = 120.0) -> NDArray[np.float32]:
    """Return [N] samples of a voice-like hum."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    swell = 0.25 + 0.2 * np.sin(2 * np.pi * 3 * time)
    overtones = sum(np.sin(2 * np.pi * pitch * overtone * time) / overtone for overtone in range(1, 6))
    return (swell * overtones).astype(np.float32)


def hum_of_16_bits(seconds: float = 2.0, sample_rate: int = 16000) -> NDArray[np.int16]:
    """Return [N] samples that every lossless format keeps as they are."""
    return np.rint(hum(seconds, sample_rate) * 32767).astype(np.int16)


def audio_file(
    samples: NDArray[Any], sample_rate: int = 16000, container: str = "WAV", encoding: str | None = None
) -> bytes:
    """Return a file of samples [N] or [N, C]."""
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format=container, subtype=encoding)
    return file.getvalue()
