"""The codec's own thread, so that turning finished rows into sound never delays the next step of the decoder."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from voice_core.codec.codec import Codec
from voice_core.errors import as_synthesis_error

logger = logging.getLogger(__name__)

Sounds = list[NDArray[np.float32]]


class _Task:
    def __init__(self, items: Sequence[Sequence[int]]) -> None:
        self.items = items
        self.future: Future[Sounds] = Future()


class CodecWorker:
    """Takes codes from any thread, first come, first served.

    Whatever waits when the codec gets free goes through it in one masked batch, if it gains from batches; if it
    doesn't, everything is ready as soon as its own turn is over.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()  # None ends the thread
        self._thread = threading.Thread(target=self._run, name="codec", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, items: Sequence[Sequence[int]]) -> Future[Sounds]:
        """Return the future sounds of lists of codes, [N] float32 each, in their order."""
        task = _Task(items)
        self._tasks.put(task)
        return task.future

    def close(self) -> None:
        """Decode what was submitted before, then stop."""
        self._tasks.put(None)
        self._thread.join()

    def _run(self) -> None:
        closing = False
        with self._codec.own_stream():
            while not closing:
                tasks = [self._tasks.get()]
                while self._codec.batched and not self._tasks.empty():
                    tasks.append(self._tasks.get())
                closing = None in tasks
                self._decode([task for task in tasks if task is not None])

    def _decode(self, tasks: Sequence[_Task]) -> None:
        try:
            sounds = iter(self._codec.decode_batch([item for task in tasks for item in task.items]))
        except Exception as error:
            failure = error.with_traceback(None)  # its frames hold what the pass has on the device
        else:
            for task in tasks:
                task.future.set_result([next(sounds) for _ in task.items])
            return
        self._decode_apart(tasks, failure)

    def _decode_apart(self, tasks: Sequence[_Task], error: Exception) -> None:
        """One bad segment must not cost its neighbours their sound."""
        if len(tasks) == 1:
            logger.error("The codec failed on one segment: %s", error)
            tasks[0].future.set_exception(as_synthesis_error(error, "the codec"))
            return
        for task in tasks:
            self._decode([task])
