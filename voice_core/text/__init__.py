"""From a request's text to the segments that are spoken: language, spelling, length and places to cut."""

from voice_core.text.duration import (
    SHORTEST_SECONDS,
    Reference,
    estimate_seconds,
    sounds_and_pauses_seconds,
)
from voice_core.text.language import BCP_47, Language, detect_language, parse_language
from voice_core.text.normalisation import normalise, signs_left_out
from voice_core.text.phonemes import count_phonemes
from voice_core.text.segmentation import complete_length, has_words, split

__all__ = [
    "BCP_47",
    "SHORTEST_SECONDS",
    "Language",
    "Reference",
    "complete_length",
    "count_phonemes",
    "detect_language",
    "estimate_seconds",
    "has_words",
    "normalise",
    "parse_language",
    "signs_left_out",
    "sounds_and_pauses_seconds",
    "split",
]
