"""A synthesizer that hums instead of speaking: its decoder is a clock, so that tests need no model and no processor."""

# No `from __future__ import annotations` here: Serve needs the class of build's parameter.

import asyncio
import os
import time
from dataclasses import replace
from typing import Any

from ray import serve
from ray.serve import Application

from deployments import app
from deployments.settings import Admission, Settings
from deployments.workload import Workload
from tests.deployments.fake_crew import FACTS, spoken
from voice_core.decoding.engine import EngineCounters
from voice_core.speech import ModelFacts, Segment, Speech

SLOTS = 4
STEPS_PER_SECOND = 100.0  # so a row speaks 2 s of speech a second, and a replica with all slots taken 8


@serve.deployment(
    name="Synthesizer",
    max_ongoing_requests=6,  # more than slots, and few enough that the rest waits where a new replica can take it
    user_config=Admission().model_dump(),
    health_check_period_s=1,
    graceful_shutdown_timeout_s=30,
    graceful_shutdown_wait_loop_s=0.1,
)
class FakeSynthesizer:
    """Takes as long for a segment as the frames of its speech take in a decoder of constant steps."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._facts = replace(FACTS, max_rows=SLOTS, model_id=settings.model)
        self._workload = Workload(self._facts)
        self._slots = asyncio.Semaphore(SLOTS)
        self._speaking = 0
        self._counted_until = time.monotonic()
        self._steps = self._row_steps = 0.0
        self._admission = Admission()

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        self._admission = Admission.model_validate(user_config)

    async def speak(self, segment: Segment, *_: object) -> list[Speech]:
        """Whatever else a real one is told, of deadlines and traces, is not for a clock."""
        with self._workload.take(segment):
            async with self._slots:
                self._count(+1)
                try:
                    await asyncio.sleep(segment.seconds * self._facts.frames_per_second / STEPS_PER_SECOND)
                finally:
                    self._count(-1)
        return spoken(segment)

    async def facts(self) -> ModelFacts:
        return self._facts

    async def whoami(self) -> tuple[int, str, int]:
        """Return what a change changes, or not: the process, the weights' name, a live setting."""
        return os.getpid(), self._settings.model, self._admission.segments

    async def counters(self) -> EngineCounters:
        self._count(0)
        rows = {"rows_active": self._speaking, "rows_waiting": 0}
        return EngineCounters(0, 0, round(self._steps), round(self._row_steps), **rows)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return self._workload.report(await self.counters())

    def _count(self, more: int) -> None:
        """Let the decoder's clock catch up, then take a row in or out."""
        now = time.monotonic()
        steps = (now - self._counted_until) * STEPS_PER_SECOND
        self._steps += steps * bool(self._speaking)
        self._row_steps += steps * self._speaking
        self._counted_until = now
        self._speaking += more


def build(settings: Settings) -> Application:
    """Build the application around a fake; an import path for a config file."""
    app.Synthesizer = FakeSynthesizer
    return app.build(settings)
