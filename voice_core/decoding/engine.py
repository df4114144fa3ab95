"""The decoder's own thread: rows go in from any thread, come out as futures, and are spoken together.

    engine = Engine(decoder)
    handles = engine.submit(rows)          # from any thread, returns at once
    spoken = handles[0].future.result()    # SpokenRow, or the error of this row alone

Whatever waits when the decoder gets free is taken in one pass, so requests that arrive while a pass is being spoken are
gathered for the next one.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

from voice_core.decoding.decoder import BatchDecoder
from voice_core.decoding.rows import Row, SpokenRow
from voice_core.errors import SynthesisError, VoiceError

logger = logging.getLogger(__name__)


class RowHandle:
    """A row on its way: what will have come out of it, and the way to call it off."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.future: Future[SpokenRow] = Future()
        self.future.set_running_or_notify_cancel()  # only `cancel` below calls it off, never the future's own
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        """Let the row end at the decoder's next step; its future then tells what was said until there."""
        self.cancelled.set()


class Engine:
    """Owns a decoder and the one thread that touches it."""

    def __init__(self, decoder: BatchDecoder) -> None:
        self._decoder = decoder
        self._waiting: deque[RowHandle] = deque()
        self._live: dict[int, RowHandle] = {}  # by the decoder's number
        self._wake = threading.Condition()
        self._closing = False
        self.passes = 0  # times that rows were taken into an idle decoder
        self.rows_spoken = 0
        self._thread = threading.Thread(target=self._run, name="decoder", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, rows: Sequence[Row]) -> list[RowHandle]:
        """Put rows in the queue, together: a pass that has room takes all of them."""
        handles = [RowHandle(row) for row in rows]
        with self._wake:
            if self._closing:
                raise SynthesisError("the decoder is being shut down")
            self._waiting.extend(handles)
            self._wake.notify()
        return handles

    def close(self) -> None:
        """Stop the thread; rows that are still here fail with SynthesisError."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._wait_for_rows():
            try:
                self._speak_one_pass()
            except Exception as error:  # whatever it is, it must reach those who wait, and the next rows be spoken
                logger.exception("A pass of the decoder failed")
                self._fail_live(error)
        self._fail(list(self._waiting), SynthesisError("the decoder was shut down"))

    def _wait_for_rows(self) -> bool:
        with self._wake:
            self._wake.wait_for(lambda: self._waiting or self._closing)
            return not self._closing

    def _speak_one_pass(self) -> None:
        self._admit()
        while self._live and not self._closing:
            self._drop_cancelled()
            self._resolve(self._decoder.retire())
            if self._live:
                self._decoder.step()
        if self._live:
            self._fail_live(SynthesisError("the decoder was shut down"))

    def _admit(self) -> None:
        """Take as many waiting rows as there are slots; a row that can't be spoken fails alone."""
        with self._wake:
            handles = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._decoder.free_slots))]
        fitting = []
        for handle in handles:
            try:
                self._decoder.check(handle.row)
            except VoiceError as error:
                handle.future.set_exception(error)
            else:
                fitting.append(handle)
        if not fitting:
            return
        self.passes += 1
        try:
            numbers = self._decoder.admit([handle.row for handle in fitting])
        except Exception as error:
            self._fail(fitting, error)
            raise
        self._live.update(zip(numbers, fitting, strict=True))

    def _drop_cancelled(self) -> None:
        gone = [number for number, handle in self._live.items() if handle.cancelled.is_set()]
        for number in gone:
            spoken = self._decoder.cancel(number)
            assert spoken is not None, "a live row is in a slot"
            self._resolve([(number, spoken)])

    def _resolve(self, spoken: Sequence[tuple[int, SpokenRow]]) -> None:
        for number, row in spoken:
            self.rows_spoken += 1
            self._live.pop(number).future.set_result(row)

    def _fail_live(self, error: Exception) -> None:
        for number in list(self._live):
            self._decoder.cancel(number)
        self._fail(list(self._live.values()), error)
        self._live.clear()

    @staticmethod
    def _fail(handles: Sequence[RowHandle], error: Exception) -> None:
        for handle in handles:
            handle.future.set_exception(error)
