import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from voice_core.codec.codec import MAX_PASS_FRAMES, Codec
from voice_core.codec.worker import CodecWorker, Sounds
from voice_core.errors import SynthesisError

UNLUCKY = 13


class FakeCodec:
    """Every code becomes one sample of its value; an unlucky one breaks the batch that it is in."""

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
        if any(UNLUCKY in item for item in items):
            raise RuntimeError("unlucky")
        return [np.array(item, dtype=np.float32) for item in items]


def worker_of(codec: FakeCodec) -> CodecWorker:
    return CodecWorker(cast(Codec, codec))


def wait_until_taken(worker: CodecWorker) -> None:
    while worker._waiting:
        time.sleep(0.001)


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
        if number == UNLUCKY:
            with pytest.raises(SynthesisError, match="unlucky"):
                future.result(10)
        else:
            assert future.result(10)[0].tolist() == [number]


def test_closing_decodes_what_was_submitted_before_and_refuses_what_comes() -> None:
    worker = worker_of(FakeCodec())
    future = worker.submit([[1]])
    worker.close()
    assert future.result(0)
    with pytest.raises(SynthesisError, match="shut down"):
        worker.submit([[1]])
    assert worker.failure is None


def told_that_it_broke(future: Future[Sounds], reason: str) -> bool:
    """Whether another codec may make the sound: this one broke."""
    error = future.exception(10)
    return isinstance(error, SynthesisError) and error.may_succeed_later and f"broke down: {reason}" in str(error)


@pytest.mark.parametrize("segments", [1, 2])
def test_a_device_beyond_use_is_told_to_all_who_wait_and_who_come(segments: int) -> None:
    codec = FakeCodec()
    codec.may_go_on.clear()
    worker = worker_of(codec)

    def fail() -> None:
        raise RuntimeError("device-side assert triggered")

    worker._synchronise = fail  # type: ignore[method-assign]
    futures = [worker.submit([[1]])]
    wait_until_taken(worker)
    futures += [worker.submit([[UNLUCKY]]) for _ in range(segments)]  # a batch of their own
    codec.may_go_on.set()
    assert futures[0].result(10)
    assert all(told_that_it_broke(future, "device-side assert triggered") for future in futures[1:])
    with pytest.raises(SynthesisError, match="device-side assert triggered") as caught:
        worker.submit([[1]])
    assert caught.value.may_succeed_later
    worker.close()
    assert worker.failure == "the codec broke down: device-side assert triggered"


def test_a_codec_without_a_stream_leaves_nobody_waiting() -> None:
    """A driver may refuse one for want of memory."""
    codec, submitted = FakeCodec(), threading.Event()

    @contextmanager
    def none() -> Iterator[None]:
        submitted.wait(10)
        raise RuntimeError("no stream")
        yield

    codec.own_stream = none  # type: ignore[method-assign]
    worker = worker_of(codec)
    future = worker.submit([[1]])
    submitted.set()
    assert told_that_it_broke(future, "no stream")
    with pytest.raises(SynthesisError, match="no stream"):
        worker.submit([[1]])


def test_a_batch_is_no_more_than_a_pass_holds() -> None:
    """So what came first is ready first, and what fails costs one pass."""
    codec = FakeCodec()
    codec.may_go_on.clear()
    worker = worker_of(codec)
    first = worker.submit([[1]])
    wait_until_taken(worker)
    half = [2] * (MAX_PASS_FRAMES // 2)
    later = [worker.submit([half]) for _ in range(5)] + [worker.submit([half, half, half])]
    codec.may_go_on.set()
    assert all(future.result(10) for future in (first, *later))
    assert codec.batches == [1, 2, 2, 1, 3]
    worker.close()


@pytest.mark.parametrize(("batched", "batches"), [(True, [1, 3]), (False, [1, 1, 1, 1])])
def test_what_waits_is_batched_only_where_that_gains(batched: bool, batches: list[int]) -> None:
    codec = FakeCodec(batched=batched)
    codec.may_go_on.clear()
    worker = worker_of(codec)
    first = worker.submit([[1]])
    wait_until_taken(worker)
    later = [worker.submit([[number]]) for number in (2, 3, 4)]
    codec.may_go_on.set()
    assert [future.result(10)[0].tolist() for future in (first, *later)] == [[1], [2], [3], [4]]
    assert codec.batches == batches
    worker.close()
