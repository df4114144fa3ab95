import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from voice_core.upkeep import KERNELS_KEPT, KERNELS_VARIABLE, give_back_freed

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")

BLOCKS, BLOCK_BYTES = 40_000, 1000  # too small to be mapped one by one


def own_bytes() -> int:
    """Return the anonymous resident memory of this process."""
    (kilobytes,) = re.findall(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(kilobytes) * 1024


def test_what_lies_idle_below_memory_in_use_goes_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(BLOCK_BYTES) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK_BYTES)
    for block in blocks[:-1]:  # the last one holds the heap's end where it is
        libc.free(block)
    before = own_bytes()
    assert give_back_freed()
    assert before - own_bytes() > BLOCKS * BLOCK_BYTES // 2
    libc.free(blocks[-1])


@pytest.mark.parametrize(("operators", "expected"), [(None, str(KERNELS_KEPT)), ("7", "7")])
def test_few_kernels_are_kept_unless_the_operator_says_how_many(operators: str | None, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != KERNELS_VARIABLE}
    if operators is not None:
        environment[KERNELS_VARIABLE] = operators
    program = f"""
import os, threading
from voice_core.upkeep import keep_memory_low
keep_memory_low()
keep_memory_low()
print(os.environ[{KERNELS_VARIABLE!r}], sum(thread.name == "upkeep" for thread in threading.enumerate()))
"""
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == [expected, "1"]
