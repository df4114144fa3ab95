"""What FFmpeg hears in a file, for those tests that can have it."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray


def heard_by_ffmpeg(file: bytes) -> tuple[NDArray[np.float32], int]:
    """Return the samples [N] of a mono file and their rate; skips the test where PyAV is not installed."""
    av = pytest.importorskip("av", reason="PyAV is an optional extra")
    with av.open(io.BytesIO(file)) as opened:
        frames = list(opened.decode(audio=0))
    pieces = [frame.to_ndarray().reshape(-1) for frame in frames]
    samples = np.concatenate(pieces)
    scale = np.float32(32768) if samples.dtype == np.int16 else np.float32(1)
    return samples.astype(np.float32) / scale, frames[0].sample_rate
