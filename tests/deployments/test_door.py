"""Closing without cutting anybody off."""

from __future__ import annotations

import asyncio

import pytest

from deployments.door import Door
from deployments.errors import ApiError


def test_closing_waits_for_the_last_request_inside_and_refuses_new_ones() -> None:
    async def scenario() -> None:
        door = Door()
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
    asyncio.run(Door().close())
