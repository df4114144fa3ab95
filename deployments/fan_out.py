"""Asks other deployments: several calls at once, each repeated if its replica dies, none left behind."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Protocol, TypeVar

from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from deployments import metrics
from voice_core.errors import SynthesisError

# Before a call is made again to a decoder that failed: by then one that is beyond use has left its process, or others
# have left memory. As many retries are made where a replica died; who meets three is in a cluster in trouble.
REST_SECONDS = (1.0, 5.0)

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


async def ask_again(call: Callable[[], PendingReply[Reply]]) -> Reply:
    """Return the reply to a call that is made again if its replica dies, or could do it only this time not.

    A segment carries its seeds, so a repeat on another replica draws the same.
    """
    for rest_seconds in REST_SECONDS:
        try:
            return await ask(call)
        except (RayActorError, ObjectLostError):  # a node may also die when a reply is ready and not yet fetched
            metrics.count("voice_segment_retries_total", reason="replica_died")
        except (SynthesisError, RayTaskError) as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if not isinstance(cause, SynthesisError) or not cause.may_succeed_later:
                raise
            metrics.count("voice_segment_retries_total", reason="decoder_failed")
            await asyncio.sleep(rest_seconds)
    return await ask(call)


async def in_order(
    work: Callable[[Question], Awaitable[Reply]], questions: Sequence[Question], at_once: Callable[[], int]
) -> AsyncGenerator[Reply]:
    """Work on so many questions at once, on the next ones as others are done; yield the replies in order.

    The first failure, and whoever closes the generator, cancels what is under way. `at_once` is asked again before
    every question that is begun.
    """
    waiting = deque(enumerate(questions))
    under_way: dict[asyncio.Future[Reply], int] = {}
    replies: dict[int, Reply] = {}
    next_place = 0
    try:
        while next_place < len(questions):
            while waiting and len(under_way) < max(1, at_once()):
                place, question = waiting.popleft()
                under_way[asyncio.ensure_future(work(question))] = place
            done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                replies[under_way.pop(task)] = task.result()
            while next_place in replies:
                yield replies.pop(next_place)
                next_place += 1
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def ask_each(
    call: Callable[[Question], PendingReply[Reply]], questions: Sequence[Question], at_once: Callable[[], int]
) -> list[Reply]:
    """Ask so many questions at once, the next as replies come; return the replies in the order of the questions."""

    def work(question: Question) -> Awaitable[Reply]:
        return ask_again(lambda: call(question))

    return await all_of(in_order(work, questions, at_once))


async def all_of(replies: AsyncGenerator[Reply]) -> list[Reply]:
    """Wait for everything; nothing is left under way however that ends."""
    async with aclosing(replies):
        return [reply async for reply in replies]
