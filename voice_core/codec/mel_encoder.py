"""The embedded codec's encoder: a code is the nearest centroid of what 20 ms of sound look like in mel bands.

Letters in shape comments: N samples, F frames of the spectrum, B bins, M mel bands, T codes, C components, K centroids.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from voice_core.audio.waveform import Waveform
from voice_core.codec.config import FRAMES_PER_SECOND
from voice_core.errors import CheckpointError

WEIGHTS_FILE = "encoder.safetensors"
SAMPLE_RATE = 16000  # Hz
WINDOW_SAMPLES = 512
HOP_SAMPLES = 160
SPECTRA_PER_CODE = SAMPLE_RATE // FRAMES_PER_SECOND // HOP_SAMPLES
MEL_BANDS = 80
QUIETEST_BAND = 1e-3  # a magnitude; what lies below is silence


class Codebook(NamedTuple):
    """The codes' centroids and the plane in which they are compared."""

    mean: Tensor  # [2M] of the log-mel spectra under one code, side by side
    components: Tensor  # [C, 2M]
    centroids: Tensor  # [K, C]


def read_codebook(directory: Path) -> Codebook:
    """Return the codebook of the codec in `directory`; CheckpointError if its file is none."""
    file = directory / WEIGHTS_FILE
    try:
        return Codebook(**load_file(file))
    except (OSError, SafetensorError, TypeError) as error:
        raise CheckpointError(str(file), "", f"is no codebook: {error}") from error


class MelEncoder:
    """Finds the code of every 20 ms; codes are the speaker's own numbers."""

    def __init__(self, codebook: Codebook) -> None:
        self._codebook = codebook
        self._bank = _mel_bank()
        self._window = torch.hann_window(WINDOW_SAMPLES)

    @property
    def sample_rate(self) -> int:
        return SAMPLE_RATE

    @torch.inference_mode()
    def encode(self, recording: Waveform) -> tuple[int, ...]:
        """Return one code for every whole 20 ms."""
        spectra = self.log_mel(recording)
        whole = len(spectra) // SPECTRA_PER_CODE * SPECTRA_PER_CODE
        stacked = spectra[:whole].reshape(-1, SPECTRA_PER_CODE * MEL_BANDS)  # [T, 2M]
        reduced = (stacked - self._codebook.mean) @ self._codebook.components.T  # [T, C]
        return tuple(torch.cdist(reduced, self._codebook.centroids).argmin(1).tolist())

    @torch.inference_mode()
    def log_mel(self, recording: Waveform) -> Tensor:
        """Return the natural logarithms of the mel bands' magnitudes every 10 ms, [F, M]."""
        assert recording.sample_rate == SAMPLE_RATE, f"{recording.sample_rate} Hz"
        samples = torch.from_numpy(recording.samples.copy())  # read-only ones make torch warn
        padded = F.pad(samples, ((WINDOW_SAMPLES - HOP_SAMPLES) // 2,) * 2)
        spectrum = torch.stft(
            padded, WINDOW_SAMPLES, HOP_SAMPLES, window=self._window, center=False, return_complex=True
        )  # [B, F]
        return (self._bank @ spectrum.abs()).clamp(min=QUIETEST_BAND).log().T


def _mel_bank() -> Tensor:
    """Return triangular filters from 0 Hz to half the sample rate, evenly spaced in mel, [M, B]."""
    highest_mel = 2595 * torch.log10(torch.tensor(1 + SAMPLE_RATE / 2 / 700, dtype=torch.float64))
    edges_hz = 700 * (10 ** (torch.linspace(0, highest_mel.item(), MEL_BANDS + 2, dtype=torch.float64) / 2595) - 1)
    bins_hz = torch.linspace(0, SAMPLE_RATE / 2, WINDOW_SAMPLES // 2 + 1, dtype=torch.float64)
    low, centre, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising, falling = (bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)
    return torch.minimum(rising, falling).clamp(min=0).float()
