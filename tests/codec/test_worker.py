import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from voice_core.codec.codec import Codec
from voice_core.codec.worker import CodecWorker
from voice_core.errors import SynthesisError


class FakeCodec:
    """Every code becomes one sample of its value; a code of 13 breaks the batch that it is in."""

    def __init__(self, *, batched: bool = True) -> None:
        self.batched = batched
        self.batches: list[int] = []
        self.streams = 0  # that are open
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    @contextmanager
    def own_stream(self) -> Iterator[None]:
        self.streams += 1
        yield
        self.streams -= 1

    def decode_batch(self, items: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        assert self.streams == 1
        self.may_go_on.wait(10)
        self.batches.append(len(items))
        if any(13 in item for item in items):
            raise SynthesisError("unlucky")
        return [np.array(item, dtype=np.float32) for item in items]


def worker_of(codec: FakeCodec) -> CodecWorker:
    return CodecWorker(cast(Codec, codec))


def test_sounds_come_back_in_order() -> None:
    worker = worker_of(FakeCodec())
    futures = [worker.submit([[number], [number, number]]) for number in range(100, 120)]
    for number, future in zip(range(100, 120), futures, strict=True):
        assert [sound.tolist() for sound in future.result(10)] == [[number], [number, number]]
    worker.close()
    assert not worker.alive


def test_one_bad_segment_does_not_cost_its_neighbours_their_sound() -> None:
    worker = worker_of(FakeCodec())
    futures = [worker.submit([[number]]) for number in range(10, 16)]
    worker.close()
    for number, future in zip(range(10, 16), futures, strict=True):
        if number == 13:
            with pytest.raises(SynthesisError, match="unlucky"):
                future.result(10)
        else:
            assert future.result(10)[0].tolist() == [number]


def test_closing_decodes_what_was_submitted_before() -> None:
    worker = worker_of(FakeCodec())
    future = worker.submit([[1]])
    worker.close()
    assert future.result(0)


@pytest.mark.parametrize(("batched", "batches"), [(True, [1, 3]), (False, [1, 1, 1, 1])])
def test_what_waits_is_batched_only_where_that_gains(batched: bool, batches: list[int]) -> None:
    codec = FakeCodec(batched=batched)
    codec.may_go_on.clear()
    worker = worker_of(codec)
    first = worker.submit([[1]])
    while not worker._tasks.empty():  # until it has been taken
        time.sleep(0.001)
    later = [worker.submit([[number]]) for number in (2, 3, 4)]
    codec.may_go_on.set()
    assert [future.result(10)[0].tolist() for future in (first, *later)] == [[1], [2], [3], [4]]
    assert codec.batches == batches
    worker.close()
