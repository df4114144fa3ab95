"""Counts what is inside: so much may be, each key gets its share, and when the service closes nobody is cut off.

Who has to wait too long is told so at once, with the time after which there will be room:

    ahead = of every request in flight as much as the newcomer asks for    seconds of speech: requests take turns
    wait  = ahead * share of the rows in flight that have no slot / capacity    seconds; for Capacity see there

So a short request waits little behind a long one, and where slots are free nobody waits.
Interactive requests go before batch: an interactive one waits for its like only, a batch one for all, and half as long.
With several keys active, a key waits for no more than as if it had its equal share of the capacity for itself.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deployments.capacity import Capacity
from deployments.errors import ApiError, not_ready, overloaded, whole_seconds
from deployments.keys import Key, Priority
from deployments.settings import Settings
from deployments.visit import current_visit

BATCH_PATIENCE = 0.5  # of the longest wait: batch is refused before interactive is
ROOM_FOR_OTHERS = 0.1  # of the requests that may be inside, kept from keys that are beyond their share
MOST_HALVINGS = 30  # of what is looked for, until it is exact
EXACT_SECONDS = 1.0  # Retry-After takes whole ones
ACTIVE_SECONDS = 60.0  # a key that was refused is still counted among those that want their share


@dataclass(eq=False)
class Work:
    """What a request has asked for and not got yet."""

    seconds: float  # of speech
    rows: int
    key: str
    priority: Priority
    door: Door
    begun_seconds: float = 0.0  # of speech that a synthesizer was asked for, whatever came of it

    @property
    def stands_back(self) -> bool:
        """Whether others are inside that it lets go first."""
        return self.priority == "batch" and self.door.interactive_inside

    def began(self, seconds: float) -> None:
        """Count what a synthesizer is asked for from now on: whoever leaves before it is spoken has had it."""
        self.begun_seconds += seconds

    def spoke(self, seconds: float, rows: int = 1, *, fresh_seconds: float | None = None) -> None:
        """Count what has come of it: so much, in so many rows; of what was found in a cache only a part is fresh."""
        self.seconds = max(0.0, self.seconds - seconds)
        self.rows = max(0, self.rows - rows)
        self.door.spoke(seconds if fresh_seconds is None else fresh_seconds)


class Door:
    """Lets requests in until it is closed or full."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_requests = settings.most_requests_in_flight
        self._most_seconds = settings.most_seconds_in_flight
        self._longest_wait_seconds = settings.longest_wait_seconds
        self._clock = clock
        self.capacity = Capacity(clock)
        self._inside: Counter[str] = Counter()  # requests, by key
        self._works: set[Work] = set()
        self._asked: dict[str, float] = {}  # when a key last did
        self._allowances: dict[str, Allowance] = {}
        self._closed = False
        self._last_left = asyncio.Event()
        self._to_tell: set[asyncio.Event] = set()  # that it closes

    @property
    def requests_inside(self) -> int:
        return self._inside.total()

    @property
    def seconds_in_flight(self) -> float:
        """Return the seconds of speech that those inside wait for."""
        return sum(work.seconds for work in self._works)

    @property
    def rows_inside(self) -> int:
        return sum(work.rows for work in self._works)

    @property
    def wanted_rows(self) -> list[int]:
        """Return how many rows each request still wants, of the interactive ones; of all, if none is."""
        interactive = [work.rows for work in self._works if work.priority == "interactive"]
        return interactive or [work.rows for work in self._works]

    @property
    def interactive_inside(self) -> bool:
        return any(work.priority == "interactive" for work in self._works)

    def check_open(self) -> None:
        """Refuse where the next request would be refused, whoever's it is."""
        if self._closed:
            raise not_ready("the service is stopping")
        if self.requests_inside >= self._most_requests:
            raise overloaded(f"{self.requests_inside} requests are in flight", self._seconds_until_one_leaves())

    @contextmanager
    def let_in(self, closing: asyncio.Event | None = None) -> Iterator[None]:
        """Let a request in; who would stay for as long as they like give an event that tells them when it closes."""
        key = current_visit().key
        name = _name(key)
        self._asked[name] = self._clock()
        self.check_open()
        self._check_share_of_requests(key)
        self._inside[name] += 1
        told: set[asyncio.Event] = set() if closing is None else {closing}
        self._to_tell |= told
        try:
            yield
        finally:
            self._to_tell -= told
            self._inside[name] -= 1
            if self._closed and not self.requests_inside:
                self._last_left.set()

    @contextmanager
    def take_on(self, seconds: float, rows: int = 1, priority: Priority | None = None) -> Iterator[Work]:
        """Have so many seconds of speech made for somebody inside, in so many rows."""
        key = current_visit().key
        priority = chosen_priority(key, priority)
        self._check_room(seconds)
        self._check_wait(key, priority, seconds)
        self._check_key(key, seconds)
        work = Work(seconds, rows, _name(key), priority, self)
        self._works.add(work)
        self._look_whether_busy()
        try:
            yield work
        finally:
            self._works.discard(work)
            self._look_whether_busy()
            if key is not None:
                self._allowance(key).give_back(max(0.0, seconds - work.begun_seconds))

    def spoke(self, seconds: float) -> None:
        """Learn from speech that the decoders have made just now."""
        self.capacity.spoke(seconds)
        self._look_whether_busy()

    def has_rows(self, rows: int) -> None:
        """Learn how many rows speak for this ingress."""
        self.capacity.has_rows(rows)
        self._look_whether_busy()

    def expected_wait_seconds(
        self, seconds: float, key: Key | None = None, priority: Priority = "interactive"
    ) -> float:
        """Return how much longer so much speech would take than if nobody else were there, if it came now."""
        return self._wait_after(0.0, seconds, _name(key), priority)[0]

    def expected_seconds(self, work_seconds: float, rows: int) -> float:
        """Return how long so much speech takes from its first row to its last, if nobody else were there."""
        speed = self.capacity.seconds_per_second * min(1.0, rows / self.capacity.rows)
        return work_seconds / speed

    async def close(self) -> None:
        """Let nobody in any more, tell those who asked to be told; return when the last one has left."""
        self._closed = True
        for closing in self._to_tell:
            closing.set()
        if self.requests_inside:
            await self._last_left.wait()

    def _check_share_of_requests(self, key: Key | None) -> None:
        """Refuse a key that is at its own limit, or beyond its share where others could soon find no room."""
        name = _name(key)
        limit = math.inf if key is None else key.most_requests_in_flight or math.inf
        if self._inside[name] >= limit:
            reason = f"{self._inside[name]} requests of this key are in flight, its limit"
            raise _key_overloaded(reason, self._seconds_until_one_leaves())
        share = self._most_requests / self._active_keys(name)
        crowded = self.requests_inside >= (1 - ROOM_FOR_OTHERS) * self._most_requests
        if crowded and self._inside[name] >= share:
            raise overloaded(
                f"{self._inside[name]} requests of this key are in flight", self._seconds_until_one_leaves()
            )

    def _check_room(self, seconds: float) -> None:
        beyond = self.seconds_in_flight + seconds - self._most_seconds
        if beyond > 0:
            reason = f"{self.seconds_in_flight:.0f} s of speech are in flight, and this request asks for {seconds:.0f}"
            raise overloaded(reason, beyond / self.capacity.seconds_per_second)

    def _check_wait(self, key: Key | None, priority: Priority, seconds: float) -> None:
        longest = self._longest_wait_seconds * (BATCH_PATIENCE if priority == "batch" else 1)
        wait = self.expected_wait_seconds(seconds, key, priority)
        if wait <= longest:
            return
        # How much must each request in flight have got for the wait to be short enough?
        too_little, enough = 0.0, max(work.seconds for work in self._works)
        too_soon, then = 0.0, self._wait_after(enough, seconds, _name(key), priority)[1]
        for _ in range(MOST_HALVINGS):
            if then - too_soon <= EXACT_SECONDS:
                break
            middle = (too_little + enough) / 2
            wait_then, at = self._wait_after(middle, seconds, _name(key), priority)
            if wait_then > longest:
                too_little, too_soon = middle, at
            else:
                enough, then = middle, at
        reason = f"this request would wait {wait:.0f} s, and at most {longest:g} s are waited"
        raise overloaded(reason, then)

    def _wait_after(self, got: float, seconds: float, key: str, priority: Priority) -> tuple[float, float]:
        """Return the wait of a newcomer once every request has got so many seconds of speech, and when that will be."""
        ahead = [work for work in self._works if priority == "batch" or work.priority == "interactive"]
        speed = self.capacity.seconds_per_second
        rows, own, everybodys = 0.0, 0.0, 0.0
        for work in ahead:
            left = max(0.0, work.seconds - got)
            rows += work.rows * left / work.seconds if work.seconds else 0.0
            everybodys += min(left, seconds)
            own += min(left, seconds) if work.key == key else 0.0
        then = sum(min(work.seconds, got) for work in ahead) / speed
        if rows <= self.capacity.rows:
            return 0.0, then
        waiting = min(everybodys, own * self._active_keys(key)) * (1 - self.capacity.rows / rows)
        return waiting / speed, then

    def _check_key(self, key: Key | None, seconds: float) -> None:
        """Hold a key to its own limits."""
        if key is None:
            return
        if key.most_seconds_in_flight is not None:
            own = sum(work.seconds for work in self._works if work.key == key.name)
            beyond = own + seconds - key.most_seconds_in_flight
            if own and beyond > 0:  # alone, a request may be larger: its limit is that of all requests
                reason = f"{own:.0f} s of speech of this key are in flight, and this request asks for {seconds:.0f}"
                raise _key_overloaded(reason, beyond / self.capacity.seconds_per_second)
        self._allowance(key).take(seconds)

    def _active_keys(self, asking: str) -> int:
        """Return among how many keys the rows are shared: those inside, those who lately asked, and this one."""
        now = self._clock()
        self._asked = {name: at for name, at in self._asked.items() if now - at < ACTIVE_SECONDS}
        return len({asking, *self._asked, *(name for name, count in self._inside.items() if count)})

    def _allowance(self, key: Key) -> Allowance:
        """Return what a key has left; a line that was changed in the file begins anew."""
        allowance = self._allowances.get(key.name)
        if allowance is None or allowance.per_minute != key.seconds_per_minute:
            allowance = self._allowances[key.name] = Allowance(key.seconds_per_minute, self._clock)
        return allowance

    def _seconds_until_one_leaves(self) -> float:
        """Return when about the smallest of the requests inside is done."""
        least = min((work.seconds for work in self._works), default=0.0)
        return least * max(1, len(self._works)) / self.capacity.seconds_per_second

    def _look_whether_busy(self) -> None:
        self.capacity.is_busy(self.rows_inside > self.capacity.rows)


