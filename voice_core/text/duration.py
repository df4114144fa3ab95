"""Estimates how long a text takes to say; the model speaks at the pace that the estimate sets.

All figures are the reference implementation's, except that an ellipsis written as three dots counts once and
not also as three full stops.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from voice_core.text.language import Language, detect_language
from voice_core.text.phonemes import count_phonemes

SHORTEST_SECONDS = 0.5
LONGEST_SECONDS = 120.0


class Pace(NamedTuple):
    """Seconds per phoneme: what is usual, and the bounds of what is believed of a recording."""

    usual: float
    fastest: float
    slowest: float


PACES = {
    Language.ENGLISH: Pace(usual=0.085, fastest=0.06, slowest=0.12),
    Language.JAPANESE: Pace(usual=0.10, fastest=0.07, slowest=0.15),
    Language.CHINESE: Pace(usual=0.27, fastest=0.18, slowest=0.36),
    Language.OTHER: Pace(usual=0.11, fastest=0.07, slowest=0.18),
}
FASTEST_SECONDS_PER_PHONEME = min(pace.fastest for pace in PACES.values())

_PAUSES_SECONDS = (
    (re.compile(r"[.!?。！？]"), 0.40),
    (re.compile(r"[、，,;；:：]"), 0.20),
    (re.compile(r"…"), 1.0),
    (re.compile(r"—|--"), 0.12),
)
_LONGEST_PAUSES_SECONDS = 10.0
_PAUSES_SCALE_OF_REFERENCE = 0.3  # most of a recording's pauses are already in its seconds per phoneme


@dataclass(frozen=True)
class Reference:
    """A recording of the voice to imitate, as far as its pace goes."""

    seconds: float
    transcript: str  # empty if unknown: the recording is then taken to say the text itself
    language: Language | None = None  # of the transcript; detected if None


def estimate_seconds(text: str, language: Language, reference: Reference | None = None) -> float:
    """Return how long the text takes to say, at the pace of the recording if there is one; 0.5 to 120 s."""
    sounds, pauses = sounds_and_pauses_seconds(text, language, reference)
    return min(max(sounds + pauses, SHORTEST_SECONDS), LONGEST_SECONDS)


def sounds_and_pauses_seconds(text: str, language: Language, reference: Reference | None = None) -> tuple[float, float]:
    """Return how long the words take to say, and how long the pauses between them; neither is bounded."""
    phonemes = _count_at_least_one(text, language)
    if reference is None:
        return phonemes * PACES[language].usual, pauses_seconds(text)
    pace = _seconds_per_phoneme(reference, text, language)
    return phonemes * pace, pauses_seconds(text) * _PAUSES_SCALE_OF_REFERENCE


def pauses_seconds(text: str) -> float:
    """Return the pauses that the marks ask for; the one that ends the speech asks for none."""
    marked = text.rstrip().replace("...", "…")
    if marked.endswith((".", "!", "?", "。", "！", "？")):
        marked = marked[:-1]
    seconds = sum(len(mark.findall(marked)) * pause_seconds for mark, pause_seconds in _PAUSES_SECONDS)
    return min(seconds, _LONGEST_PAUSES_SECONDS)


def _seconds_per_phoneme(reference: Reference, text: str, language: Language) -> float:
    if reference.transcript:
        spoken = reference.transcript
        spoken_language = reference.language or detect_language(spoken)
    else:
        spoken, spoken_language = text, reference.language or language
    pace = PACES[spoken_language]
    measured = reference.seconds / _count_at_least_one(spoken, spoken_language)
    return min(max(measured, pace.fastest), pace.slowest)


def _count_at_least_one(text: str, language: Language) -> int:
    return max(1, count_phonemes(text, language))
