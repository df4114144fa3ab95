"""English phonemes by dictionary and letters."""

import pytest

from voice_core.text.english import count_english_phonemes, said_as_word


@pytest.mark.parametrize(
    ("text", "phonemes"),
    [
        ("hello", 4),  # HH AH L OW
        ("Church", 3),  # CH ER CH
        ("strengths", 8),  # S T R EH NG K TH S
        ("don't", 4),
        ("don’t", 4),
        ("Stella's", 6),  # S T EH L AH, and Z
        ("Hello, church!", 7),
        ("", 0),
        ("... —", 0),
    ],
)
def test_known_words_count_as_the_dictionary_has_them(text: str, phonemes: int) -> None:
    assert count_english_phonemes(text) == phonemes


@pytest.mark.parametrize(
    ("text", "phonemes"),
    [
        ("blick", 4),  # B L IH K
        ("flimmed", 5),  # F L IH M D
        ("zorpshate", 7),  # Z AO R P SH EY T
        ("quoxel", 7),  # K W AA K S AH L
    ],
)
def test_unknown_words_count_by_their_spelling(text: str, phonemes: int) -> None:
    assert count_english_phonemes(text) == phonemes


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("7", "seven"),
        ("42", "forty two"),
        ("100", "one hundred"),
        ("1,234", "one thousand two hundred thirty four"),
        ("3.14", "three point one four"),
        ("2000000", "two million"),
        ("007", "seven"),
        ("0", "zero"),
        ("1234567890123456", "one two three four five six seven eight nine zero one two three four five six"),
        ("50%", "fifty percent"),
        ("R&D", "r and d"),
        ("XKCD", "x k c d"),
        ("wwww", "w w w w"),
        ("naïve café", "naive cafe"),
        ("ＡＢＣ", "ABC"),
    ],
)
def test_what_is_written_counts_as_it_is_said(written: str, said: str) -> None:
    assert count_english_phonemes(written) == count_english_phonemes(said)


@pytest.mark.parametrize(("text", "phonemes"), [("日本", 4), ("мир", 3), ("x²", 3), ("½ ① ²", 0)])
def test_foreign_letters_and_odd_numbers_do_no_harm(text: str, phonemes: int) -> None:
    assert count_english_phonemes(text) == phonemes


def test_many_endings_are_no_depth() -> None:
    assert count_english_phonemes("cat" + "'s" * 3000) == count_english_phonemes("cat") + 3000


@pytest.mark.parametrize(("letters", "as_word"), [("NOTE", True), ("HTML", False), ("XKCD", None)])
def test_the_dictionary_tells_words_from_what_is_spelled(letters: str, as_word: bool | None) -> None:
    assert said_as_word(letters) is as_word
