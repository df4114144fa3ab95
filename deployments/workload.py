"""What a synthesizer has in hand, and how much it could speak with all its slots taken: for the autoscaler."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from deployments import autoscaling
from voice_core.speech import ModelFacts, Segment

HALF_LIFE_SECONDS = 300.0  # busy ones, after which an observation counts half: a GPU may slow down, a model be swapped


class DecodedSoFar(Protocol):
    """The part of an engine's counters that is read here."""

    @property
    def steps(self) -> int: ...

    @property
    def row_steps(self) -> int: ...


class Workload:
    """Keeps account of the segments in hand and learns from the decoder's counters how long its steps take."""

    def __init__(self, facts: ModelFacts, clock: Callable[[], float] = time.monotonic) -> None:
        self._slots = facts.max_rows
        self._frames_per_second = facts.frames_per_second
        self._clock = clock
        self._in_hand: dict[object, Segment] = {}  # in the order they came
        self._busy_seconds = 0.0  # in which something was in hand, since the last report
        self._busy_since: float | None = None
        self._last_report: tuple[float, int, int] | None = None  # clock, steps, row steps
        self._pace = StepPace()

    @contextmanager
    def take(self, segment: Segment) -> Iterator[None]:
        """Have a segment in hand, however it ends."""
        if not self._in_hand:
            self._busy_since = self._clock()
        key = object()
        self._in_hand[key] = segment
        try:
            yield
        finally:
            del self._in_hand[key]
            if not self._in_hand:
                self._busy_seconds += self._elapsed_busy_seconds()
                self._busy_since = None

    def report(self, decoded: DecodedSoFar) -> dict[str, float]:
        """Return the numbers of `deployments.autoscaling`, and begin a new interval."""
        now = self._clock()
        busy_seconds = self._busy_seconds + self._elapsed_busy_seconds()
        last_time, last_steps, last_row_steps = self._last_report or (now, decoded.steps, decoded.row_steps)
        steps, row_steps = decoded.steps - last_steps, decoded.row_steps - last_row_steps
        self._last_report = (now, decoded.steps, decoded.row_steps)
        self._busy_seconds = 0.0
        self._busy_since = now if self._in_hand else None
        if steps and busy_seconds > 0:
            self._pace.observe(rows=row_steps / steps, step_seconds=busy_seconds / steps, steps=steps)
        speaking, waiting = self._speaking_and_waiting_seconds()
        numbers = {
            autoscaling.SPEAKING: speaking,
            autoscaling.WAITING: waiting,
            autoscaling.SEGMENTS: float(len(self._in_hand)),
            autoscaling.RATE: row_steps / self._frames_per_second / (now - last_time) if now > last_time else 0.0,
        }
        step_seconds = self._pace.step_seconds(self._slots)
        if step_seconds is not None:
            numbers[autoscaling.CAPACITY] = self._slots / self._frames_per_second / step_seconds
        return numbers

    def _speaking_and_waiting_seconds(self) -> tuple[float, float]:
        """Return the seconds asked for by segments with and without a slot, as if slots went to who came first.

        The decoder shares them out more fairly than that, but as many have one. A segment counts whole until it is
        done: how far its rows are is not known here.
        """
        free = self._slots
        speaking = waiting = 0.0
        for segment in self._in_hand.values():
            rows = len(segment.seeds)
            with_slot = min(rows, free)
            free -= with_slot
            speaking += with_slot * segment.seconds
            waiting += (rows - with_slot) * segment.seconds
        return speaking, waiting

    def _elapsed_busy_seconds(self) -> float:
        return 0.0 if self._busy_since is None else self._clock() - self._busy_since


class StepPace:
    """Learns how long a step takes for so many rows: a straight line, fitted, that forgets.

    Steps that wait for the weights all take the same time, steps that compute take as much longer as there are rows;
    what was measured lies between (benchmarks/results/decode_cpu.md). While all observations have the same number of
    rows, the line is flat, and a batch half full counts as half of what it could do.
    """

    def __init__(self) -> None:
        self._weight = self._rows = self._rows_squared = self._seconds = self._rows_seconds = 0.0

    def observe(self, *, rows: float, step_seconds: float, steps: int) -> None:
        """Take in an interval of so many steps with so many rows and seconds each, on average."""
        kept = 0.5 ** (step_seconds * steps / HALF_LIFE_SECONDS)
        self._weight = self._weight * kept + steps
        self._rows = self._rows * kept + steps * rows
        self._rows_squared = self._rows_squared * kept + steps * rows**2
        self._seconds = self._seconds * kept + steps * step_seconds
        self._rows_seconds = self._rows_seconds * kept + steps * rows * step_seconds

    def step_seconds(self, rows: int) -> float | None:
        """Return how long a step of so many rows takes; None before anything was observed."""
        if not self._weight:
            return None
        mean_rows, mean_seconds = self._rows / self._weight, self._seconds / self._weight
        spread = self._rows_squared / self._weight - mean_rows**2
        together = self._rows_seconds / self._weight - mean_rows * mean_seconds
        slope = max(0.0, together / spread) if spread > 0.01 else 0.0  # rows² ; less is no spread but noise
        return max(mean_seconds + slope * (rows - mean_rows), mean_seconds / 2)
