"""What the ingress knows of those it asks: the model's facts, who is up, how much they speak at once."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn, Protocol

from ray.exceptions import RayTaskError

from deployments.errors import not_ready
from deployments.fan_out import PendingReply, ask
from voice_core.speech import ModelFacts

ANSWER_SECONDS = 0.5  # a replica with room answers in milliseconds
PATIENCE_SECONDS = 60.0  # for facts that nobody has told yet, from replicas that are up but full
LOOK_AGAIN_SECONDS = 0.5, 5.0  # while the facts are unknown, and then

# Of the rows there are: while the sound of one segment is made and travels, the next one waits at the decoder. Some of
# the segments that a replica takes (160 for 128 rows on a GPU) are left to those who come through another ingress.
ROWS_IN_HAND = 1.125
FEWEST_ALONE = 8  # segments of one request, however few rows there are
FEWEST_BESIDE_OTHERS = 2  # however small its share: one waits at the decoder while the other is spoken

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Running:
    """How many replicas the controller sees running, too busy to answer or not."""

    synthesizers: int
    composers: int
    ingresses: int = 1


class FleetHandles(Protocol):
    """The deployments that every request needs."""

    def facts(self) -> PendingReply[ModelFacts]: ...

    def composer_answers(self) -> PendingReply[bool]: ...

    def running(self) -> Running:
        """Ask the controller. Blocks, so it is called in a thread."""


class Fleet:
    """Asks once for what never changes, and looks now and then for what does."""

    def __init__(self, handles: FleetHandles, *, largest_share: float) -> None:
        self._handles = handles
        self._largest_share = largest_share
        self._facts: ModelFacts | None = None
        self._synthesizers = 1
        self._ingresses = 1

    async def watch(self, tell_rows: Callable[[int], None] = lambda _: None) -> None:
        """Keep count of the replicas, tell the rows there are, and learn the facts: of a new model from its replicas.

        An ingress may be new when the synthesizers are still the old ones, so facts are asked for again and again.
        """
        while True:
            try:
                running = await asyncio.to_thread(self._handles.running)
                self._synthesizers = running.synthesizers
                self._ingresses = max(1, running.ingresses)
                tell_rows(self.rows)
                if self._facts is None:
                    await self.facts()
                else:
                    with suppress(TimeoutError):  # replicas that are full answer late
                        self._facts = await self._told_facts(ANSWER_SECONDS)
            except Exception as error:  # whatever it is: requests meet it themselves, and are told
                logger.debug("Nothing new of the replicas: %s", error)
            await asyncio.sleep(LOOK_AGAIN_SECONDS[self._facts is not None])

    async def facts(self) -> ModelFacts:
        """Return what is known of the model; ask if nothing is."""
        if self._facts is None:
            try:
                self._facts = await self._told_facts(ANSWER_SECONDS)
            except TimeoutError:
                await self._check_running()
                self._facts = await self._told_facts(PATIENCE_SECONDS)
        return self._facts

    async def check_ready(self) -> ModelFacts:
        """Return the facts if a request that came now would be spoken, at once or after those before it."""
        told, _ = await asyncio.gather(self._asked_facts(), self._ask_composer())
        return told

    @property
    def rows(self) -> int:
        """Return how many rows of all replicas this ingress may count on, beside the other ingresses; 0: none is up."""
        if self._facts is None or not self._synthesizers:
            return min(1, self._synthesizers)
        return max(1, self._facts.max_rows * self._synthesizers // self._ingresses)

    def segments_at_once(self, facts: ModelFacts, *, samples: int, wanted_rows: Sequence[int]) -> int:
        """Return how many segments of a request may be under way: of a request alone as many as fill the decoders.

        `wanted_rows` are those of all requests here, this one among them. The decoder shares its rows out fairly among
        the segments that it has. What it has no room for waits in Serve's queue, first come, first served: so requests
        together send little more than it takes, or whoever comes last would stand behind all that the others have sent.
        """
        rows: float = facts.max_rows * max(1, self._synthesizers)
        if len(wanted_rows) <= 1:
            return max(FEWEST_ALONE, math.ceil(ROWS_IN_HAND * rows / samples))
        share = min(self._largest_share * rows, fair_share(rows, wanted_rows))
        return max(FEWEST_BESIDE_OTHERS, math.ceil(ROWS_IN_HAND * share / samples))

    async def _asked_facts(self) -> ModelFacts:
        try:
            self._facts = await self._told_facts(ANSWER_SECONDS)
        except TimeoutError:
            await self._check_running()
            if self._facts is None:
                _not_up("synthesizer")
        return self._facts

    async def _ask_composer(self) -> None:
        try:
            await ask(self._handles.composer_answers, timeout_seconds=ANSWER_SECONDS)
        except TimeoutError:
            await self._check_running()

    async def _told_facts(self, timeout_seconds: float) -> ModelFacts:
        try:
            return await ask(self._handles.facts, timeout_seconds=timeout_seconds)
        except RayTaskError as error:
            raise not_ready("the decoder has stopped") from error

    async def _check_running(self) -> None:
        """Full replicas answer late, but they are up; only the controller can tell them from dead ones."""
        running = await asyncio.to_thread(self._handles.running)
        if not running.synthesizers:
            _not_up("synthesizer")
        if not running.composers:
            _not_up("composer")


def fair_share(rows: float, wanted_rows: Sequence[int]) -> float:
    """Return the most that one may have so that all rows are taken: who wants less leaves it to the others.

    (Max-min fairness.) Infinite if there are enough for all.
    """
    for taken, wanted in enumerate(ordered := sorted(wanted_rows)):
        share = rows / (len(ordered) - taken)
        if wanted > share:
            return share
        rows -= wanted
    return math.inf


def _not_up(who: str) -> NoReturn:
    raise not_ready(f"no {who} replica is up")
