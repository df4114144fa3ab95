"""Finds what of a request has no effect: it is taken, and told in `warnings`. What would mislead is refused instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from deployments.speech_request import SpeechRequest
from deployments.spoken_request import SpokenRequest
from voice_core.planning import SHORTEST_SEGMENT_SECONDS
from voice_core.speech import ENGLISH_WORDS, LEAST_TEMPERATURE, ModelFacts, Segment
from voice_core.text import Language, parse_language, signs_left_out


def ignored_by_model(wanted: SpeechRequest, facts: ModelFacts, *, rows_are_told: bool = False) -> Iterator[str]:
    """Yield a sentence for everything that changes nothing, whatever the text.

    `rows_are_told`: the answer has every segment's row of the manifest, asked for or not.
    """
    yield from ignored_sampling(wanted)
    told = rows_are_told or wanted.manifest or wanted.stream_format == "sse"
    if wanted.seconds_tolerance is not None and wanted.on_bad_segment == "keep" and wanted.best_of == 1 and not told:
        yield "seconds_tolerance: on_bad_segment 'keep' only tells of it, and the manifest isn't asked for"
    if wanted.language is not None and facts.text_normaliser == ENGLISH_WORDS:
        language = parse_language(wanted.language)
        if language is not Language.ENGLISH:
            yield f"language: this voice reads English; {wanted.language} only changes lengths and pauses"


def ignored_sampling(wanted: SpokenRequest) -> Iterator[str]:
    """Yield a sentence for everything that has no part in how codes are drawn."""
    if wanted.sampling.greedy:
        cold = wanted.temperature < LEAST_TEMPERATURE
        cause = "temperature 0" if cold else "top_k 1"
        others = ("top_k", "top_p", "min_p") if cold else ("temperature", "top_p")
        yield from _without_effect(wanted, others, f"{cause} is greedy")
        for field in ("n", "best_of"):
            if getattr(wanted, field, 1) > 1:
                yield f"{field}: all are the same, since {cause} is greedy"
    elif wanted.min_p:
        yield from _without_effect(wanted, ("top_k", "top_p"), "min_p replaces it")


def ignored_in_text(wanted: SpeechRequest, segments: Sequence[Segment]) -> Iterator[str]:
    """Yield a sentence for everything that changes nothing in this text."""
    if len(segments) == 1:
        yield from _without_effect(wanted, ("inter_segment_silence",), "there is one segment")
    shortest = sum(segment.seconds <= SHORTEST_SEGMENT_SECONDS for segment in segments)
    if wanted.speed > 1 and shortest:
        yield f"speed: {shortest} of {len(segments)} segments can't be shorter than {SHORTEST_SEGMENT_SECONDS:g} s"


def left_out(text: str, language: Language, facts: ModelFacts) -> Iterator[str]:
    """Yield a sentence about signs that mean something, and that the spelling of the model's training leaves out."""
    if language is Language.JAPANESE and facts.text_normaliser is None and (signs := signs_left_out(text)):
        told = ", ".join(f"U+{ord(sign):04X}" for sign in signs)  # a header holds no such signs
        yield f"input: Japanese is read without {told}, as the model was trained; write in words what they mean"


def _without_effect(wanted: SpokenRequest, fields: Iterable[str], reason: str) -> Iterator[str]:
    """Only what somebody asked for is told: a default that has no effect surprises nobody."""
    for field in fields:
        if getattr(wanted, field) != type(wanted).model_fields[field].default:
            yield f"{field}: has no effect, {reason}"
