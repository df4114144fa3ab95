"""A crew that speaks without a model: what the HTTP interface is tested with."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from deployments.composer import Composed, compose
from voice_core.speech import FinishReason, ModelFacts, Segment, Speech

FACTS = ModelFacts(
    model_id="fake",
    sample_rate=16000,
    frames_per_second=50.0,
    longest_seconds=20.0,
    device="cpu",
    max_rows=16,
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
        self.runs = True

    def facts(self) -> Reply:
        return self.facts_reply

    def speak(self, segment: Segment) -> Reply:
        self.segments.append(segment)
        return Reply(self.speak_failure or spoken(segment))

    def compose(self, speeches: Sequence[Speech], audio_format: str, pause_seconds: float) -> Reply:
        composed: Composed = compose(speeches, audio_format, pause_seconds)
        return Reply(composed)

    def synthesizer_runs(self) -> bool:
        return self.runs
