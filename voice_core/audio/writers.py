"""Writes files from the first sample to the last, piece by piece: one way for whole files and for streams.

What comes out of a writer, one piece after the other, is a file that can be played while it grows. Only its head can't
tell how long it will be: `head` is what belongs there instead once the file is whole.

Letters in shape comments: N samples.
"""

from __future__ import annotations

import struct
from typing import Any, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from voice_core.audio.ogg import with_fixed_serial_number

FULL_SCALE = 32768  # of 16-bit samples; +1.0 itself is clipped by one step
WAV_PCM, WAV_FLOAT = 1, 3  # the format numbers in a RIFF header
UNKNOWN_BYTES = 0xFFFFFFFF  # what players take for "until it ends" where a RIFF header has a size

# The rate from which MP3 is MPEG-1, MPEG-2 or MPEG-2.5, and in kbit/s: what we write, the lowest and highest there are.
MP3_BITRATES = ((32000, 128, 32, 320), (16000, 64, 8, 160), (0, 64, 8, 64))

MP3_LEAD_SAMPLES = 1105  # 576 of LAME's delay and 529 of any decoder's

OPUS_PAGE_MS = 100.0  # libsndfile's own second would keep the end of a segment back until the next one is spoken
SET_OGG_PAGE_LATENCY_MS = 0x1302  # sndfile.h: SFC_SET_OGG_PAGE_LATENCY_MS; the soundfile package has no name for it

KEPT_BYTES = 4096  # of the beginning of a file; heads are much shorter


class Writer(Protocol):
    """One mono file on its way, at a rate that its format can hold."""

    @property
    def stream_head_bytes(self) -> int:
        """How much at the beginning of what came out gives way to `head` in a whole file."""

    def write(self, samples: NDArray[np.float32]) -> bytes:
        """Take samples [N] and return what is ready of the file, perhaps nothing."""

    def close(self) -> bytes:
        """Return the rest of the file; nothing may be written after it."""

    def head(self) -> bytes:
        """Return the head of the whole file, once it is closed."""


def write_whole(writer: Writer, samples: NDArray[np.float32]) -> bytes:
    """Return the whole file of samples [N], with a head that knows its length."""
    streamed = writer.write(samples) + writer.close()
    return writer.head() + streamed[writer.stream_head_bytes :]


