"""Keeps the memory of a process that runs for long from growing by what it no longer needs."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from functools import cache

# oneDNN makes a kernel for every shape that it meets, and by default keeps 1024 of them: texts of all lengths then fill
# tens of megabytes. This many were chosen, not measured for speed.
KERNELS_VARIABLE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
KERNELS_KEPT = 128

TRIM_SECONDS = 30.0  # between two; one takes a few milliseconds of whoever wants memory meanwhile


def keep_memory_low() -> None:
    """From now on give what the process has freed back to the system; to be called before a model is loaded.

    Starts a thread that lives as long as the process. An operator's own ONEDNN_PRIMITIVE_CACHE_CAPACITY stays.
    """
    os.environ.setdefault(KERNELS_VARIABLE, str(KERNELS_KEPT))
    _start_trimming()


def give_back_freed() -> bool:
    """Give the pages that the C library keeps for later back to the system; False where it can't (it isn't glibc).

    glibc has a heap for nearly every thread, and what one thread has freed another one's heap can't use: under load of
    many threads the pages that lie idle grow in number.
    """
    trim = _trim()
    if trim is None:
        return False
    trim(ctypes.c_size_t(0))  # lets go of Python's lock meanwhile
    return True


@cache
def _trim() -> Callable[[ctypes.c_size_t], int] | None:
    try:
        trim: Callable[[ctypes.c_size_t], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return trim


@cache  # once is enough for a process
def _start_trimming() -> None:
    threading.Thread(target=_trim_for_ever, name="upkeep", daemon=True).start()


def _trim_for_ever() -> None:
    while give_back_freed():
        time.sleep(TRIM_SECONDS)
