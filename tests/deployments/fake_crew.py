"""A crew that speaks without a model: what the HTTP interface is tested with."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from deployments.composer import Composed, compose
from deployments.fleet import Running
from voice_core.audio.formats import encode
from voice_core.errors import RequestError
from voice_core.speech import FinishReason, LearnedReference, ModelFacts, ReferenceLimits, Segment, Speech
from voice_core.voices.reference import content_hash, read_reference

FACTS = ModelFacts(
    model_id="fake",
    sample_rate=16000,
    frames_per_second=50.0,
    longest_seconds=20.0,
    checkpoint_longest_seconds=20.0,
    device="cpu",
    max_rows=16,
    code_fingerprint="codec",
    model_fingerprint="model",
    load_seconds=1.0,
)


class Reply:
    """A pending reply: a value, an exception, or nothing until it is cancelled."""

    def __init__(self, outcome: object = None, *, hangs: bool = False) -> None:
        self.cancelled = False
        self._outcome = outcome
        self._hangs = hangs

    def __await__(self) -> Generator[Any, None, Any]:
        return self._wait().__await__()

    async def _wait(self) -> object:
        await asyncio.sleep(3600 if self._hangs else 0)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def cancel(self) -> None:
        self.cancelled = True


def spoken(segment: Segment) -> list[Speech]:
    """A hum as long as asked for, a little different for every seed."""
    samples = np.full(round(segment.seconds * FACTS.sample_rate), 0.5, dtype=np.float32)
    return [
        Speech(samples * (1 + seed % 7) / 8, FACTS.sample_rate, seed, FinishReason.STOP, segment.seconds)
        for seed in segment.seeds
    ]


class FakeCrew:
    """Speaks hums; remembers what it was asked; fails or hangs where a test says so."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.facts_reply = Reply(FACTS)
        self.speak_failure: Exception | None = None
        self.composer_reply = Reply(True)
        self.replicas = Running(1, 1)
        self.silent_segments: tuple[int, ...] = ()
        self.learned = 0
        self.code_fingerprint = FACTS.code_fingerprint  # of the codec that the encoder has loaded
        self.transcript = "Words that were heard."
        self.transcribed: list[str | None] = []
        self.forgotten: list[str] = []

    def facts(self) -> Reply:
        return self.facts_reply

    def speak(self, segment: Segment) -> Reply:
        self.segments.append(segment)
        speeches = spoken(segment)
        if segment.index in self.silent_segments:
            speeches = [replace(speech, samples=np.zeros_like(speech.samples)) for speech in speeches]
        return Reply(self.speak_failure or speeches)

    def compose(self, speeches: Sequence[Speech], audio_format: str, pause_seconds: float) -> Reply:
        composed: Composed = compose(speeches, audio_format, pause_seconds)
        return Reply(composed)

    def learn(self, file: bytes, field: str) -> Reply:
        """Take any audio that is read; codes of one value tell recordings apart."""
        try:
            recording = read_reference(file, ReferenceLimits(), field=field)
        except RequestError as error:
            return Reply(error)
        self.learned += 1
        key = content_hash(recording)
        codes = (int(key[:2], 16),) * round(recording.seconds * FACTS.frames_per_second)
        return Reply(LearnedReference(codes, self.code_fingerprint, recording.seconds, key, encode(recording, "flac")))

    def transcribe(self, audio: bytes, language: str | None, field: str) -> Reply:
        self.transcribed.append(language)
        return Reply(self.transcript)

    async def forget(self, recording_hash: str) -> None:
        self.forgotten.append(recording_hash)

    def composer_answers(self) -> Reply:
        return self.composer_reply

    async def decoders(self) -> dict[str, Any]:
        return {"replicas": 1, "rows_active": 3, "rows_waiting": 0}

    def deployments(self) -> dict[str, Any]:
        return {"Synthesizer": {"status": "HEALTHY", "RUNNING": 1}}

    def figures(self) -> str:
        return "# HELP ray_voice_rows_active Rows\n"

    def running(self) -> Running:
        return self.replicas
