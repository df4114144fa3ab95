"""Who is let in, who is told to come back when; and closing without cutting anybody off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from deployments.door import Door
from deployments.errors import ApiError
from deployments.keys import Key
from deployments.settings import Settings
from deployments.visit import Visit, enter

KEY = {"salt": "00" * 8, "sha256": "00" * 32}


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def nobodys_key() -> Iterator[None]:
    enter(Visit())
    yield
    enter(Visit())


def a_key(name: str, **limits: Any) -> Key:
    return Key.model_validate(KEY | {"name": name} | limits)


def comes_with(key: Key) -> None:
    enter(Visit(key=key))


def refused(ask: Callable[[], Any]) -> tuple[int, str | None, int]:
    """Return status, code and Retry-After of a refusal."""
    with pytest.raises(ApiError) as refusal, ask():
        pass
    return refusal.value.status, refusal.value.code, int(refusal.value.headers["Retry-After"])


def test_closing_waits_for_the_last_request_inside_and_refuses_new_ones() -> None:
    async def scenario() -> None:
        door = Door(Settings())
        with door.let_in():
            closing = asyncio.create_task(door.close())
            await asyncio.sleep(0.01)
            assert not closing.done()
            with pytest.raises(ApiError) as refusal, door.let_in():
                pass
            assert refusal.value.status == 503
        await closing

    asyncio.run(scenario())


def test_closing_is_told_to_those_inside_who_asked_for_it_and_to_nobody_who_has_left() -> None:
    async def scenario() -> None:
        door, stays, left = Door(Settings()), asyncio.Event(), asyncio.Event()
        with door.let_in(left):
            pass
        with door.let_in(stays), door.let_in():
            closing = asyncio.create_task(door.close())
            await asyncio.wait_for(stays.wait(), 1)
        await closing
        assert not left.is_set()

    asyncio.run(scenario())


def test_an_empty_room_closes_at_once() -> None:
    asyncio.run(Door(Settings()).close())


def test_a_full_ingress_refuses_the_next_until_somebody_leaves() -> None:
    door = Door(Settings(most_requests_in_flight=1))
    with door.let_in():
        assert refused(door.let_in)[:2] == (429, "overloaded")
    with door.let_in():
        pass


def test_speech_in_flight_is_counted_in_seconds() -> None:
    door = Door(Settings(longest_speech_seconds=60, most_seconds_in_flight=100))
    with door.take_on(60):
        assert refused(lambda: door.take_on(41))[0] == 429
    with door.take_on(60), door.take_on(40):
        pass


def a_busy_door(clock: Clock) -> Door:
    """Ten rows that speak a second of speech a second each, and nobody waits longer than a minute."""
    door = Door(Settings(longest_wait_seconds=60, most_seconds_in_flight=100_000), clock)
    door.has_rows(10)
    return door


def test_time_in_which_nobody_can_speak_teaches_nothing(clock: Clock) -> None:
    door = a_busy_door(clock)
    with door.take_on(400, rows=40):
        door.has_rows(0)  # the replica has gone, and the next one loads
        clock.now += 180
        assert door.expected_wait_seconds(400) == pytest.approx(30)
        door.has_rows(10)
        clock.now += 180
        assert door.expected_wait_seconds(400) > 300


def test_where_rows_are_free_nobody_waits(clock: Clock) -> None:
    door = a_busy_door(clock)
    with door.take_on(3600, rows=10):
        assert door.expected_wait_seconds(3600) == 0


def test_a_request_waits_for_the_speech_that_has_no_row_yet(clock: Clock) -> None:
    door = a_busy_door(clock)
    with door.take_on(400, rows=40):  # three quarters of it wait, and ten seconds are spoken in one
        assert door.expected_wait_seconds(400) == pytest.approx(30)


def test_a_short_request_waits_little_behind_a_long_one_for_they_take_turns(clock: Clock) -> None:
    door = a_busy_door(clock)
    with door.take_on(4000, rows=1000):
        assert door.expected_wait_seconds(4000) == pytest.approx(396)
        assert door.expected_wait_seconds(2) == pytest.approx(0.198)


def test_too_long_a_wait_is_refused_with_the_time_after_which_it_isnt(clock: Clock) -> None:
    door = a_busy_door(clock)
    with door.take_on(1000, rows=100) as work:
        status, code, after_seconds = refused(lambda: door.take_on(1000))  # 90 s, at most 60 are waited
        assert (status, code) == (429, "overloaded")
        assert 30 <= after_seconds <= 31
        clock.now += 30
        work.spoke(300, rows=30)
        with door.take_on(1000):
            pass


def test_a_refusal_is_reckoned_no_more_exactly_than_it_is_told(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at everybody inside each time, on the event loop, just when there is no time to lose."""
    door, looks = a_busy_door(clock), 0
    usual = door._wait_after

    def counted(*args: Any) -> tuple[float, float]:
        nonlocal looks
        looks += 1
        return usual(*args)

    monkeypatch.setattr(door, "_wait_after", counted)
    with door.take_on(1000, rows=100):  # 100 s: seven halvings make a second of them
        looks = 0
        refused(lambda: door.take_on(1000))
    assert looks < 10