def as_pcm16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return samples [N] as 16-bit integers: rounded, and clipped where they are too loud."""
    scaled = np.rint(samples * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype("<i2")


class PcmWriter:
    """16-bit samples and nothing else."""

    stream_head_bytes = 0

    def __init__(self, sample_rate: int) -> None:
        """Take a rate because writers do; nothing in the file tells it."""

    def write(self, samples: NDArray[np.float32]) -> bytes:
        return as_pcm16(samples).tobytes()

    def close(self) -> bytes:
        return b""

    def head(self) -> bytes:
        return b""


class WavWriter:
    """A RIFF file of 16-bit or float samples; libsndfile would put the time of day into one of floats."""

    def __init__(self, sample_rate: int, *, floats: bool = False) -> None:
        self._sample_rate = sample_rate
        self._floats = floats
        self._samples = 0
        self._unsent_head = self._head(UNKNOWN_BYTES, UNKNOWN_BYTES, UNKNOWN_BYTES)
        self.stream_head_bytes = len(self._unsent_head)

    def write(self, samples: NDArray[np.float32]) -> bytes:
        head, self._unsent_head = self._unsent_head, b""
        self._samples += len(samples)
        return head + (samples.astype("<f4") if self._floats else as_pcm16(samples)).tobytes()

    def close(self) -> bytes:
        return self._unsent_head

    def head(self) -> bytes:
        body_bytes = self._samples * self._sample_bytes
        return self._head(self.stream_head_bytes - 8 + body_bytes, self._samples, body_bytes)

    @property
    def _sample_bytes(self) -> int:
        return 4 if self._floats else 2

    def _head(self, riff_bytes: int, samples: int, body_bytes: int) -> bytes:
        """Return all that stands before the samples; they are even in bytes, so no padding comes after them."""
        rate, width = self._sample_rate, self._sample_bytes
        number = WAV_FLOAT if self._floats else WAV_PCM
        head = struct.pack("<4sI4s", b"RIFF", riff_bytes, b"WAVE")
        head += struct.pack("<4sIHHIIHH", b"fmt ", 16, number, 1, rate, rate * width, width, 8 * width)
        if self._floats:  # the standard wants it in all but PCM
            head += struct.pack("<4sII", b"fact", 4, samples)
        return head + struct.pack("<4sI", b"data", body_bytes)


class _Sink:
    """The file that libsndfile writes to: hands over what is appended, and notes how the head is written anew."""

    def __init__(self) -> None:
        self.rewritten_bytes = 0  # of the head, at the end
        self._beginning = bytearray()  # KEPT_BYTES at most
        self._ready = bytearray()
        self._position = 0
        self._length = 0

    def take(self) -> bytes:
        """Return what was appended since the last time."""
        ready, self._ready = bytes(self._ready), bytearray()
        return ready

    def head(self) -> bytes:
        return bytes(self._beginning[: self.rewritten_bytes])

    def write(self, block: bytes) -> int:
        end = self._position + len(block)
        if self._position == self._length:
            self._ready += block
            self._length = end
            self._beginning += block[: KEPT_BYTES - len(self._beginning)]
        else:
            assert end <= len(self._beginning), f"bytes up to {end} are written anew, which a stream has sent"
            self._beginning[self._position : end] = block
            self.rewritten_bytes = max(self.rewritten_bytes, end)
        self._position = end
        return len(block)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = (0, self._position, self._length)[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        return b""  # libsndfile asks for it at the door and never calls it

    def flush(self) -> None:
        """All is where it belongs."""


class _SoundfileWriter:
    """A file that libsndfile writes, whose codec keeps its state from piece to piece."""

    def __init__(self, sample_rate: int, container: str, encoding: str, **options: Any) -> None:
        self._sink = _Sink()
        self._file = soundfile.SoundFile(
            self._sink, "w", samplerate=sample_rate, channels=1, format=container, subtype=encoding, **options
        )

    @property
    def stream_head_bytes(self) -> int:
        return self._sink.rewritten_bytes

    def write(self, samples: NDArray[np.float32]) -> bytes:
        self._file.write(samples.clip(-1, 1))
        return self._sink.take()

    def close(self) -> bytes:
        self._file.close()
        return self._sink.take()

    def head(self) -> bytes:
        return self._sink.head()


class FlacWriter(_SoundfileWriter):
    """16-bit FLAC; a stream's head leaves the number of samples and their checksum open, as the format allows."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__(sample_rate, "FLAC", "PCM_16")

    def write(self, samples: NDArray[np.float32]) -> bytes:
        self._file.write(as_pcm16(samples))
        return self._sink.take()


class Mp3Writer(_SoundfileWriter):
    """MP3 of a constant bitrate.

    The whole file begins with LAME's info frame: how many samples there are, and how many the codec put before and
    after them. A stream can't know, and libsndfile's placeholder would be heard as a frame of silence: it begins with
    the first frame of sound. So a player can tell neither the length nor, of a variable bitrate, how far a byte is
    from the end, and some stop where they guessed it to be: that is why the bitrate is constant. 1105 samples of the
    codec's delay are heard before a stream.
    """

    def __init__(self, sample_rate: int) -> None:
        _, wanted, lowest, highest = next(row for row in MP3_BITRATES if sample_rate >= row[0])
        level = (highest - wanted) / (highest - lowest)  # libsndfile's scale, from the best to the smallest
        super().__init__(sample_rate, "MP3", "MPEG_LAYER_III", bitrate_mode="CONSTANT", compression_level=level)
        self._begun = False

    @property
    def stream_head_bytes(self) -> int:
        return 0

    def write(self, samples: NDArray[np.float32]) -> bytes:
        if not self._begun and len(samples):  # the placeholder is written before the first sample is
            self._begun = True
            super().write(samples[:1])
            return super().write(samples[1:])
        return super().write(samples)


class OpusWriter(_SoundfileWriter):
    """Opus in Ogg, page after page; nothing is written twice, so a stream is the whole file."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__(sample_rate, "OGG", "OPUS")
        latency = soundfile._ffi.new("double*", OPUS_PAGE_MS)
        soundfile._snd.sf_command(self._file._file, SET_OGG_PAGE_LATENCY_MS, latency, soundfile._ffi.sizeof("double"))

    def write(self, samples: NDArray[np.float32]) -> bytes:
        return with_fixed_serial_number(super().write(samples))

    def close(self) -> bytes:
        return with_fixed_serial_number(super().close())
