"""A sound: samples and their rate.

Letters in shape comments: N samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voice_core.errors import SynthesisError


@dataclass(frozen=True, eq=False)
class Waveform:
    """A mono sound. Its samples may be read-only (shared memory): nobody writes into them.

    Raises ValueError if the samples aren't [N] float32, and SynthesisError if one of them isn't a finite
    number.
    """

    samples: NDArray[np.float32]  # [N] about -1..1
    sample_rate: int  # Hz

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32:
            raise ValueError(f"samples: must be [N] float32, not {list(self.samples.shape)} {self.samples.dtype}")
        if self.sample_rate <= 0:
            raise ValueError(f"sample_rate: {self.sample_rate} Hz is no rate")
        broken = np.count_nonzero(~np.isfinite(self.samples))
        if broken:
            raise SynthesisError(f"{broken} of {len(self.samples)} samples aren't finite numbers")

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate

    @property
    def peak(self) -> float:
        """The largest magnitude, 0 without samples."""
        return float(np.abs(self.samples).max(initial=0.0))
