"""The lost end of a speech is told from sounds that are missing or wrong elsewhere."""

import pytest

from training import choose
from training.choose import LONGEST_LOST_END, development_texts, lost_phonemes

EXPECTED = [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_is_missing_at_the_end_is_counted() -> None:
    assert lost_phonemes(EXPECTED, EXPECTED) == 0
    assert lost_phonemes(EXPECTED[:5], EXPECTED) == 3


def test_errors_elsewhere_are_no_lost_end() -> None:
    assert lost_phonemes([1, 2, 9, 5, 6, 7, 8], EXPECTED) == 0
    assert lost_phonemes([*EXPECTED, 9, 9], EXPECTED) == 0


def test_an_error_before_a_lost_end_hides_nothing_of_it() -> None:
    assert lost_phonemes([1, 9, 3, 4, 5], EXPECTED) == 3


def test_silence_has_lost_all_that_is_looked_at() -> None:
    assert lost_phonemes([], EXPECTED) == len(EXPECTED) - 1
    assert lost_phonemes([], list(range(1, 100))) == LONGEST_LOST_END - 1


def test_texts_that_were_learned_are_none_of_development(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [f"this is text number {number} of ten." for number in range(10)]
    monkeypatch.setattr(choose, "read_wordnet", lambda: None)
    monkeypatch.setattr(choose, "texts", lambda _wordnet, _seed: iter(drawn))
    assert development_texts(2, {drawn[0], drawn[2]}) == [drawn[1], drawn[3]]
