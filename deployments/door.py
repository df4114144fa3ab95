"""Counts the requests inside, so that the service can close without cutting anybody off."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from deployments.errors import not_ready


class Door:
    """Lets requests in until it is closed."""

    def __init__(self) -> None:
        self._inside = 0
        self._closed = False
        self._last_left = asyncio.Event()

    def check_open(self) -> None:
        if self._closed:
            raise not_ready("the service is stopping")

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

    async def close(self) -> None:
        """Let nobody in any more; return when the last one has left."""
        self._closed = True
        if self._inside:
            await self._last_left.wait()
