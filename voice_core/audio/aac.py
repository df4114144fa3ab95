"""AAC in ADTS frames, which can be played from any frame on; written by FFmpeg, where PyAV is installed.

Letters in shape comments: N samples.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

INSTALLED = find_spec("av") is not None
HOW_TO_INSTALL = "pip install 'voice-serve[aac]'"

AAC_LEAD_SAMPLES = 1024  # of the encoder's delay, a frame
BITRATES = ((32000, 96_000), (0, 64_000))  # from this rate on, bit/s: speech needs no more


class AacWriter:
    """AAC-LC, one encoder for the whole file. ADTS tells neither a length nor the delay that comes first."""

    stream_head_bytes = 0

    def __init__(self, sample_rate: int) -> None:
        import av  # an optional extra

        self._sink = _Sink()
        self._file: Any = av.open(self._sink, "w", format="adts", options={"flush_packets": "1"})
        self._encoder: Any = self._file.add_stream("aac", rate=sample_rate)
        self._encoder.layout = "mono"
        self._encoder.bit_rate = next(bitrate for rate, bitrate in BITRATES if sample_rate >= rate)
        self._sample_rate = sample_rate
        self._samples = 0

    def write(self, samples: NDArray[np.float32]) -> bytes:
        from av import AudioFrame

        frame: Any = AudioFrame.from_ndarray(samples.clip(-1, 1)[None], format="fltp", layout="mono")
        frame.sample_rate = self._sample_rate
        frame.pts = self._samples
        self._samples += len(samples)
        self._file.mux(self._encoder.encode(frame))
        return self._sink.take()

    def close(self) -> bytes:
        self._file.mux(self._encoder.encode(None))
        self._file.close()
        return self._sink.take()

    def head(self) -> bytes:
        return b""


class _Sink:
    """The file that FFmpeg writes to; without a way to seek, so that it never tries."""

    def __init__(self) -> None:
        self._ready = bytearray()

    def write(self, block: bytes) -> int:
        self._ready += block
        return len(block)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        ready, self._ready = bytes(self._ready), bytearray()
        return ready
