"""Steps that are recorded once and played back: on a GPU the hundreds of small kernels of a step then start as one.

A recording repeats what the host decided while it was made: how many rows are computed, how far attention reads, which
filters run. So these make its key, rows and lengths in sizes that are rounded up; everything else that a step reads
lies on the device, in tensors that never move. What has no recording is computed as it comes.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

import torch

logger = logging.getLogger(__name__)

# Decoder positions that attention reads up to, and half as many text tokens; beyond the last, all there is room for.
FRAMES = (256, 384, 512, 768, 1024, 1536, 2048, 3072)

# Of a computation before it is recorded: libraries choose kernels and take workspaces on first use.
WARM_UP_RUNS = 3

Computation = Callable[[], None]
Recorder = Callable[[Computation], Computation]  # runs a computation; returns what runs the same again


class Shape(NamedTuple):
    """How much of the slots a step computes."""

    rows: int
    frames: int
    text_tokens: int

    def holds(self, other: Shape) -> bool:
        return all(mine >= theirs for mine, theirs in zip(self, other, strict=True))


def shapes_up_to(most: Shape) -> list[Shape]:
    """Return the shapes to record, so that the first that holds a step is the smallest; the last is `most`."""
    rows = [*(2**power for power in range(most.rows.bit_length()) if 2**power < most.rows), most.rows]
    lengths = [(frames, min(frames // 2, most.text_tokens)) for frames in FRAMES if frames < most.frames]
    lengths.append((most.frames, most.text_tokens))
    return [Shape(count, *length) for count in rows for length in lengths]


class CudaRecorder:
    """Captures CUDA graphs that share one pool of memory: they never run at the same time."""

    def __init__(self, device: torch.device) -> None:
        # Before the codec's: kernels keep this priority wherever they are played back.
        self._stream = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Computation) -> Computation:
        # Libraries keep handles for each stream, so the warm-up runs on the one that is captured.
        present = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(present)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(self._stream):  # around the capture too, which leaves its stream set when it fails
                for _ in range(WARM_UP_RUNS):
                    compute()
                # thread_local: what another thread does on the device meanwhile is neither captured nor an error.
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                    compute()
        finally:
            present.wait_stream(self._stream)
        return graph.replay


class Recordings:
    """What was recorded, by its key; nothing, if recording failed."""

    def __init__(self) -> None:
        self._playbacks: dict[Hashable, Computation] = {}

    def __len__(self) -> int:
        return len(self._playbacks)

    def record(self, computations: Mapping[Hashable, Computation], recorder: Recorder) -> None:
        """Record everything, or nothing and say why."""
        start = time.perf_counter()
        gc.collect()
        gc.disable()  # to free a graph that nobody has any more while another is captured would spoil it
        try:
            self._playbacks = {key: recorder(compute) for key, compute in computations.items()}
        except Exception as error:  # whatever it is, speech without recordings is slower but right
            reason = "Decode steps could not be recorded, every kernel is started by itself: %s"
            logger.warning(reason, error, exc_info=True)
            self._playbacks = {}
            return
        finally:
            gc.enable()
        logger.info("Recorded %d parts of decode steps in %.1f s", len(self), time.perf_counter() - start)

    def play(self, key: Hashable, compute: Computation) -> None:
        """Run what was recorded under the key, or else the computation itself."""
        self._playbacks.get(key, compute)()
