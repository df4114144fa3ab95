"""Whose row comes next: the requests that wait take turns, one row each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence


class Turns:
    """Remembers when each request had its last turn.

    Next is the request whose last turn is longest ago. One that comes counts as if it had had a turn shortly before, as
    many turns ago as one request may hold slots: so a short request gets the first free slot although long ones came
    before it, and yet a long one waits at most for those that wait already and for that many newcomers. Of those that
    came at the same time the first goes first. A request beyond its share of the slots stands back for all others;
    what they leave free is its own. Batch comes after everything else: never, where all slots are always wanted.
    """

    def __init__(self, slots_of_one: int) -> None:
        """`slots_of_one` is how many slots one request may hold while others wait."""
        self._slots_of_one = slots_of_one
        self._last_turn: dict[str, int] = {}
        self._turns = 0  # taken so far

    def order(self, waiting: Sequence[str], held: Mapping[str, int], batch: Collection[str] = frozenset()) -> list[int]:
        """Return the places of the rows that wait in the order they should get slots.

        `waiting` is each row's request, in the order they came, `held` how many slots each request has; the
        requests in `batch` are in no hurry.
        """
        present = {*held, *waiting}
        self._last_turn = {request: turn for request, turn in self._last_turn.items() if request in present}
        before: Counter[str] = Counter()  # rows of the same request that get theirs earlier
        order = []
        for place, request in enumerate(waiting):
            last_turn = self._last_turn.setdefault(request, self._turns - self._slots_of_one)
            beyond_share = held.get(request, 0) + before[request] >= self._slots_of_one
            order.append((request in batch, beyond_share, before[request], last_turn, place))
            before[request] += 1
        return [place for *_, place in sorted(order)]

    def take(self, request: str) -> None:
        """Note that a request has had its turn."""
        self._turns += 1
        self._last_turn[request] = self._turns
