"""Noise that belongs to a row: one uniform number for each (seed, segment, step), whatever else is being spoken.

A counter-based generator: the number is a hash of its coordinates, so nothing has to be remembered between steps and
neither neighbours nor order of admission can change it. The hash is the finalizer of SplitMix64 (Steele, Lea, Flood:
"Fast splittable pseudorandom number generators", OOPSLA 2014), computed in wrapping 64-bit integers.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, the increment of SplitMix64
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)


def row_key(seed: int, segment_index: int) -> int:
    """Return the key of a row's noise as a signed 64-bit integer."""
    return _signed(_mix(_mix(seed & _MASK) + segment_index * _GOLDEN & _MASK))


def derived_seed(seed: int, index: int, below: int) -> int:
    """Return another seed in 0..below-1 that follows from `seed`; index 0 is the seed itself."""
    return seed if index == 0 else (row_key(seed, -index) & _MASK) % below


def uniform(keys: Tensor, steps: Tensor) -> Tensor:
    """Return float64 numbers in [0, 1), [B], for int64 row keys and step counts [B]."""
    x = keys + (steps + 1) * _signed(_GOLDEN)
    for shift, factor in zip(_SHIFTS, (*_FACTORS, 1), strict=True):
        x = (x ^ _logical_shift(x, shift)) * _signed(factor)
    return _logical_shift(x, 11).to(torch.float64) * 2.0**-53


def _logical_shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # >> alone would copy the sign


def _mix(x: int) -> int:
    for shift, factor in zip(_SHIFTS, (*_FACTORS, 1), strict=True):
        x = (x ^ (x >> shift)) * factor & _MASK
    return x


def _signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x
