"""The decoder's own thread: rows go in from any thread, come out as futures, and are spoken together.

    engine = Engine(decoder)
    handles = engine.submit(rows, request="42")   # from any thread, returns at once
    spoken = handles[0].future.result()           # SpokenRow, or the error of this row alone

Rows are admitted between two steps of those that are being spoken. An admission is done in pieces, and only as many of
them at a time as the running rows can spare (`PATIENCE_STEPS`).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice

import torch

from voice_core.decoding.decoder import BatchDecoder, Outcome
from voice_core.decoding.prefill import start_of
from voice_core.decoding.rows import Row, SpokenRow
from voice_core.decoding.turns import Turns
from voice_core.errors import SynthesisError, as_synthesis_error, ran_out_of_memory
from voice_core.speech import FinishReason

logger = logging.getLogger(__name__)

# How long, in times of a step, running rows are held up at a time for those that are being admitted.
PATIENCE_STEPS = 1.0

STEP_TIME_SHARE = 0.25  # of the latest step in the mean of their times

# Of the texts and prompts that are admitted together while others speak: bounds what one piece can take.
GROUP_POSITIONS = {"cpu": 256, "cuda": 4096}
# … and while nobody does, in flight: more gain nothing, and who comes a moment later would have to wait for all of it.
IDLE_GROUP_POSITIONS = 4096

DEFAULT_LARGEST_SHARE = 0.5  # of the slots, for one request while others wait


@dataclass(frozen=True)
class EngineCounters:
    """What an engine has done since it was made."""

    passes: int  # times that rows were taken into an idle decoder
    rows_spoken: int
    steps: int  # of the decoder
    row_steps: int  # codes drawn; divided by steps and slots, the share of the slots that was taken
    rows_active: int = 0  # that are being spoken now
    rows_waiting: int = 0  # now, for a slot or their admission


class RowHandle:
    """A row on its way: what will have come out of it, how far it is, and the way to call it off."""

    def __init__(self, row: Row, request: str, *, batch: bool = False) -> None:
        self.row = row
        self.request = request
        self.batch = batch  # in no hurry: every other row that waits goes first
        self.chosen_at: float | None = None  # on time.time's clock: when it got its slot,
        self.admitted_at: float | None = None  # and when its text and prompt were read
        self.future: Future[SpokenRow] = Future()
        self.future.set_running_or_notify_cancel()  # only `cancel` below calls it off, never the future's own
        self.cancelled = False
        self.alone = False  # it was in an admission that failed, and has the next one to itself
        self.admission = 0  # the engine's count of them: rows of one number came in together
        self.called_off: threading.Event | None = None  # the engine's, while it has the row: some row was cancelled

    def cancel(self) -> None:
        """Let the row end at the decoder's next step; its future then tells what was said until there."""
        self.cancelled = True
        if self.called_off is not None:
            self.called_off.set()


