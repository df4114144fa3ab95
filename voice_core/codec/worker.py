"""The codec's own thread, so that turning finished rows into sound never delays the next step of the decoder."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
import torch
from numpy.typing import NDArray

from voice_core.codec.codec import MAX_PASS_FRAMES, Codec
from voice_core.errors import SynthesisError, as_synthesis_error

logger = logging.getLogger(__name__)

Sounds = list[NDArray[np.float32]]


class _Task:
    def __init__(self, items: Sequence[Sequence[int]]) -> None:
        self.items = items
        self.frames = sum(map(len, items))
        self.future: Future[Sounds] = Future()
        self.future.set_running_or_notify_cancel()


class CodecWorker:
    """Takes codes from any thread, first come, first served.

    What waits when the codec gets free goes through it in one masked batch, as much as a pass holds, if it gains from
    batches; if it doesn't, everything is ready as soon as its own turn is over.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._waiting: deque[_Task] = deque()
        self._taken: list[_Task] = []  # that are being decoded
        self._wake = threading.Condition()
        self._closing = False
        self.failure: str | None = None  # why the thread ended, unless it was closed
        self._thread = threading.Thread(target=self._run, name="codec", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, items: Sequence[Sequence[int]]) -> Future[Sounds]:
        """Return the future sounds of lists of codes, [N] float32 each, in their order."""
        task = _Task(items)
        with self._wake:
            if self._closing:
                raise self._end()
            self._waiting.append(task)
            self._wake.notify()
        return task.future

    def close(self) -> None:
        """Decode what was submitted before, then stop."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._codec.own_stream():
                while self._take():
                    self._decode(self._taken)
                    self._taken = []
        except Exception as error:
            logger.exception("The codec is beyond use")
            self.failure = f"the codec broke down: {error}"
        finally:
            with self._wake:
                self._closing = True
            for task in (*self._taken, *self._waiting):
                if not task.future.done():
                    task.future.set_exception(self._end())

    def _end(self) -> SynthesisError:
        """Return what those are told who are still here, or come, at the end: another codec may do it."""
        return SynthesisError(self.failure or "the codec is being shut down", may_succeed_later=True)

    def _take(self) -> bool:
        """Wait for tasks and take as many as one pass holds; False if the worker is closed and none is left."""
        with self._wake:
            self._wake.wait_for(lambda: self._waiting or self._closing)
            frames = 0
            while self._waiting:
                frames += self._waiting[0].frames
                if self._taken and (frames > MAX_PASS_FRAMES or not self._codec.batched):
                    break
                self._taken.append(self._waiting.popleft())
        return bool(self._taken)

    def _decode(self, tasks: Sequence[_Task]) -> None:
        try:
            sounds = iter(self._codec.decode_batch([item for task in tasks for item in task.items]))
        except Exception as error:
            failure = error.with_traceback(None)  # its frames hold what the pass has on the device
        else:
            for task in tasks:
                task.future.set_result([next(sounds) for _ in task.items])
            return
        self._synchronise()  # a device that is beyond use says so again, and they are told that by `_run`
        self._decode_apart(tasks, failure)

    def _decode_apart(self, tasks: Sequence[_Task], error: Exception) -> None:
        """One bad segment must not cost its neighbours their sound."""
        if len(tasks) == 1:
            logger.error("The codec failed on one segment: %s", error)
            tasks[0].future.set_exception(as_synthesis_error(error, "the codec"))
            return
        for task in tasks:
            self._decode([task])

    def _synchronise(self) -> None:
        """Wait for what this thread gave a GPU; a broken one fails."""
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.current_stream().synchronize()
