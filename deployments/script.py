"""Turns a request into its script: which segments are spoken, for how long, with which seeds."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from deployments.speech_request import SpeechRequest
from voice_core.planning import plan, sample_seeds
from voice_core.speech import MAX_SEED, ModelFacts, Segment


@dataclass(frozen=True)
class Script:
    """The segments of one request in reading order; each is spoken once for every seed."""

    segments: tuple[Segment, ...]
    seeds: tuple[int, ...]  # one for each sample; each reproduces its sample alone, with n = 1


def write_script(wanted: SpeechRequest, facts: ModelFacts) -> Script:
    """Plan the text. Takes up to a second for a long one, so it isn't for an event loop."""
    planned = plan(
        wanted.input,
        language=wanted.language,
        seconds=wanted.seconds,
        split=wanted.segment,
        longest_seconds=facts.longest_seconds * wanted.speed,  # in estimated time, before speed divides it
    )
    seed = secrets.randbelow(MAX_SEED + 1) if wanted.seed is None else wanted.seed
    seeds = sample_seeds(seed, wanted.n)
    segments = tuple(
        Segment(
            text=piece.text,
            seconds=piece.seconds / wanted.speed,
            index=index,
            seeds=seeds,
            sampling=wanted.sampling,
        )
        for index, piece in enumerate(planned.segments)
    )
    return Script(segments, seeds)
