"""Asks other deployments: several calls at once, each repeated if its replica dies, none left behind."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from ray.exceptions import RayActorError

MOST_RETRIES = 2  # of one call; a call that meets three dying replicas is a cluster in trouble

Question = TypeVar("Question")
Reply = TypeVar("Reply")
Reply_co = TypeVar("Reply_co", covariant=True)


class PendingReply(Awaitable[Reply_co], Protocol[Reply_co]):
    """What a deployment handle gives back at once: awaitable, and to be cancelled by name."""

    def cancel(self) -> None: ...


async def ask(call: Callable[[], PendingReply[Reply]], *, timeout_seconds: float | None = None) -> Reply:
    """Return the reply to one call, which is cancelled at its replica if nobody waits for it any more."""
    pending = call()
    try:
        async with asyncio.timeout(timeout_seconds):
            return await pending
    except (asyncio.CancelledError, TimeoutError):
        pending.cancel()  # Ray goes on with a call whose awaiting was cancelled
        raise


async def ask_each(
    call: Callable[[Question], PendingReply[Reply]], questions: Sequence[Question], at_once: Callable[[], int]
) -> list[Reply]:
    """Ask so many questions at once, the next as replies come; return the replies in the order of the questions.

    The first failure cancels the calls that are under way. `at_once` is asked again before every call.
    """
    waiting = deque(enumerate(questions))
    under_way: dict[asyncio.Task[Reply], int] = {}
    replies: dict[int, Reply] = {}
    try:
        while waiting or under_way:
            while waiting and len(under_way) < max(1, at_once()):
                place, question = waiting.popleft()
                under_way[asyncio.create_task(_ask_again(call, question))] = place
            done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                replies[under_way[task]] = task.result()
                del under_way[task]
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
    return [replies[place] for place in range(len(questions))]


async def _ask_again(call: Callable[[Question], PendingReply[Reply]], question: Question) -> Reply:
    """A question carries its seeds, so a repeat on another replica gives the same speech."""
    for _ in range(MOST_RETRIES):
        try:
            return await ask(lambda: call(question))
        except RayActorError:
            continue
    return await ask(lambda: call(question))
