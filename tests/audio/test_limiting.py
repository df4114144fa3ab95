import numpy as np
import pytest

from voice_core.audio import limiting
from voice_core.audio.limiting import REACH_SECONDS, limit, reach_samples

RATE = 1000  # Hz
REACH = round(REACH_SECONDS * RATE)


def hum(height: float, samples: int = 1000) -> np.ndarray:
    return np.full(samples, height, dtype=np.float32)


def test_what_is_below_the_ceiling_is_left_alone() -> None:
    assert np.array_equal(limit(hum(0.8), RATE, 0.9), hum(0.8))
    assert not len(limit(hum(0.8, 0), RATE, 0.9))


def test_no_sample_is_above_the_ceiling_and_those_far_from_a_peak_are_as_they_were() -> None:
    samples = hum(0.5)
    samples[500] = 2.0
    limited = limit(samples, RATE, 0.9)
    assert limited.max() == pytest.approx(0.9)
    assert np.array_equal(limited[: 500 - 2 * REACH], samples[: 500 - 2 * REACH])
    assert np.array_equal(limited[501 + 2 * REACH :], samples[501 + 2 * REACH :])


def test_the_gain_sinks_and_rises_smoothly() -> None:
    samples = hum(0.5)
    samples[500] = 1.0
    gains = limit(samples, RATE, 0.5) / samples
    assert gains.min() == pytest.approx(0.5)
    assert np.abs(np.diff(gains)).max() <= 0.5 / (2 * REACH) + 1e-6


def test_noise_of_any_height_stays_below_the_ceiling() -> None:
    samples = np.random.default_rng(1).normal(0, 1, 20_000).astype(np.float32)
    assert np.abs(limit(samples, RATE, 0.7)).max() <= 0.7 + 1e-6


def test_parts_with_their_surroundings_are_limited_as_the_whole_is() -> None:
    samples = np.random.default_rng(1).normal(0, 0.5, 5000).astype(np.float32)
    whole, reach = limit(samples, RATE, 0.8), reach_samples(RATE)
    for start in range(0, 5000, 700):
        end = min(start + 700, 5000)
        before = max(0, start - reach)
        part = limit(samples[before : end + reach], RATE, 0.8)[start - before :][: end - start]
        assert part == pytest.approx(whole[start:end], abs=1e-6)


def test_a_long_sound_is_limited_as_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(1).normal(0, 0.5, 5000).astype(np.float32)
    whole = limit(samples, RATE, 0.8)
    monkeypatch.setattr(limiting, "PIECE_SECONDS", 0.7)
    assert limit(samples, RATE, 0.8) == pytest.approx(whole, abs=1e-6)
