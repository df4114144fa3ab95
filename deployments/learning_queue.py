"""Counts the recordings that are being learned: one after the other is, and on a CPU one may take a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deployments.errors import overloaded

FIRST_GUESS_SECONDS = 1.0  # that a recording takes, as long as none was learned
WEIGHT = 0.3  # of the newest one in what is known of how long they take


class LearningQueue:
    """Refuses a recording that would wait longer than a row may, for those of the same ingress before it."""

    def __init__(self, longest_wait_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest_wait_seconds = longest_wait_seconds
        self._clock = clock
        self._seconds_each = FIRST_GUESS_SECONDS
        self._began: dict[object, float] = {}  # when each of those in hand came, the oldest first
        self._last_done = float("-inf")

    @contextmanager
    def taken_on(self) -> Iterator[None]:
        """Have a recording learned. ApiError (429) if there are too many before it."""
        wait = len(self._began) * self._seconds_each_now()
        if wait > self._longest_wait_seconds:
            reason = f"{len(self._began)} recordings are being learned, which takes about {wait:.0f} s"
            raise overloaded(reason, wait - self._longest_wait_seconds)
        turn = object()
        self._began[turn] = self._clock()
        try:
            yield
            self._seconds_each += WEIGHT * (self._since_its_turn(turn) - self._seconds_each)
        finally:  # one that was refused or called off says nothing about the time that one takes
            del self._began[turn]
            self._last_done = self._clock()

    def _seconds_each_now(self) -> float:
        """Return how long one takes: as long as the last ones, or as the one that is being learned takes already."""
        oldest = next(iter(self._began), None)
        return max(self._seconds_each, 0.0 if oldest is None else self._since_its_turn(oldest))

    def _since_its_turn(self, turn: object) -> float:
        """Return the time since the one before was done, or since it came if nobody was before it."""
        return self._clock() - max(self._began[turn], self._last_done)