class Engine:
    """Owns a decoder and the one thread that touches it.

    Requests take turns, first come, first served; while others wait that are in a hurry, one request gets no more slots
    than `largest_share` of them.
    With `in_flight` false rows wait until all that are being spoken have ended.
    """

    def __init__(
        self, decoder: BatchDecoder, *, in_flight: bool = True, largest_share: float = DEFAULT_LARGEST_SHARE
    ) -> None:
        self._decoder = decoder
        self._in_flight = in_flight
        self._turns = Turns(max(1, int(largest_share * decoder.slots.slots)))
        self._group_positions = GROUP_POSITIONS.get(decoder.network.device.type, GROUP_POSITIONS["cpu"])
        self._waiting: deque[RowHandle] = deque()
        self._entering: list[RowHandle] = []
        self._admission: Generator[None, None, list[int]] | None = None
        self._admissions = 0
        self._called_off = threading.Event()
        self._live: dict[int, RowHandle] = {}  # by the decoder's number
        self._step_seconds = 0.0  # a running mean
        self._most_live = decoder.slots.slots  # rows; fewer after a step that found too little memory
        self._wake = threading.Condition()
        self._closing = False
        self.failure: str | None = None  # why the thread ended, unless it was closed
        self._passes = 0
        self._rows_spoken = 0
        self._thread = threading.Thread(target=self._run, name="decoder", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def counters(self) -> EngineCounters:
        decoder = self._decoder
        return EngineCounters(
            passes=self._passes,
            rows_spoken=self._rows_spoken,
            steps=decoder.steps,
            row_steps=decoder.row_steps,
            rows_active=len(self._live),
            rows_waiting=len(self._waiting) + sum(not handle.future.done() for handle in self._entering),
        )

    def submit(self, rows: Sequence[Row], request: str = "") -> list[RowHandle]:
        """Put the rows of one request in the queue together."""
        handles = [RowHandle(row, request) for row in rows]
        self.enqueue(handles)
        return handles

    def enqueue(self, handles: Sequence[RowHandle]) -> None:
        """Put rows of any requests in the queue in one go, so that they can be admitted together.

        A row that can never be spoken fails here, alone.
        """
        fitting = [handle for handle in handles if self._fits(handle)]
        with self._wake:
            if self._closing:
                raise self._end()
            for handle in fitting:
                handle.called_off = self._called_off
                if handle.cancelled:
                    self._called_off.set()
            self._waiting.extend(fitting)
            self._wake.notify()

    def close(self) -> None:
        """Stop the thread; rows that are still here fail with SynthesisError."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _fits(self, handle: RowHandle) -> bool:
        """Tell if the row can be spoken here; if it can't, it fails. In the thread of whoever brings it."""
        try:
            self._decoder.check(handle.row)
        except Exception as error:
            self._fail([handle], error)
            return False
        return True

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                try:
                    self._admit_a_little()
                    self._let_cancelled_go()
                    self._step()
                except Exception as error:  # whatever it is, it must reach those who wait, and the next be spoken
                    logger.exception("The decoder failed")
                    self._fail_live(error)
        except Exception as error:
            logger.exception("The decoder is beyond use")
            self.failure = f"the decoder broke down: {error}"
        finally:
            with self._wake:
                self._closing = True
            self._fail([*self._live.values(), *self._entering, *self._waiting], self._end())

    def _end(self) -> SynthesisError:
        """Return what those are told who are still here, or come, at the end: another decoder may do it."""
        return SynthesisError(self.failure or "the decoder is being shut down", may_succeed_later=True)

    def _wait_for_work(self) -> bool:
        with self._wake:
            self._wake.wait_for(lambda: self._waiting or self._live or self._admission or self._closing)
            return not self._closing

    def _step(self) -> None:
        if not self._live:
            return
        start = time.perf_counter()
        self._step_or_make_room()
        if self._admission is not None or (self._in_flight and self._waiting and self._free_slots > 0):
            self._synchronise()  # or the next piece of an admission would wait for this step, and be blamed for it
        outcomes = self._decoder.retire()  # on a GPU only every few steps wait for the device, here
        self._step_seconds += STEP_TIME_SHARE * (time.perf_counter() - start - self._step_seconds)
        self._resolve(outcomes)

    def _step_or_make_room(self) -> None:
        """Step; where memory doesn't suffice, those who come in or came last fail, and the others speak on.

        Of rows that all came together the later half fails. As many as remain may speak from then on, and one more for
        every row that ends: or those who wait would come in and fail one after the other.
        """
        while self._live:
            try:
                self._decoder.step()
            except Exception as error:
                if not ran_out_of_memory(error):
                    raise
                if self._admission is not None:
                    logger.exception("No memory for a step beside an admission; its %d rows fail", len(self._entering))
                    self._fail(self._give_up_admission(), error)
                    self._most_live = len(self._live)
                elif len(self._live) == 1:
                    raise
                else:
                    came_last = self._came_last()
                    rows, last = len(self._live), len(came_last)
                    logger.exception("No memory for a step of %d rows; the last %d fail", rows, last)
                    self._fail([self._live[number] for number in came_last], error)
                    for number in came_last:
                        self._decoder.cancel(number)
                        del self._live[number]
                    self._most_live = len(self._live)
            else:
                return

    def _came_last(self) -> list[int]:
        """Return the numbers of the rows of the latest admission; the later half, if nobody else speaks."""
        latest = max(handle.admission for handle in self._live.values())
        numbers = sorted(number for number, handle in self._live.items() if handle.admission == latest)
        return numbers if len(numbers) < len(self._live) else numbers[(len(numbers) + 1) // 2 :]

    def _admit_a_little(self) -> None:
        """Go on with an admission, or begin one, for as long as the running rows have patience."""
        deadline = time.perf_counter() + PATIENCE_STEPS * self._step_seconds
        while not self._closing and (not self._live or time.perf_counter() < deadline):
            self._let_cancelled_go()
            if self._admission is None and not self._begin_admission():
                return
            try:
                admitted = self._next_piece()
            except Exception as error:
                logger.exception("An admission of %d rows failed", len(self._entering))
                self._synchronise()  # a device that is beyond use says so again, and they are told that by `_run`
                self._try_apart(error)
            else:
                self._take_in(admitted)

    def _next_piece(self) -> list[int]:
        """Do one more piece of the admission; return the rows' numbers after the last one."""
        assert self._admission is not None, "an admission has begun"
        try:
            next(self._admission)
            self._synchronise()
        except StopIteration as end:
            numbers: list[int] | None = end.value
            assert numbers is not None, "an admission that failed is not gone on with"
            return numbers
        return []

    def _take_in(self, numbers: Sequence[int]) -> None:
        """Let rows whose admission is over speak; those that nobody wanted any more meanwhile go at once."""
        if not numbers:
            return
        entered = dict(zip(numbers, self._entering, strict=True))
        self._entering, self._admission = [], None
        self._live |= entered  # all of them at once: whatever fails from here on reaches each
        for number, handle in entered.items():
            if handle.future.done():
                self._decoder.cancel(number)
                del self._live[number]
            else:
                handle.admitted_at = time.time()
        self._resolve(self._decoder.retire())

    def _try_apart(self, error: Exception) -> None:
        """After an admission that failed: one bad row must not cost its neighbours their speech.

        They wait in front of all others, for they have had their turns, and come in one by one.
        """
        together = len(self._entering) > 1
        wanted = self._give_up_admission()
        if not together:
            self._fail(wanted, error)
            return
        for handle in wanted:
            handle.alone = True
        with self._wake:
            self._waiting.extendleft(reversed(wanted))

    def _give_up_admission(self) -> list[RowHandle]:
        """Let go of what an admission has in memory; return those of its rows that are still wanted."""
        assert self._admission is not None, "an admission has begun"
        self._admission.close()
        entering, self._entering, self._admission = self._entering, [], None
        return [handle for handle in entering if not handle.future.done()]

    def _begin_admission(self) -> bool:
        """Choose rows that wait and have a slot; False if there are none."""
        if self._live and not self._in_flight:
            return False
        self._entering = self._chosen()
        if not self._entering:
            return False
        self._admissions += 1
        for handle in self._entering:
            handle.chosen_at = time.time()
            handle.admission = self._admissions
        self._passes += not self._live
        self._admission = self._decoder.admission([handle.row for handle in self._entering])
        return True

    def _chosen(self) -> list[RowHandle]:
        """Take rows out of the queue for the next admission."""
        if not self._waiting or self._free_slots <= 0:
            return []
        with self._wake:
            waiting = list(self._waiting)
        chosen, left = self._share_out(waiting)
        with self._wake:  # others have come meanwhile, and nobody but this thread lets any go
            self._waiting = deque([*left, *islice(self._waiting, len(waiting), None)])
        return chosen

    @property
    def _free_slots(self) -> int:
        return min(self._decoder.free_slots, self._most_live - len(self._live))

    def _share_out(self, waiting: Sequence[RowHandle]) -> tuple[list[RowHandle], list[RowHandle]]:
        """Return who gets a slot now, in the order of their turns, and who waits on, in the order they came."""
        if waiting[0].alone:
            return [waiting[0]], [*waiting[1:]]
        held = Counter(handle.request for handle in self._live.values())
        read: set[Hashable] = set()  # samples of one text share it; of one prompt, if they share the target too
        positions, most_positions = 0, self._most_positions()
        granted: dict[int, RowHandle] = {}
        batch = {handle.request for handle in waiting if handle.batch}
        for place in self._turns.order([handle.request for handle in waiting], held, batch):
            row = waiting[place].row
            for brought, length in ((row.text_ids, len(row.text_ids)), (start_of(row), row.prefilled_frames)):
                positions += length * (brought not in read)
                read.add(brought)
            crowded = positions > most_positions
            if len(granted) == self._free_slots or (granted and crowded):
                break
            granted[place] = waiting[place]
            self._turns.take(waiting[place].request)
        return list(granted.values()), [handle for place, handle in enumerate(waiting) if place not in granted]

    def _most_positions(self) -> float:
        """Return how much may be read in one admission."""
        if self._live:
            return self._group_positions
        return IDLE_GROUP_POSITIONS if self._in_flight else math.inf  # nobody else comes before the pass has ended

    def _let_cancelled_go(self) -> None:
        """End the rows that nobody wants any more: those that wait, that are being admitted, and that speak.

        An admission goes on for those of its rows that are wanted.
        """
        if not self._called_off.is_set():
            return
        self._called_off.clear()  # first: who is cancelled from now on says so again
        unwanted: list[RowHandle] = []
        wanted: deque[RowHandle] = deque()
        with self._wake:
            for handle in self._waiting:
                (unwanted if handle.cancelled else wanted).append(handle)
            self._waiting = wanted
        unwanted += [handle for handle in self._entering if handle.cancelled and not handle.future.done()]
        for handle in unwanted:
            self._end_unspoken(handle)
        if self._admission is not None and all(handle.future.done() for handle in self._entering):
            self._give_up_admission()
        for number in [number for number, handle in self._live.items() if handle.cancelled]:
            outcome = self._decoder.cancel(number)
            assert outcome is not None, "a live row is in a slot"
            self._resolve([(number, outcome)])

    def _end_unspoken(self, handle: RowHandle) -> None:
        handle.future.set_result(SpokenRow((), FinishReason.CANCELLED, self._decoder.config.audio_vocab_size))

    def _resolve(self, outcomes: Sequence[tuple[int, Outcome]]) -> None:
        for number, outcome in outcomes:
            self._rows_spoken += 1
            self._most_live = min(self._most_live + 1, self._decoder.slots.slots)
            future = self._live.pop(number).future
            if isinstance(outcome, SynthesisError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _fail_live(self, error: Exception) -> None:
        """Fail all rows that are being spoken, once decoder and device have shown that they can go on.

        If they can't, their error is raised: `_run` tells it to everybody, and that another decoder may do it.
        """
        for number in self._live:
            self._decoder.cancel(number)
        self._synchronise()
        handles = list(self._live.values())
        self._live.clear()
        self._fail(handles, error)

    def _synchronise(self) -> None:
        """Wait for what this thread gave the device: the clock then tells what a piece took; a broken one fails."""
        if self._decoder.network.device.type == "cuda":
            torch.cuda.current_stream(self._decoder.network.device).synchronize()

    @staticmethod
    def _fail(handles: Sequence[RowHandle], error: Exception) -> None:
        """Tell those who wait."""
        told = as_synthesis_error(error, "the decoder")
        for handle in handles:
            if not handle.future.done():  # or called off while it was being admitted
                handle.future.set_exception(told)
