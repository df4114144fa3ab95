"""From a request's text to its plan: segments in order, each with the seconds it is to take. No torch here."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass

from voice_core.errors import RequestError
from voice_core.text import (
    SHORTEST_SECONDS,
    Language,
    Reference,
    detect_language,
    normalise,
    parse_language,
    sounds_and_pauses_seconds,
)
from voice_core.text import split as split_text

# A row can't end before 0.24 s (the model's earliest end); below that a target has no meaning.
SHORTEST_SEGMENT_SECONDS = 0.25

MOST_ATTEMPTS = 8  # at finding segments short enough to be spoken as slowly as asked
FINEST_SEGMENT_SECONDS = SHORTEST_SECONDS  # at its usual pace; about a word
ROUNDING = 1 + 1e-6  # where a segment fills its limit exactly

# What must not vanish from a speech: letters, numbers, money, mathematics. Emoji, arrows, ornaments and marks have no
# sound.
_SPOKEN_CATEGORIES = ("L", "N", "Sc", "Sm")
_ARROWS = ("\u2190", "\u21ff")  # some are mathematics to Unicode
_NAMED_CHARACTERS = 5


@dataclass(frozen=True)
class PlannedSegment:
    """A stretch of normalised text and how long it is to take."""

    text: str
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The segments of a request in reading order, at least one."""

    language: Language
    segments: tuple[PlannedSegment, ...]


def plan(
    text: str,
    *,
    longest_seconds: float,
    language: str | None = None,
    seconds: float | None = None,
    speed: float = 1.0,
    pause_seconds: float = 0.0,
    split: bool = True,
    reference: Reference | None = None,
    text_normaliser: str | None = None,
    alphabet: str | None = None,
    nearest: bool = False,
) -> Plan:
    """Return what is to be spoken of `text`.

    `longest_seconds` is the longest segment that the model can speak. Without `seconds` each segment takes its
    estimated duration divided by `speed`, as far as the model can; with it, that is how long the whole takes, pauses of
    `pause_seconds` between the segments included, shared out by the estimates. The voice of a `reference` speaks at its
    own pace. `text_normaliser` and `alphabet` are those of the model's facts. Seconds that the text can't be stretched
    or pressed to are refused; with `nearest`, the nearest that it can are taken. Raises RequestError naming the field.
    """
    spoken_language = detect_language(text) if language is None else parse_language(language)
    spoken_text = normalise(text, spoken_language, text_normaliser)
    if not spoken_text.strip():
        raise RequestError("input", "holds nothing to say")
    if alphabet is not None:
        _check_readable(spoken_text, alphabet)
        spoken_text = spoken_text if split else " ".join(spoken_text.split())  # letters know no line breaks
    limit_seconds = longest_seconds * speed  # by the estimates, which speed or seconds then stretch
    finest_seconds = min(FINEST_SEGMENT_SECONDS, limit_seconds)
    for attempts_left in reversed(range(MOST_ATTEMPTS if split else 1)):
        texts = [spoken_text.strip()]
        if split:
            # Only what is too long for the model is cut within words, never what is to be spoken slowly.
            longest_word_seconds = longest_seconds * max(1.0, speed)
            texts = split_text(
                spoken_text, spoken_language, limit_seconds, reference, longest_word_seconds=longest_word_seconds
            )
        estimates = [_estimate(text, spoken_language, reference, limit_seconds) for text in texts]
        stretch = 1 / speed if seconds is None else _stretch(estimates, seconds, pause_seconds)
        if max(estimates) * stretch <= longest_seconds * ROUNDING or limit_seconds == finest_seconds:
            break
        # Spoken that slowly, sentences need smaller segments; and those need a little more time in all, for the
        # pauses that marks ask for inside a segment are gone.
        limit_seconds = max(finest_seconds, min(0.9 * limit_seconds, longest_seconds / stretch))
        if attempts_left == 1:
            limit_seconds = finest_seconds
    if seconds is None:
        # A word that is to be spoken slower than the model can is spoken as slowly as it can.
        least_stretch = min(1.0, stretch) if split else stretch
        _check_length(max(estimates) * least_stretch, longest_seconds, "input" if split else "segment")
    elif not nearest:
        _check_seconds(seconds, estimates, longest_seconds, pause_seconds)
    durations = [
        # Rounded: 3.9 s that arithmetic makes 3.8999999999999995 s would be a frame less.
        min(max(round(estimate * stretch, 6), SHORTEST_SEGMENT_SECONDS), longest_seconds)
        for estimate in estimates
    ]
    return Plan(spoken_language, tuple(map(PlannedSegment, texts, durations)))


def _check_readable(text: str, alphabet: str) -> None:
    """Refuse a text with letters, numbers or signs of money or mathematics that the voice would leave out."""
    unknown = dict.fromkeys(text)
    for character in alphabet:
        unknown.pop(character, None)
    unreadable = [sign for sign in unknown if _has_sound(sign)]
    if unreadable:
        named = ", ".join(map(repr, unreadable[:_NAMED_CHARACTERS]))
        more = f" and {len(unreadable) - _NAMED_CHARACTERS} more" if len(unreadable) > _NAMED_CHARACTERS else ""
        raise RequestError("input", f"this voice can't read {named}{more}; it would leave them out")


def _has_sound(sign: str) -> bool:
    first, last = _ARROWS
    return unicodedata.category(sign).startswith(_SPOKEN_CATEGORIES) and not first <= sign <= last


def _estimate(text: str, language: Language, reference: Reference | None, limit_seconds: float) -> float:
    """Return how long a segment takes; pauses give way where they alone would make it too long ("No!!!!!!!!")."""
    sounds, pauses = sounds_and_pauses_seconds(text, language, reference)
    return max(sounds + min(pauses, max(0.0, limit_seconds - sounds)), SHORTEST_SECONDS)


def _stretch(estimates: list[float], seconds: float, pause_seconds: float) -> float:
    """Return by what the estimates must be multiplied so that all segments and pauses take `seconds`."""
    pauses = pause_seconds * (len(estimates) - 1)
    if pauses >= seconds:
        raise RequestError("seconds", f"{seconds:g} s is no more than the {pauses:g} s of pauses in this text")
    return (seconds - pauses) / sum(estimates)


def _check_length(segment_seconds: float, longest_seconds: float, field: str) -> None:
    if segment_seconds > longest_seconds * ROUNDING:
        reason = (
            f"a segment would take {segment_seconds:.1f} s, this model speaks at most {longest_seconds:g} s in one go"
        )
        raise RequestError(field, reason)


def _check_seconds(seconds: float, estimates: list[float], longest_seconds: float, pause_seconds: float) -> None:
    """Refuse what none of these segments, the finest there are, could be stretched or pressed to."""
    pauses = pause_seconds * (len(estimates) - 1)
    most = sum(estimates) * longest_seconds / max(estimates) + pauses
    if seconds > most * ROUNDING:
        reason = f"{seconds:g} s is more than this text can be drawn out to, at most {math.floor(most * 10) / 10:g} s"
        raise RequestError("seconds", reason)
    least = sum(estimates) * SHORTEST_SEGMENT_SECONDS / min(estimates) + pauses
    if seconds * ROUNDING < least:
        reason = f"{seconds:g} s is too short for this text, at least {math.ceil(least * 10) / 10:g} s"
        raise RequestError("seconds", reason)
