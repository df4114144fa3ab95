"""Closing without cutting anybody off."""

from __future__ import annotations

import asyncio

import pytest

from deployments.door import Door
from deployments.errors import ApiError
from deployments.settings import Settings


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


def test_an_empty_room_closes_at_once() -> None:
    asyncio.run(Door(Settings()).close())


def test_a_full_house_refuses_the_next_until_somebody_leaves() -> None:
    door = Door(Settings(most_requests_in_flight=1))
    with door.let_in(), pytest.raises(ApiError) as refusal, door.let_in():
        pass
    assert (refusal.value.status, refusal.value.type) == (429, "rate_limit_error")
    assert "Retry-After" in refusal.value.headers
    with door.let_in():
        pass


def test_speech_in_flight_is_counted_in_seconds() -> None:
    door = Door(Settings(longest_speech_seconds=60, most_seconds_in_flight=100))
    with door.take_on(60), pytest.raises(ApiError) as refusal, door.take_on(41):
        pass
    assert refusal.value.status == 429
    with door.take_on(60), door.take_on(40):
        pass
