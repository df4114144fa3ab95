"""Who may have a recording learned, and who is told to come back."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from deployments.errors import ApiError
from deployments.learning_queue import LearningQueue
from tests.deployments.test_door import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def learn(queue: LearningQueue, clock: Clock, seconds: float) -> None:
    with queue.taken_on():
        clock.now += seconds


def test_recordings_that_take_long_are_refused_once_many_wait(clock: Clock) -> None:
    queue = LearningQueue(60.0, clock)
    for _ in range(20):
        learn(queue, clock, 25.0)
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(queue.taken_on())
        with pytest.raises(ApiError, match="3 recordings are being learned") as refusal:
            held.enter_context(queue.taken_on())
    assert refusal.value.status == 429
    assert refusal.value.headers["Retry-After"] == "15"
    learn(queue, clock, 25.0)


def test_recordings_that_take_a_moment_may_come_by_the_hundred(clock: Clock) -> None:
    queue = LearningQueue(60.0, clock)
    for _ in range(20):
        learn(queue, clock, 0.1)
    with ExitStack() as held:
        for _ in range(400):
            held.enter_context(queue.taken_on())


def test_one_that_takes_long_counts_before_it_is_done(clock: Clock) -> None:
    queue = LearningQueue(60.0, clock)
    with queue.taken_on(), queue.taken_on():
        clock.now += 31.0
        with pytest.raises(ApiError, match="about 62 s"), queue.taken_on():
            pass


def test_those_that_two_encoders_learn_at_once_count_half(clock: Clock) -> None:
    queue = LearningQueue(60.0, clock)
    for _ in range(20):
        with queue.taken_on():
            with queue.taken_on():
                clock.now += 10.0
            clock.now += 10.0
    with ExitStack() as held:
        for _ in range(7):
            held.enter_context(queue.taken_on())
        with pytest.raises(ApiError, match="7 recordings"), queue.taken_on():
            pass


def test_a_refused_recording_says_nothing_about_the_time_that_one_takes(clock: Clock) -> None:
    queue = LearningQueue(60.0, clock)
    for _ in range(20):
        learn(queue, clock, 30.0)
    for _ in range(20):
        with pytest.raises(ValueError, match="no audio"), queue.taken_on():
            raise ValueError("no audio")
    three = (queue.taken_on(), queue.taken_on(), queue.taken_on())
    with three[0], three[1], three[2], pytest.raises(ApiError, match="about 90 s"), queue.taken_on():
        pass
