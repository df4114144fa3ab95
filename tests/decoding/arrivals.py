"""Rows that come to an engine at random, and clients that leave."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from voice_core.decoding.engine import Engine, RowHandle
from voice_core.decoding.rows import Row, SpokenRow
from voice_core.speech import FinishReason


def check_random_arrivals(engine: Engine, rows: Sequence[Row], expected: Sequence[SpokenRow], seed: int) -> None:
    """Hand in all rows in random groups at random times, cancel some; all others must come out as expected."""
    rng = random.Random(seed)
    handles: dict[int, RowHandle] = {}
    left = rng.sample(range(len(rows)), len(rows))
    while left:
        group = [left.pop() for _ in range(min(len(left), rng.randrange(1, 6)))]
        handles.update(zip(group, engine.submit([rows[i] for i in group], request=str(len(left))), strict=True))
        if rng.random() < 0.3:
            handles[rng.choice(list(handles))].cancel()
        time.sleep(rng.random() * 0.02)
    for index, handle in handles.items():
        spoken = handle.future.result(30)
        if spoken.finish_reason is FinishReason.CANCELLED:
            assert spoken.ids == expected[index].ids[: len(spoken.ids)]
        else:
            assert spoken == expected[index]
