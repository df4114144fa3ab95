"""Counts what is inside: so much may be, and when the service closes nobody is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from deployments.errors import not_ready, overloaded
from deployments.settings import Settings


class Door:
    """Lets requests in until it is closed or the house is full."""

    def __init__(self, settings: Settings) -> None:
        self._most_requests = settings.most_requests_in_flight
        self._most_seconds = settings.most_seconds_in_flight
        self._inside = 0
        self._seconds = 0.0  # of speech, that those inside wait for
        self._closed = False
        self._last_left = asyncio.Event()

    @property
    def one_inside(self) -> bool:
        return self._inside == 1

    @property
    def seconds_in_flight(self) -> float:
        """Of speech, that those inside wait for."""
        return self._seconds

    def check_open(self) -> None:
        """Refuse where the next request would be refused."""
        if self._closed:
            raise not_ready("the service is stopping")
        if self._inside >= self._most_requests:
            raise overloaded(f"{self._inside} requests are in flight")

    @contextmanager
    def let_in(self) -> Iterator[None]:
        self.check_open()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if self._closed and not self._inside:
                self._last_left.set()

    @contextmanager
    def take_on(self, seconds: float) -> Iterator[None]:
        """Have so many seconds of speech made for somebody inside."""
        if self._seconds + seconds > self._most_seconds:
            raise overloaded(f"{self._seconds:.0f} s of speech are in flight, and this request asks for {seconds:.0f}")
        self._seconds += seconds
        try:
            yield
        finally:
            self._seconds -= seconds

    async def close(self) -> None:
        """Let nobody in any more; return when the last one has left."""
        self._closed = True
        if self._inside:
            await self._last_left.wait()
