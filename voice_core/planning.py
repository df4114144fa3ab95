"""From a request's text to its plan: segments in order, each with the seconds it is to take. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from voice_core.errors import RequestError
from voice_core.text import Language, Reference, detect_language, estimate_seconds, normalise, parse_language
from voice_core.text import split as split_text

# A row can't end before 0.24 s (the model's earliest end); below that a target has no meaning.
SHORTEST_SEGMENT_SECONDS = 0.25

MOST_ATTEMPTS = 8  # at finding segments short enough to be spoken as slowly as asked


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
) -> Plan:
    """Return what is to be spoken of `text`.

    `longest_seconds` is the longest segment that the model can speak. Without `seconds` each segment takes its
    estimated duration divided by `speed`; with it, that is how long the whole takes, pauses of `pause_seconds` between
    the segments included, shared out by the estimates. The voice of a `reference` speaks at its own pace. Raises
    RequestError naming the field.
    """
    spoken_language = detect_language(text) if language is None else parse_language(language)
    spoken_text = normalise(text, spoken_language)
    if not spoken_text.strip():
        raise RequestError("input", "holds nothing to say")
    limit_seconds = longest_seconds * speed  # by the estimates, which speed or seconds then stretch
    for _ in range(MOST_ATTEMPTS if split else 1):
        texts = split_text(spoken_text, spoken_language, limit_seconds) if split else [spoken_text.strip()]
        estimates = [estimate_seconds(text, spoken_language, reference) for text in texts]
        stretch = 1 / speed if seconds is None else _stretch(estimates, seconds, pause_seconds)
        if max(estimates) * stretch <= longest_seconds:
            break
        # Spoken that slowly, sentences need smaller segments; and those need a little more time in all, for the
        # pauses that marks ask for inside a segment are gone.
        limit_seconds = min(0.9 * limit_seconds, longest_seconds / stretch)
    durations = [estimate * stretch for estimate in estimates]
    _check(durations, longest_seconds, "seconds" if seconds is not None else "segment" if not split else "input")
    return Plan(spoken_language, tuple(map(PlannedSegment, texts, durations)))


def _stretch(estimates: list[float], seconds: float, pause_seconds: float) -> float:
    """Return by what the estimates must be multiplied so that all segments and pauses take `seconds`."""
    pauses = pause_seconds * (len(estimates) - 1)
    if pauses >= seconds:
        raise RequestError("seconds", f"{seconds:g} s is no more than the {pauses:g} s of pauses in this text")
    return (seconds - pauses) / sum(estimates)


def _check(durations: list[float], longest_seconds: float, field: str) -> None:
    tolerance = 1e-6  # of rounding, where a segment fills its limit exactly
    if max(durations) > longest_seconds * (1 + tolerance):
        reason = (
            f"a segment would take {max(durations):.1f} s, this model speaks at most {longest_seconds:g} s in one go"
        )
        raise RequestError(field, reason)
    if min(durations) < SHORTEST_SEGMENT_SECONDS:
        reason = f"a segment would take {min(durations):.2f} s, the least is {SHORTEST_SEGMENT_SECONDS:g} s"
        raise RequestError("seconds" if field == "seconds" else "speed", reason)
