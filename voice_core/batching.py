"""Groups sequences of unequal length into padded batches that waste little. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

MOST_PADDING = 0.25  # of a batch; more costs more time than another batch does


def padded_groups(
    lengths: Sequence[int],
    *,
    most_positions: int,
    most_items: int | None = None,
    padded_length: Callable[[int, int], int] | None = None,
) -> list[list[int]]:
    """Return groups of item numbers, longest items first, with less than MOST_PADDING of their positions padded.

    A group has at most `most_positions` positions, padding included, and at most `most_items` items; an item that is
    longer is a group of its own, whatever its padding. Items of length 0 are in none. Items are padded to the longest,
    or to what `padded_length` makes of their number and its length.
    """
    groups: list[list[int]] = []
    members: list[int] = []
    longest = filled = 0  # positions of the first member, and of all members
    for number in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        if (length := lengths[number]) == 0:
            break
        items = len(members) + 1
        padded = items * (longest if padded_length is None else padded_length(items, longest))
        fits = padded <= most_positions and filled + length > padded * (1 - MOST_PADDING)
        if not members or not fits or len(members) == most_items:
            members, longest, filled = [], length, 0
            groups.append(members)
        members.append(number)
        filled += length
    return groups
