"""What codec and recogniser hear: log-mel frames, and the codes that a k-means codebook makes of them.

Letters in shape comments: B items, N samples, F codec frames (20 ms), M mel bands, K codes, C components kept.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.teacher import SAMPLE_RATE

WINDOW = 512  # samples
HOP = 160  # samples: two mel frames a codec frame
BANDS = 80
STACKED = 2 * BANDS
FLOOR = 1e-3  # of a band's magnitude; quieter is silence

CODES = 512
COMPONENTS = 40  # principal components of the stacked frames; they keep the variance that phonemes differ in
KMEANS_ROUNDS = 12

ENCODER_FILE = "encoder.safetensors"


def mel_bank(window: int, bands: int) -> Tensor:
    """Return triangular mel filters [bands, window / 2 + 1] from 0 Hz to half the sample rate."""
    highest = 2595 * torch.log10(torch.tensor(1 + SAMPLE_RATE / 2 / 700, dtype=torch.float64))
    edges = 700 * (10 ** (torch.linspace(0, float(highest), bands + 2, dtype=torch.float64) / 2595) - 1)
    frequencies = torch.linspace(0, SAMPLE_RATE / 2, window // 2 + 1, dtype=torch.float64)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    return torch.minimum(rising, falling).clamp(min=0).float()


class LogMel(nn.Module):
    """Sound to log-mel frames; a codec frame's two mel frames begin with it."""

    bank: Tensor  # [M, WINDOW / 2 + 1]
    window: Tensor  # [WINDOW]

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bank", mel_bank(WINDOW, BANDS), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def forward(self, sounds: Tensor) -> Tensor:
        """Return [B, 2F, M] of sounds [B, N]."""
        padded = F.pad(sounds, ((WINDOW - HOP) // 2,) * 2)
        spectrum = torch.stft(padded, WINDOW, HOP, window=self.window, center=False, return_complex=True)
        magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-10).sqrt()  # smooth at 0, unlike abs
        mel: Tensor = (self.bank @ magnitude).clamp(min=FLOOR).log().transpose(1, 2)
        return mel


def stacked_mel(mel: LogMel, sounds: Tensor) -> Tensor:
    """Return the two mel frames of each codec frame side by side, [B, F, 2M], of sounds [B, N]."""
    frames: Tensor = mel(sounds)
    return torch.unflatten(frames[:, : frames.shape[1] // 2 * 2], 1, (-1, 2)).flatten(2)


class CodeBook(nn.Module):
    """Sound to codes: the nearest of K centroids among the principal components of the stacked mel frames."""

    mean: Tensor  # [2M]
    components: Tensor  # [C, 2M]
    centroids: Tensor  # [K, C]

    def __init__(self, mean: Tensor, components: Tensor, centroids: Tensor) -> None:
        super().__init__()
        self.mel = LogMel()
        self.register_buffer("mean", mean)
        self.register_buffer("components", components)
        self.register_buffer("centroids", centroids)

    def forward(self, sounds: Tensor) -> Tensor:
        """Return the codes [B, F] of sounds [B, N]."""
        reduced = (stacked_mel(self.mel, sounds) - self.mean) @ self.components.T  # [B, F, C]
        return torch.cdist(reduced, self.centroids).argmin(-1)

    @property
    def centroid_frames(self) -> Tensor:
        """The centroids as stacked mel frames, [K, 2M]."""
        return self.centroids @ self.components + self.mean

    def save(self, directory: Path) -> None:
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, directory / ENCODER_FILE)


def load_codebook(directory: Path) -> CodeBook:
    """Return the codebook whose encoder lies in `directory`."""
    return CodeBook(**load_file(directory / ENCODER_FILE))


def fit_codebook(frames: Tensor, seed: int, codes: int = CODES) -> CodeBook:
    """Return the codebook of stacked mel frames [F, 2M] by principal components and k-means."""
    mean = frames.mean(0)
    components = torch.linalg.svd(frames - mean, full_matrices=False).Vh[:COMPONENTS]
    reduced = (frames - mean) @ components.T
    generator = torch.Generator().manual_seed(seed)
    centroids = reduced[torch.randperm(len(reduced), generator=generator)[:codes]].clone()
    for _ in range(KMEANS_ROUNDS):
        nearest = torch.cat([torch.cdist(part, centroids).argmin(1) for part in reduced.split(8192)])
        sums = torch.zeros_like(centroids).index_add_(0, nearest, reduced)
        counts = nearest.bincount(minlength=codes)[:, None]
        centroids = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
    return CodeBook(mean, components.contiguous(), centroids)
