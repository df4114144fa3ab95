"""The judge: how errors are counted, and that the shipped one hears."""

import numpy as np
import pytest

from training.recogniser import ErrorCount, Recogniser, edit_distance, load_recogniser


@pytest.mark.parametrize(
    ("heard", "expected", "errors"),
    [([], [], 0), ([1, 2, 3], [1, 2, 3], 0), ([1, 3], [1, 2, 3], 1), ([1, 9, 3, 4], [1, 2, 3], 2), ([], [5, 5], 2)],
)
def test_errors_are_insertions_deletions_and_substitutions(heard: list[int], expected: list[int], errors: int) -> None:
    assert edit_distance(heard, expected) == errors


class Parrot(Recogniser):
    """Hears `ab`, whatever is said."""

    def hear(self, samples: np.ndarray) -> list[int]:
        return self.phoneme_ids("ab")


def test_the_rate_is_errors_to_expected_phonemes() -> None:
    count = ErrorCount(Parrot(["a", "b"]))
    assert count.add(np.zeros(1, np.float32), "ab") == 0
    assert count.add(np.zeros(1, np.float32), "aab!") == 1  # a mark that isn't a phoneme doesn't count
    assert count.rate == pytest.approx(1 / 5)


def test_the_shipped_recogniser_hears_nothing_in_silence() -> None:
    recogniser = load_recogniser()
    assert {"ə", "t", "i"} <= set(recogniser.phonemes)
    assert recogniser.hear(np.zeros(16_000, np.float32)) == []
