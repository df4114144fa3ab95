"""Turns a request into its script: which segments are spoken, for how long, with which seeds."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace

from deployments.ignored import ignored_by_model, ignored_in_text, left_out
from deployments.speaking import LEAST_WORK_SECONDS, work_seconds
from deployments.speech_request import SpeechRequest
from deployments.visit import current_visit
from voice_core.errors import RequestError
from voice_core.planning import plan
from voice_core.seeds import sample_seeds
from voice_core.speech import MAX_SEED, ModelFacts, Segment, VoicePrompt
from voice_core.text import Language, Reference, detect_language, normalise, parse_language


@dataclass(frozen=True)
class Script:
    """The segments of one request in reading order; each is spoken once for every seed."""

    segments: tuple[Segment, ...]
    seeds: tuple[int, ...]  # one for each sample; each reproduces its sample alone, with n = 1
    language: Language
    pause_seconds: float  # between segments
    candidates: int = 1  # that every sample of a segment is chosen from
    warnings: tuple[str, ...] = ()  # what of the request has no effect, and why

    @property
    def rows_of_each(self) -> int:
        """Return how many rows of the decoder a segment takes."""
        return len(self.seeds) * self.candidates

    @property
    def rows(self) -> int:
        return len(self.segments) * self.rows_of_each

    @property
    def seconds(self) -> float:
        """Return how long one sample takes, pauses included."""
        return sum(segment.seconds for segment in self.segments) + self.pause_seconds * (len(self.segments) - 1)

    @property
    def work_seconds(self) -> float:
        """Seconds of speech in all rows; the smallest segment costs as much as one of a second."""
        return sum(map(work_seconds, self.segments)) * self.rows_of_each


@dataclass(frozen=True)
class Reading:
    """How a voice reads: what the decoder imitates, and the pace that it sets. None, both: the model's own."""

    prompt: VoicePrompt | None = None
    reference: Reference | None = None


def reading_of(prompt: VoicePrompt | None, facts: ModelFacts) -> Reading:
    if prompt is None:
        return Reading()
    language = parse_language(prompt.language) if prompt.language else detect_language(prompt.transcript)
    prompt = replace(prompt, transcript=normalise(prompt.transcript, language, facts.text_normaliser))
    seconds = len(prompt.codes) / facts.frames_per_second
    return Reading(prompt, Reference(seconds, prompt.transcript, language))


def write_script(wanted: SpeechRequest, facts: ModelFacts, prompt: VoicePrompt | None = None) -> Script:
    """Plan the text in the voice of the prompt. Takes up to a second for a long one, so it isn't for an event loop."""
    reading = reading_of(prompt, facts)
    planned = plan(
        wanted.input,
        longest_seconds=facts.longest_seconds,
        language=wanted.language,
        seconds=wanted.seconds,
        speed=wanted.speed,
        pause_seconds=wanted.inter_segment_silence,
        split=wanted.segment,
        reference=reading.reference,
        text_normaliser=facts.text_normaliser,
        alphabet=facts.alphabet,
    )
    seed = secrets.randbelow(MAX_SEED + 1) if wanted.seed is None else wanted.seed
    seeds = sample_seeds(seed, wanted.n)
    request = current_visit().new_group()
    segments = tuple(
        Segment(piece.text, piece.seconds, index, seeds, wanted.sampling, reading.prompt, request)
        for index, piece in enumerate(planned.segments)
    )
    warnings = (
        *ignored_by_model(wanted, facts),
        *ignored_in_text(wanted, segments),
        *left_out(wanted.input, planned.language, facts),
    )
    return Script(segments, seeds, planned.language, wanted.inter_segment_silence, wanted.best_of, warnings)


async def written(
    wanted: SpeechRequest, facts: ModelFacts, prompt: VoicePrompt | None, longest_speech_seconds: float
) -> Script:
    """Return the script of a request that isn't too much work; RequestError for one that is."""
    script = await asyncio.to_thread(write_script, wanted, facts, prompt)
    check_work(wanted, script, longest_speech_seconds)
    return script


def check_work(wanted: SpeechRequest, script: Script, longest_speech_seconds: float) -> None:
    """Refuse a request that asks for more speech than one may, by the field that makes it so much."""
    if script.work_seconds <= longest_speech_seconds:
        return
    once_seconds = script.work_seconds / script.rows_of_each
    many_field = "n" if wanted.n >= wanted.best_of else "best_of"
    text_field = "input" if wanted.seconds is None else "seconds"
    field = many_field if once_seconds <= longest_speech_seconds else text_field
    least = f", each counted as {LEAST_WORK_SECONDS:g} s at least"
    times = f"n = {wanted.n}" + (f" and best_of = {wanted.best_of}" if wanted.best_of > 1 else "")
    reason = (
        f"{len(script.segments)} segments of {once_seconds:.0f} s in all{least}, with {times}; "
        f"at most {longest_speech_seconds:g} s are spoken for one request"
    )
    raise RequestError(field, reason)
