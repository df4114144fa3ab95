"""Seeds: numbers that follow from a seed, the same on every machine. No torch here.

The hash is the finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
OOPSLA 2014). `voice_core.decoding.noise` computes the same on tensors.
"""

from __future__ import annotations

from voice_core.speech import MAX_SEED

MASK = 2**64 - 1
# Where the seeds of one kind begin to be counted, so that no two kinds share a seed.
SAMPLES, CANDIDATES, RETRIES = 0, 1 << 20, 1 << 21
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, the increment of SplitMix64
SHIFTS_AND_FACTORS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


def row_key(seed: int, segment_index: int) -> int:
    """Return the key of a row's noise, a signed 64-bit integer, from the seed of its sample and its segment."""
    return signed(_mix(_mix(seed & MASK) + segment_index * GOLDEN & MASK))


def sample_seeds(seed: int, count: int) -> tuple[int, ...]:
    """Return the seeds of `count` samples of one request; the first is `seed` itself.

    Each is a seed of its own: asked for alone, with n = 1, it gives its sample again.
    """
    return (seed, *(_derived(seed, SAMPLES + index) for index in range(1, count)))


def candidate_seeds(seed: int, count: int) -> tuple[int, ...]:
    """Return the seeds of `count` candidates for one sample of a segment; the first is `seed` itself."""
    return (seed, *(_derived(seed, CANDIDATES + index) for index in range(1, count)))


def retry_seed(seed: int, attempt: int) -> int:
    """Return the seed with which a segment is spoken again; attempt 0 is the first one, with `seed` itself."""
    return seed if attempt == 0 else _derived(seed, RETRIES + attempt)


def _derived(seed: int, number: int) -> int:
    return (row_key(seed, -number) & MASK) % (MAX_SEED + 1)


def signed(x: int) -> int:
    """Return the 64-bit pattern of x as a signed integer, the form in which torch takes it."""
    return x - 2**64 if x >= 2**63 else x


def _mix(x: int) -> int:
    for shift, factor in SHIFTS_AND_FACTORS:
        x = (x ^ (x >> shift)) * factor & MASK
    return x