class Allowance:
    """Seconds of speech that a key may have: a minute's worth at once, filled up evenly.

    Who has any left gets all that is asked for, and pays for it by waiting longer; so long texts are spoken too.
    """

    def __init__(self, per_minute: float | None, clock: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._left = per_minute or 0.0
        self._filled_at = clock()

    def take(self, seconds: float) -> None:
        """Take so much off, or raise the 429 that says when something will be left."""
        if self.per_minute is None:
            return
        self._fill()
        if self._left <= 0:
            reason = f"this key has used up its {self.per_minute:g} s of speech a minute"
            raise _key_overloaded(reason, (1 - self._left) * 60 / self.per_minute)
        self._left -= seconds

    def give_back(self, seconds: float) -> None:
        """Count what was taken and never begun as not taken."""
        if self.per_minute is not None:
            self._fill()
            self._left = min(self.per_minute, self._left + seconds)

    def _fill(self) -> None:
        assert self.per_minute is not None, "without a limit nothing is counted"
        now = self._clock()
        self._left = min(self.per_minute, self._left + (now - self._filled_at) * self.per_minute / 60)
        self._filled_at = now


def chosen_priority(key: Key | None, asked: Priority | None) -> Priority:
    """Return the priority of a request: what it asks for, else the best that its key may have."""
    if key is None:
        return asked or "interactive"
    if asked is not None and asked not in key.priorities:
        allowed = " or ".join(key.priorities)
        raise ApiError(403, f"priority: this key may ask for {allowed}", "priority", "priority_not_allowed")
    return asked or ("interactive" if "interactive" in key.priorities else "batch")


def _name(key: Key | None) -> str:
    return "" if key is None else key.name


def _key_overloaded(reason: str, seconds: float) -> ApiError:
    return ApiError(429, reason, code="rate_limit_exceeded", headers={"Retry-After": whole_seconds(seconds)})
