"""Turns a recording into codes: the half of a codec that is needed only where a voice is learned."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import torch

from voice_core.audio.waveform import Waveform
from voice_core.codec.checkpoint import read_weights
from voice_core.codec.mel_encoder import WEIGHTS_FILE as MEL_WEIGHTS_FILE
from voice_core.codec.mel_encoder import MelEncoder, read_codebook
from voice_core.codec.xcodec2_encoder import XCodec2Encoder, decides_codes


class CodecEncoder(Protocol):
    """What learning a voice needs of a codec."""

    @property
    def sample_rate(self) -> int:
        """Hz, of the recordings it takes."""

    def encode(self, recording: Waveform) -> tuple[int, ...]:
        """Return the codes of a recording at `sample_rate`, in the numbering that the speaker says them in."""


def load_encoder(directory: Path, device: str | torch.device = "cpu") -> CodecEncoder:
    """Return the encoder of the codec in `directory`; raises CheckpointError if it has none that can be read."""
    if (directory / MEL_WEIGHTS_FILE).is_file():
        return MelEncoder(read_codebook(directory))
    return XCodec2Encoder.load(directory, device)


def code_fingerprint(directory: Path) -> str:
    """Return what tells codecs apart whose codes mean different sounds; cheap: it reads a few small tensors.

    The two published XCodec2 share their encoder, so that codes of one are codes of the other.
    """
    if (directory / MEL_WEIGHTS_FILE).is_file():
        weights = read_codebook(directory)._asdict()
    else:
        _, weights = read_weights(directory, decides_codes)
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(key.encode())
        digest.update(weights[key].numpy().tobytes())
    return digest.hexdigest()
