"""Noise that belongs to a row: one uniform number for each (seed, segment, step), whatever else is being spoken.

A counter-based generator: the number is a hash of its coordinates, so nothing has to be remembered between steps and
neither neighbours nor order of admission can change it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from voice_core.seeds import GOLDEN, SHIFTS_AND_FACTORS, signed


def uniform(keys: Tensor, steps: Tensor) -> Tensor:
    """Return float64 numbers in [0, 1), [B], for int64 row keys (see seeds.row_key) and step counts [B].

    Integer arithmetic on tensors wraps at 64 bits, which is what the hash wants.
    """
    x = keys + (steps + 1) * signed(GOLDEN)
    for shift, factor in SHIFTS_AND_FACTORS:
        x = (x ^ _logical_shift(x, shift)) * signed(factor)
    return _logical_shift(x, 11).to(torch.float64) * 2.0**-53


def _logical_shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # >> alone would copy the sign
