"""Counts the phonemes of a text, the measure of how long it takes to say."""

from __future__ import annotations

from functools import lru_cache

from voice_core.text.english import count_english_phonemes
from voice_core.text.language import Language

_PAUSES = frozenset({"pau", "sil"})
_OPEN_JTALK_CHARACTERS = 4000  # it refuses inputs from about 8000 on
_REMEMBERED_TEXTS = 4096  # a segment is counted when it is cut and again when its time is planned


@lru_cache(maxsize=_REMEMBERED_TEXTS)
def count_phonemes(text: str, language: Language) -> int:
    """Return the phonemes of a text; of Chinese the syllables, of languages without rules the characters.

    The first text of a language loads its dictionary, which takes up to a second.
    """
    match language:
        case Language.JAPANESE:
            return _count_japanese(text)
        case Language.CHINESE:
            return _count_chinese(text)
        case Language.ENGLISH:
            return count_english_phonemes(text)
        case Language.OTHER:
            return max(1, len(text))


def _count_japanese(text: str) -> int:
    from pyopenjtalk import g2p  # here: half a second that only Japanese pays; it locks its own state

    parts = (text[at : at + _OPEN_JTALK_CHARACTERS] for at in range(0, len(text), _OPEN_JTALK_CHARACTERS))
    return sum(phoneme not in _PAUSES for part in parts for phoneme in g2p(part, join=False))


def _count_chinese(text: str) -> int:
    """Count hanzi, and one for each stretch between them that has a Latin letter, as the reference does."""
    from pypinyin import lazy_pinyin  # here: its dictionaries are large

    return sum(any(character.isascii() and character.isalpha() for character in item) for item in lazy_pinyin(text))
