"""Calls to other deployments: together, repeated when a replica dies, cancelled when nobody waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_crew import Reply
from ray.exceptions import RayActorError

from deployments.fan_out import ask, ask_each


def test_replies_come_in_the_order_of_the_questions() -> None:
    assert asyncio.run(ask_each(Reply, [3, 1, 2])) == [3, 1, 2]


def test_one_failure_cancels_the_other_calls() -> None:
    waiting = Reply(hangs=True)
    calls = {"fails": Reply(ValueError("no")), "waits": waiting}

    async def scenario() -> None:
        with pytest.raises(ValueError, match="no"):
            await ask_each(calls.__getitem__, ["waits", "fails"])
        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert waiting.cancelled


def test_a_caller_who_leaves_cancels_all_calls() -> None:
    calls = [Reply(hangs=True), Reply(hangs=True)]

    async def scenario() -> None:
        asking = asyncio.create_task(ask_each(calls.__getitem__, [0, 1]))
        await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(scenario())
    assert all(call.cancelled for call in calls)


@pytest.mark.parametrize(("deaths", "spoken"), [(0, True), (1, True), (2, True), (3, False)])
def test_a_call_survives_the_death_of_two_replicas(deaths: int, spoken: bool) -> None:
    outcomes = [Reply(RayActorError()) for _ in range(deaths)] + [Reply("speech")]
    asked = iter(outcomes)

    async def scenario() -> list[Any]:
        return await ask_each(lambda _: next(asked), ["text"])

    if spoken:
        assert asyncio.run(scenario()) == ["speech"]
    else:
        with pytest.raises(RayActorError):
            asyncio.run(scenario())


def test_a_call_that_takes_too_long_is_cancelled() -> None:
    late = Reply(hangs=True)

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            await ask(lambda: late, timeout_seconds=0.01)

    asyncio.run(scenario())
    assert late.cancelled
