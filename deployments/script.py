"""Turns a request into its script: which segments are spoken, for how long, with which seeds."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from deployments.speech_request import SpeechRequest
from voice_core.planning import plan
from voice_core.seeds import sample_seeds
from voice_core.speech import MAX_SEED, ModelFacts, Segment, VoicePrompt
from voice_core.text import Reference, detect_language, normalise, parse_language


@dataclass(frozen=True)
class Script:
    """The segments of one request in reading order; each is spoken once for every seed."""

    segments: tuple[Segment, ...]
    seeds: tuple[int, ...]  # one for each sample; each reproduces its sample alone, with n = 1


def write_script(wanted: SpeechRequest, facts: ModelFacts, prompt: VoicePrompt | None = None) -> Script:
    """Plan the text in the voice of the prompt. Takes up to a second for a long one, so it isn't for an event loop."""
    reference = None
    if prompt is not None:
        language = parse_language(prompt.language) if prompt.language else detect_language(prompt.transcript)
        prompt = replace(prompt, transcript=normalise(prompt.transcript, language, facts.text_normaliser))
        reference = Reference(len(prompt.codes) / facts.frames_per_second, prompt.transcript, language)
    planned = plan(
        wanted.input,
        longest_seconds=facts.longest_seconds,
        language=wanted.language,
        seconds=wanted.seconds,
        speed=wanted.speed,
        pause_seconds=wanted.inter_segment_silence,
        split=wanted.segment,
        reference=reference,
        text_normaliser=facts.text_normaliser,
        alphabet=facts.alphabet,
    )
    seed = secrets.randbelow(MAX_SEED + 1) if wanted.seed is None else wanted.seed
    seeds = sample_seeds(seed, wanted.n)
    request = secrets.token_hex(8)
    segments = tuple(
        Segment(piece.text, piece.seconds, index, seeds, wanted.sampling, prompt, request)
        for index, piece in enumerate(planned.segments)
    )
    return Script(segments, seeds)
