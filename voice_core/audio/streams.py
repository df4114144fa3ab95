"""One file, written piece by piece and sent while it grows.

Letters in shape comments: N samples.
"""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from voice_core.audio.formats import RESAMPLING_QUALITY, Format, format_named
from voice_core.audio.waveform import Waveform
from voice_core.errors import SynthesisError


def open_stream(format_name: str, sample_rate: int) -> FileStream:
    """Begin a file for sound of `sample_rate` Hz; raises RequestError for an unknown format."""
    return FileStream(format_named(format_name), sample_rate)


class FileStream:
    """A file that is sent while its sound is still being made.

    The bytes of all pieces together are one valid file. Its sound is that of the file that `encode` writes of all the
    samples, to the bit in wav, wav_float32, pcm and flac, and packet for packet in mp3, opus and aac; how the samples
    were cut into pieces changes no byte. What differs is the head, which can't tell a length that nobody knows yet:
    wav has 0xFFFFFFFF there, flac 0 for "unknown", and mp3 begins without its info frame, so that it doesn't tell
    either that its first 1105 samples are the codec's delay. Changes of rate and codecs hold samples back until they
    know what comes next: up to 0.2 s, and a block of 4096 samples in flac.
    """

    def __init__(self, wanted: Format, sample_rate: int) -> None:
        self.media_type = wanted.media_type
        self.sample_rate = wanted.rate_for(sample_rate)  # Hz, of the file
        self._given_rate = sample_rate
        self._resampler = None
        if self.sample_rate != sample_rate:
            self._resampler = soxr.ResampleStream(
                sample_rate, self.sample_rate, 1, dtype="float32", quality=RESAMPLING_QUALITY
            )
        self.lead_samples = wanted.stream_lead_samples  # heard before the sound, at the file's rate
        self._writer = wanted.open(self.sample_rate)
        self._written_samples = 0

    def write(self, samples: NDArray[np.float32]) -> bytes:
        """Take the next samples [N], about -1..1, and return what is ready of the file, perhaps nothing.

        Raises ValueError if they aren't [N] float32, SynthesisError if one of them isn't a finite number.
        """
        checked = Waveform(samples, self._given_rate).samples
        self._written_samples += len(checked)
        return self._writer.write(self._resampled(checked, last=False)) if len(checked) else b""

    def close(self) -> bytes:
        """Return the rest of the file; nothing may be written after it.

        Raises SynthesisError if there was no sample: a file of nothing would be a silence that nobody asked for.
        """
        if not self._written_samples:
            raise SynthesisError("nothing to write: the sound has no samples")
        rest = self._resampled(np.zeros(0, dtype=np.float32), last=True)
        return (self._writer.write(rest) if len(rest) else b"") + self._writer.close()

    @property
    def stream_head_bytes(self) -> int:
        """How much at the beginning of what came out gives way to `head`, for who kept it all back."""
        return self._writer.stream_head_bytes

    def head(self) -> bytes:
        """Return the head of the whole file, which knows its length, once it is closed."""
        return self._writer.head()

    def _resampled(self, samples: NDArray[np.float32], *, last: bool) -> NDArray[np.float32]:
        if self._resampler is None:
            return samples
        resampled: NDArray[np.float32] = self._resampler.resample_chunk(samples, last=last)
        return resampled
