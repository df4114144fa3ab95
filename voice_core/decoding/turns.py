"""Whose row comes next: the requests that wait take turns, one row each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import count


class Turns:
    """Remembers when each request had its last turn.

    Next is the request that waited longest for one; of those that never had one, the request that came first. So a
    short request gets the first free slot although long ones came before it. A request beyond its share of the slots
    stands back for all others; what they leave free is its own. Batch comes after everything else.
    """

    def __init__(self, slots_of_one: int) -> None:
        """`slots_of_one` is how many slots one request may hold while others wait."""
        self._slots_of_one = slots_of_one
        self._last_turn: dict[str, int] = {}
        self._clock = count(1)

    def order(self, waiting: Sequence[str], held: Mapping[str, int], batch: Collection[str] = frozenset()) -> list[int]:
        """Return the places of the rows that wait in the order they should get slots.

        `waiting` is each row's request, in the order they came, `held` how many slots each request has; the
        requests in `batch` are in no hurry.
        """
        self._last_turn = {r: turn for r, turn in self._last_turn.items() if r in held or r in waiting}
        before: Counter[str] = Counter()  # rows of the same request that get theirs earlier
        order = []
        for place, request in enumerate(waiting):
            beyond_share = held.get(request, 0) + before[request] >= self._slots_of_one
            order.append((request in batch, beyond_share, before[request], self._last_turn.get(request, 0), place))
            before[request] += 1
        return [place for *_, place in sorted(order)]

    def take(self, request: str) -> None:
        """Note that a request has had its turn."""
        self._last_turn[request] = next(self._clock)
