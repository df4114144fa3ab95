"""One request while it is inside: who came, since when, until when. Every part finds it in the context."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from deployments.keys import Key
from deployments.request_ids import new_request_id


@dataclass(eq=False)
class Visit:
    """What is known of a request beside its body. `arrived` and `until` are on time.monotonic's clock."""

    id: str = field(default_factory=new_request_id)
    key: Key | None = None  # None where no keys are asked for
    arrived: float = field(default_factory=time.monotonic)
    until: float = float("inf")  # nobody waits for the answer after that
    timeout: asyncio.Timeout | None = None  # what ends it then
    code: str | None = None  # of the error that was answered, and its status, also where an answer had begun before
    error_status: int | None = None
    audio_seconds: float = 0.0  # of speech that came of it

    @property
    def seconds_left(self) -> float:
        return self.until - time.monotonic()

    def new_group(self) -> str:
        """Return a name for rows that share one turn at the decoder, after the visit, so that logs tell whose they are.

        It has an end of its own: clients may call all of their requests the same.
        """
        return f"{self.id}/{secrets.token_hex(4)}"

    def end_after(self, seconds: float | None) -> None:
        """Let the visit end so long after it came; only ever sooner than it would."""
        if seconds is None or self.arrived + seconds >= self.until:
            return
        self.until = self.arrived + seconds
        if self.timeout is not None:
            self.timeout.reschedule(asyncio.get_running_loop().time() + max(0.0, self.seconds_left))


_current: ContextVar[Visit | None] = ContextVar("visit", default=None)


def current_visit() -> Visit:
    """Return the request that this task, or thread, works for; outside of one, a visit of nobody's."""
    return _current.get() or Visit()


def enter(visit: Visit) -> None:
    """Let everything that this task does from here on be for this request."""
    _current.set(visit)
