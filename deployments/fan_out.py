"""Asks other deployments: many calls at once, each repeated if its replica dies, none left behind."""

from __future__ import annotations

import asyncio
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


async def ask_each(call: Callable[[Question], PendingReply[Reply]], questions: Sequence[Question]) -> list[Reply]:
    """Ask all questions at once, return the replies in their order; the first failure cancels the others."""
    tasks = [asyncio.create_task(_ask_again(call, question)) for question in questions]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _ask_again(call: Callable[[Question], PendingReply[Reply]], question: Question) -> Reply:
    """A question carries its seeds, so a repeat on another replica gives the same speech."""
    for _ in range(MOST_RETRIES):
        try:
            return await ask(lambda: call(question))
        except RayActorError:
            continue
    return await ask(lambda: call(question))
