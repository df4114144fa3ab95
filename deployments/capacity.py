"""How much speech this ingress gets spoken in a second, learned from what it gets while it is busy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

START_SPEED = 1.0  # seconds of speech that a row speaks in a second, until more is known
START_WEIGHT_SECONDS = 10.0  # so much busy time outweighs the start value
MEMORY_SECONDS = 60.0  # of busy time, after which what was seen counts e times less


class Capacity:
    """A smoothed estimate of seconds of speech per second, over all replicas.

    Only busy time teaches: while rows are free, how much is spoken says how much was asked for. Where several ingresses
    share the replicas, each learns what it gets of them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows = 1
        self._busy = False
        self._nobody_speaks = False
        self._seen_at = clock()
        self._busy_seconds = START_WEIGHT_SECONDS
        self._spoken_seconds = START_WEIGHT_SECONDS * START_SPEED

    @property
    def rows(self) -> int:
        """Return how many rows are spoken at once, as far as this ingress may count on them."""
        return self._rows

    @property
    def seconds_per_second(self) -> float:
        self._advance()
        return self._spoken_seconds / self._busy_seconds

    def has_rows(self, rows: int) -> None:
        """Learn how many rows there are now; twice as many are expected to speak twice as much.

        While there are none nothing is learned: how fast a replica speaks doesn't depend on how long it takes to come.
        """
        self._advance()
        self._nobody_speaks = rows < 1
        if self._nobody_speaks:
            return
        self._spoken_seconds *= rows / self._rows
        self._rows = rows

    def spoke(self, seconds: float) -> None:
        """Count speech that has come."""
        self._advance()
        if self._busy:
            self._spoken_seconds += seconds

    def is_busy(self, busy: bool) -> None:
        """Learn whether more is asked for from now on than there are rows."""
        self._advance()
        self._busy = busy

    def _advance(self) -> None:
        now = self._clock()
        passed, self._seen_at = now - self._seen_at, now
        if self._busy and not self._nobody_speaks:
            kept = math.exp(-passed / MEMORY_SECONDS)
            self._busy_seconds = kept * self._busy_seconds + passed
            self._spoken_seconds *= kept
