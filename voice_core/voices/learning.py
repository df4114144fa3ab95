"""From a file that somebody sent to what the speaker needs of it; the same recording is encoded once."""

from __future__ import annotations

from pathlib import Path

import torch

from voice_core.audio.formats import encode, resample
from voice_core.codec.encoder import CodecEncoder, code_fingerprint, load_encoder
from voice_core.speech import LearnedReference, ReferenceLimits
from voice_core.voices.cache import BYTES_PER_CODE, ByteBoundedCache
from voice_core.voices.reference import content_hash, read_reference

MOST_CACHED_BYTES = 64_000_000  # of codes: a thousand recordings of 30 s
KEPT_FORMAT = "flac"  # lossless at 16 bits, and browsers play it


class Learner:
    """Reads, checks and encodes recordings, one at a time; loads the codec's encoder with the first of them."""

    def __init__(self, codec_directory: Path, limits: ReferenceLimits, device: str | torch.device = "cpu") -> None:
        self._directory = codec_directory
        self._limits = limits
        self._device = device
        self._encoder: CodecEncoder | None = None
        self._codes: ByteBoundedCache[tuple[int, ...]] = ByteBoundedCache(MOST_CACHED_BYTES)
        self.fingerprint = code_fingerprint(codec_directory)
        self.encoded = 0  # recordings that went through the encoder

    def learn(self, file: bytes, *, field: str) -> LearnedReference:
        """Return what is to be known of a recording; raises RequestError for `field`."""
        recording = read_reference(file, self._limits, field=field)
        key = content_hash(recording)
        codes = self._codes.get(key)
        if codes is None:
            if self._encoder is None:
                self._encoder = load_encoder(self._directory, self._device)
            codes = self._encoder.encode(resample(recording, self._encoder.sample_rate))
            self.encoded += 1
            self._codes.put(key, codes, BYTES_PER_CODE * len(codes))
        return LearnedReference(codes, self.fingerprint, recording.seconds, key, encode(recording, KEPT_FORMAT))

    def forget(self, recording_hash: str) -> None:
        """Keep nothing of a recording."""
        self._codes.drop(recording_hash)
