"""Calls to other deployments: together, repeated when a replica dies, cancelled when nobody waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_crew import Reply
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from deployments.fan_out import ask, ask_each
from voice_core.errors import SynthesisError


def together() -> int:
    return 100


class Desk:
    """Answers every question by itself after a moment, and counts how many it has at once."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.at_once: list[int] = []
        self._now = 0

    def ask(self, question: int) -> Reply:
        self.asked.append(question)
        return Answering(self, question)


class Answering(Reply):
    def __init__(self, desk: Desk, question: int) -> None:
        super().__init__(question)
        self._desk = desk

    async def _wait(self) -> object:
        self._desk._now += 1
        self._desk.at_once.append(self._desk._now)
        await asyncio.sleep(0.001)
        self._desk._now -= 1
        return await super()._wait()


def test_only_so_many_questions_are_under_way_and_the_first_go_first() -> None:
    desk = Desk()
    assert asyncio.run(ask_each(desk.ask, range(20), lambda: 3)) == list(range(20))
    assert desk.asked == list(range(20))
    assert max(desk.at_once) == 3


def test_a_caller_gives_way_as_soon_as_others_come() -> None:
    desk = Desk()
    asyncio.run(ask_each(desk.ask, range(20), lambda: 8 if len(desk.asked) < 8 else 2))
    assert max(desk.at_once[:8]) == 8
    assert max(desk.at_once[-8:]) == 2


def test_after_a_failure_nothing_more_is_asked() -> None:
    asked: list[int] = []

    def fail(question: int) -> Reply:
        asked.append(question)
        return Reply(ValueError("no"))

    with pytest.raises(ValueError, match="no"):
        asyncio.run(ask_each(fail, range(20), lambda: 2))
    assert asked == [0, 1]


def test_replies_come_in_the_order_of_the_questions() -> None:
    assert asyncio.run(ask_each(Reply, [3, 1, 2], together)) == [3, 1, 2]


def test_one_failure_cancels_the_other_calls() -> None:
    waiting = Reply(hangs=True)
    calls = {"fails": Reply(ValueError("no")), "waits": waiting}

    async def scenario() -> None:
        with pytest.raises(ValueError, match="no"):
            await ask_each(calls.__getitem__, ["waits", "fails"], together)
        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert waiting.cancelled


def test_a_caller_who_leaves_cancels_all_calls() -> None:
    calls = [Reply(hangs=True), Reply(hangs=True)]

    async def scenario() -> None:
        asking = asyncio.create_task(ask_each(calls.__getitem__, [0, 1], together))
        await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(scenario())
    assert all(call.cancelled for call in calls)


@pytest.mark.parametrize(
    "death",
    [
        RayActorError(),
        ObjectLostError("id", None, ""),  # the node died between the speech and its fetching
        RayTaskError("speak", "traceback", SynthesisError("the decoder broke down", may_succeed_later=True)),
    ],
)
@pytest.mark.parametrize(("deaths", "spoken"), [(0, True), (1, True), (2, True), (3, False)])
def test_a_call_survives_the_death_of_two_replicas(deaths: int, spoken: bool, death: Exception) -> None:
    outcomes = [Reply(death) for _ in range(deaths)] + [Reply("speech")]
    asked = iter(outcomes)

    async def scenario() -> list[Any]:
        return await ask_each(lambda _: next(asked), ["text"], together)

    if spoken:
        assert asyncio.run(scenario()) == ["speech"]
    else:
        with pytest.raises(type(death)):
            asyncio.run(scenario())


def test_what_fails_for_good_is_asked_once() -> None:
    outcomes = iter([Reply(RayTaskError("speak", "traceback", SynthesisError("no codes"))), Reply("speech")])

    async def scenario() -> None:
        await ask_each(lambda _: next(outcomes), ["text"], together)

    with pytest.raises(RayTaskError):
        asyncio.run(scenario())


def test_a_call_that_takes_too_long_is_cancelled() -> None:
    late = Reply(hangs=True)

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            await ask(lambda: late, timeout_seconds=0.01)

    asyncio.run(scenario())
    assert late.cancelled
