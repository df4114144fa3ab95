"""Computations on a CPU that torch's own interpreter runs, without Python and without its lock.

torch.jit.trace writes down what a function does with tensors, once; sizes are read from what goes in, so one trace
serves all of them. torch would have us compile instead: that takes longer than a hundred requests do, for every size,
and needs a C++ compiler.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

WARM_UP_RUNS = 3  # torch's interpreter prepares a trace in its first two runs

Traced = Callable[..., Any]  # takes tensors, gives tensors


@contextmanager
def tracing() -> Iterator[None]:
    """Around `traced`; only while no other thread minds which warnings are shown."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.filterwarnings("ignore", r"`torch\.jit", DeprecationWarning)
        yield


def traced(compute: Traced, examples: Sequence[Any]) -> Traced:
    """Return what does the same as `compute`, traced with examples of its arguments and warmed up with them."""
    trace: Traced = torch.jit.trace(compute, tuple(examples), check_trace=False)  # type: ignore[no-untyped-call]
    for _ in range(WARM_UP_RUNS):
        trace(*examples)
    return trace
