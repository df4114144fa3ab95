"""What a replica tells the autoscaler, on a clock that the test turns."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest

from deployments import autoscaling
from deployments.workload import StepPace, Workload
from tests.deployments.fake_crew import FACTS
from voice_core.decoding.engine import EngineCounters
from voice_core.speech import Segment

FOUR_SLOTS = replace(FACTS, max_rows=4, frames_per_second=50.0)


class Clock:
    """Stands still until it is told."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def decoded(steps: int, row_steps: int) -> EngineCounters:
    return EngineCounters(passes=1, rows_spoken=0, steps=steps, row_steps=row_steps)


def segment(seconds: float, samples: int = 1) -> Segment:
    return Segment("Hello.", seconds, seeds=tuple(range(samples)))


def test_who_came_first_is_speaking_and_the_rest_waits() -> None:
    workload = Workload(FOUR_SLOTS, Clock())
    with ExitStack() as stack:
        for seconds, samples in ((1.0, 3), (10.0, 2), (5.0, 1)):
            stack.enter_context(workload.take(segment(seconds, samples)))
        numbers = workload.report(decoded(0, 0))
    assert numbers[autoscaling.SPEAKING] == 3 * 1 + 10
    assert numbers[autoscaling.WAITING] == 10 + 5
    assert numbers[autoscaling.SEGMENTS] == 3


def test_nothing_is_left_in_hand_however_a_segment_ends() -> None:
    workload = Workload(FOUR_SLOTS, Clock())
    with pytest.raises(RuntimeError), workload.take(segment(1)):
        raise RuntimeError
    assert workload.report(decoded(0, 0))[autoscaling.SEGMENTS] == 0


def test_the_rate_is_what_was_spoken_since_the_last_report() -> None:
    clock = Clock()
    workload = Workload(FOUR_SLOTS, clock)
    workload.report(decoded(15, 15))  # the warm-up was before
    clock.seconds = 2.0
    assert workload.report(decoded(65, 115))[autoscaling.RATE] == 1.0  # 100 frames are 2 s of speech
    clock.seconds = 4.0
    assert workload.report(decoded(65, 115))[autoscaling.RATE] == 0.0


def test_a_batch_half_full_is_half_of_what_could_be_spoken() -> None:
    """Two of four rows for a second in steps of 10 ms: 4 s of speech a second, 8 with all four."""
    clock = Clock()
    workload = Workload(FOUR_SLOTS, clock)
    assert autoscaling.CAPACITY not in workload.report(decoded(0, 0))
    with workload.take(segment(10)):
        clock.seconds = 1.0
        assert workload.report(decoded(100, 200))[autoscaling.CAPACITY] == pytest.approx(8.0)


def test_time_without_work_says_nothing_about_the_pace() -> None:
    clock = Clock()
    workload = Workload(FOUR_SLOTS, clock)
    workload.report(decoded(0, 0))
    clock.seconds = 9.0
    with workload.take(segment(10)):
        clock.seconds = 10.0
    clock.seconds = 20.0
    numbers = workload.report(decoded(100, 400))
    assert numbers[autoscaling.CAPACITY] == pytest.approx(8.0)
    assert numbers[autoscaling.RATE] == pytest.approx(0.4)


def test_steps_that_grow_with_their_rows_are_foreseen_from_smaller_batches() -> None:
    """The mid size on one CPU thread: 25.9 ms with 4 rows, 29.9 with 8, 36.6 with 16 in an earlier decode_cpu.md."""
    pace = StepPace()
    pace.observe(rows=4, step_seconds=0.0259, steps=100)
    assert pace.step_seconds(16) == pytest.approx(0.0259)
    pace.observe(rows=8, step_seconds=0.0299, steps=100)
    assert pace.step_seconds(16) == pytest.approx(0.0379, rel=0.01)


def test_what_was_true_yesterday_is_forgotten() -> None:
    pace = StepPace()
    pace.observe(rows=4, step_seconds=0.010, steps=30_000)  # for 300 s
    for _ in range(10):
        pace.observe(rows=4, step_seconds=0.030, steps=10_000)  # for 300 s each
    assert pace.step_seconds(4) == pytest.approx(0.030, rel=0.01)
