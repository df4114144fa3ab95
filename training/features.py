"""What codec and recogniser hear: log-mel frames, and the codes that a k-means codebook makes of them.

Letters in shape comments: B items, N samples, F codec frames (20 ms), M mel bands, V voices, K codes a voice,
C components kept.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.teacher import SAMPLE_RATE, VOICES

WINDOW = 512  # samples
HOP = 160  # samples: two mel frames a codec frame
BANDS = 80
STACKED = 2 * BANDS
FLOOR = 1e-3  # of a band's magnitude; quieter is silence

CODES_PER_VOICE = 512
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
    """Sound to codes: the nearest of V · K centroids among the principal components of the stacked mel frames.

    Code k + K · v is what voice v sounds like where voice 0 sounds like code k.
    """

    mean: Tensor  # [2M]
    components: Tensor  # [C, 2M]
    centroids: Tensor  # [V * K, C]

    def __init__(self, mean: Tensor, components: Tensor, centroids: Tensor) -> None:
        super().__init__()
        self.mel = LogMel()
        self.register_buffer("mean", mean)
        self.register_buffer("components", components)
        self.register_buffer("centroids", centroids)

    def forward(self, sounds: Tensor, voice: int | None = None) -> Tensor:
        """Return the codes [B, F] of sounds [B, N]; where the voice is known, none but its own are taken."""
        return self.codes_of(stacked_mel(self.mel, sounds), voice)

    def codes_of(self, frames: Tensor, voice: int | None = None) -> Tensor:
        """Return the codes [B, F] of stacked mel frames [B, F, 2M]."""
        reduced = (frames - self.mean) @ self.components.T  # [B, F, C]
        if voice is None:
            return torch.cdist(reduced, self.centroids).argmin(-1)
        first = voice * self.codes_per_voice
        return first + torch.cdist(reduced, self.centroids[first : first + self.codes_per_voice]).argmin(-1)

    @property
    def codes_per_voice(self) -> int:
        return len(self.centroids) // len(VOICES)

    @property
    def centroid_frames(self) -> Tensor:
        """The centroids as stacked mel frames, [V * K, 2M]."""
        return self.centroids @ self.components + self.mean

    def save(self, directory: Path) -> None:
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, directory / ENCODER_FILE)


def load_codebook(directory: Path) -> CodeBook:
    """Return the codebook whose encoder lies in `directory`."""
    return CodeBook(**load_file(directory / ENCODER_FILE))


def fit_codebook(frames: Tensor, seed: int, codes: int = CODES_PER_VOICE) -> CodeBook:
    """Return the codebook of stacked mel frames [V, F, 2M], which are the same moments of a text in every voice.

    k-means runs over what all voices sound like at once, so that a code has its like in every other voice. The speaker
    then learns what is said once and not once a voice.
    """
    together = frames.transpose(0, 1).flatten(1)  # [F, V * 2M]
    mean = together.mean(0)
    reduced = together - mean
    # The distances are those of all bands, only faster to find.
    basis = _principal_components(reduced, len(frames) * COMPONENTS)
    reduced = reduced @ basis.T
    generator = torch.Generator().manual_seed(seed)
    centroids = reduced[torch.randperm(len(reduced), generator=generator)[:codes]].clone()
    for _ in range(KMEANS_ROUNDS):
        nearest = torch.cat([torch.cdist(part, centroids).argmin(1) for part in reduced.split(8192)])
        sums = torch.zeros_like(centroids).index_add_(0, nearest, reduced)
        counts = nearest.bincount(minlength=codes)[:, None]
        centroids = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
    of_voices = (centroids @ basis + mean).unflatten(1, (len(frames), -1)).transpose(0, 1).flatten(0, 1)  # [V * K, 2M]
    everything = frames.flatten(0, 1)
    mean = everything.mean(0)
    components = _principal_components(everything - mean, COMPONENTS)
    return CodeBook(mean, components, ((of_voices - mean) @ components.T).contiguous())


def _principal_components(centred: Tensor, count: int) -> Tensor:
    """Return the axes [count, M] along which rows [F, M] around zero vary most."""
    _, axes = torch.linalg.eigh(centred.T @ centred)
    return axes.flip(1).T[:count].contiguous()