def test_what_has_been_spoken_is_waited_for_no_longer(clock: Clock) -> None:
    door = a_busy_door(clock)
    with door.take_on(400, rows=40) as work:
        work.spoke(300, rows=30)
        assert door.expected_wait_seconds(400) == 0
        assert door.seconds_in_flight == 100
    assert door.seconds_in_flight == 0


def test_capacity_is_learned_while_more_is_asked_for_than_there_are_rows(clock: Clock) -> None:
    door = a_busy_door(clock)
    assert door.capacity.seconds_per_second == 10
    with door.take_on(100_000, rows=10_000) as work:
        for _ in range(300):
            clock.now += 1
            work.spoke(40)
    assert door.capacity.seconds_per_second == pytest.approx(40, rel=0.03)


def test_an_idle_ingress_teaches_nothing(clock: Clock) -> None:
    door = a_busy_door(clock)
    with door.take_on(1000, rows=1) as work:
        clock.now += 1000
        work.spoke(1)
    assert door.capacity.seconds_per_second == 10


def test_twice_the_replicas_are_expected_to_speak_twice_as_much(clock: Clock) -> None:
    door = a_busy_door(clock)
    door.has_rows(20)
    assert door.capacity.seconds_per_second == 20


def test_batch_is_refused_earlier_and_interactive_doesnt_wait_for_it(clock: Clock) -> None:
    door = a_busy_door(clock)
    with door.take_on(500, rows=50, priority="batch"):
        assert door.expected_wait_seconds(500, priority="batch") == pytest.approx(40)
        assert 10 <= refused(lambda: door.take_on(500, priority="batch"))[2] <= 11  # half a minute is waited
        assert door.expected_wait_seconds(500) == 0
        with door.take_on(500):
            pass


def test_a_key_alone_may_use_all_and_another_gets_in_beside_it(clock: Clock) -> None:
    door = a_busy_door(clock)
    ann, bob = a_key("ann"), a_key("bob")
    comes_with(ann)
    with ExitStack() as annes, ExitStack() as bobs:
        annes.enter_context(door.let_in())
        annes.enter_context(door.take_on(690, rows=69))
        assert door.expected_wait_seconds(1000, ann) == pytest.approx(59)
        comes_with(bob)
        bobs.enter_context(door.let_in())
        assert door.expected_wait_seconds(1000, bob) == 0
        bobs.enter_context(door.take_on(200, rows=20))
        assert door.expected_wait_seconds(1000, bob) < 60
        comes_with(ann)
        assert refused(lambda: door.take_on(1000))[0] == 429


def test_a_key_beyond_its_share_leaves_the_last_places_to_others() -> None:
    door = Door(Settings(most_requests_in_flight=20))
    ann, bob = a_key("ann"), a_key("bob")
    with ExitStack() as inside:
        comes_with(bob)
        inside.enter_context(door.let_in())
        comes_with(ann)
        for _ in range(17):
            inside.enter_context(door.let_in())
        assert refused(door.let_in)[:2] == (429, "overloaded")
        comes_with(bob)
        for _ in range(2):
            inside.enter_context(door.let_in())


def test_a_key_is_held_to_its_requests_in_flight() -> None:
    door = Door(Settings())
    comes_with(a_key("ann", most_requests_in_flight=1))
    with door.let_in():
        assert refused(door.let_in)[:2] == (429, "rate_limit_exceeded")
        comes_with(a_key("bob"))
        with door.let_in():
            pass


def test_a_key_is_held_to_its_seconds_in_flight() -> None:
    door = Door(Settings())
    comes_with(a_key("ann", most_seconds_in_flight=10))
    with door.take_on(8):
        assert refused(lambda: door.take_on(3))[:2] == (429, "rate_limit_exceeded")
        with door.take_on(2):
            pass


def test_a_key_pays_for_a_long_text_by_waiting(clock: Clock) -> None:
    door = Door(Settings(), clock)
    comes_with(a_key("ann", seconds_per_minute=60))
    with door.take_on(90) as work:
        work.began(90)
        work.spoke(90)
    assert refused(lambda: door.take_on(1)) == (429, "rate_limit_exceeded", 31)  # 30 s too much, and one to spend
    clock.now += 31
    with door.take_on(1) as work:
        work.spoke(1)


def test_what_was_never_spoken_costs_a_key_nothing(clock: Clock) -> None:
    door = Door(Settings(), clock)
    comes_with(a_key("ann", seconds_per_minute=60))
    with door.take_on(90):
        pass  # the client left
    with door.take_on(1):
        pass


def test_what_was_begun_costs_a_key_also_when_it_hangs_up_before_the_end(clock: Clock) -> None:
    door = Door(Settings(), clock)
    comes_with(a_key("ann", seconds_per_minute=60))
    with door.take_on(90) as work:
        work.began(40)
        work.spoke(40)
        work.began(40)  # the client left, and the last 10 s were never asked for
    assert refused(lambda: door.take_on(1))[2] == 21
    clock.now += 21
    with door.take_on(1):
        pass


def test_a_key_gets_the_priority_that_it_may_have(clock: Clock) -> None:
    door = a_busy_door(clock)
    comes_with(a_key("ann", priorities=["batch"]))
    with door.take_on(1) as work:
        assert work.priority == "batch"
    with pytest.raises(ApiError, match="batch") as refusal, door.take_on(1, priority="interactive"):
        pass
    assert (refusal.value.status, refusal.value.param) == (403, "priority")
