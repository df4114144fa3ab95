"""How far two sounds are apart to the ear's rough measure; what the codec learns by, and what is told of it.

Letters in shape comments: B sounds, N samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.features import mel_bank

RESOLUTIONS = {256: 16, 512: 32, 1024: 64, 2048: 80}  # STFT window in samples: mel bands
COMPARED_RESOLUTION = 1024  # whose log-mel distance is told
CONVERGENCE_WEIGHT = 0.5
MEL_FLOOR = 1e-3


class SpectralLoss(nn.Module):
    """How far two sounds are apart in log-mel and in magnitude, at several resolutions."""

    def __init__(self) -> None:
        super().__init__()
        for window, bands in RESOLUTIONS.items():
            self.register_buffer(f"bank{window}", mel_bank(window, bands), persistent=False)
            self.register_buffer(f"window{window}", torch.hann_window(window), persistent=False)

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        """Return the loss of sounds [B, N]."""
        total = torch.zeros((), device=made.device)
        for window in RESOLUTIONS:
            (made_mel, made_spectrum), (true_mel, true_spectrum) = self._views(made, window), self._views(true, window)
            norm = true_spectrum.norm().clamp(min=MEL_FLOOR)
            convergence = (true_spectrum - made_spectrum).norm() / norm
            total = total + (made_mel - true_mel).abs().mean() + CONVERGENCE_WEIGHT * convergence
        return total

    def mel_distance(self, made: Tensor, true: Tensor) -> Tensor:
        """Return the mean difference of the log-mel bands, the usual measure of a codec."""
        made_mel, true_mel = (self._views(sound, COMPARED_RESOLUTION)[0] for sound in (made, true))
        return (made_mel - true_mel).abs().mean()

    def _views(self, sounds: Tensor, window: int) -> tuple[Tensor, Tensor]:
        taper: Tensor = getattr(self, f"window{window}")
        bank: Tensor = getattr(self, f"bank{window}")
        spectrum = torch.stft(sounds, window, window // 4, window=taper, return_complex=True).abs()
        return torch.log(bank @ spectrum + MEL_FLOOR), spectrum
