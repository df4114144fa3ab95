"""Whether torch.compile would pay on a CPU: python benchmarks/compiled.py [--size toy mid] [--batch 1 4 16]

The decoder's step as the product runs it (traced, with packed matrices) beside the same step compiled by torch's
inductor, whose kernels can't take packed ones and get plain ones. In a served house the rows of a step and the filled
part of the cache change all the time, so shapes are dynamic; a batch size still costs a compilation of its own. Told
are the time of a step, the seconds that the first steps took because they were compiled, and after how many minutes of
decoding without a pause those are made up for. Needs a C++ compiler, which the product doesn't.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.decode import TARGET_FRAMES, decoder_for, rows_of, step_seconds
from benchmarks.reporting import report, table
from benchmarks.sizes import SIZES, random_network
from voice_core.decoding.decoder import BatchDecoder

STEPS, STEPS_BEFORE = 30, 60
FIRST_STEPS = 3  # of a compiled decoder: all kinds of them have been compiled then
COLUMNS = ["size", "B", "traced ms", "compiled ms", "traced / compiled", "compiling s", "made up for after min"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs="+", default=["toy", "mid"], choices=list(SIZES))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    rows: list[list[object]] = []
    summary: dict[str, Any] = {}
    for size in options.size:
        packed, plain = (
            random_network(size, torch.device("cpu"), torch.float32, packed=packed) for packed in (True, False)
        )
        summary[size] = {}
        for batch in options.batch:
            ours = decoder_for(packed, batch, 0, graphs=False)
            compiled = decoder_for(plain, batch, 0, graphs=False, traced=False)
            figures = {  # in this order: the compiler's processes outlast its work
                "traced_ms": step_seconds(ours, 0, STEPS, STEPS_BEFORE) * 1e3,
                "compiling_s": compile_steps(compiled),
                "compiled_ms": step_seconds(compiled, 0, STEPS, STEPS_BEFORE) * 1e3,
            }
            summary[size][str(batch)] = {name: round(value, 3) for name, value in figures.items()}
            rows.append([size, batch, *told(**figures)])
    report("compiled_cpu", "Decode steps, traced and compiled", table(COLUMNS, rows), summary, keep=True)


def compile_steps(decoder: BatchDecoder) -> float:
    """Let a decoder's passes through the network be compiled; return the seconds that the first steps took."""
    decoder._plain.think = torch.compile(decoder._plain.think, dynamic=True)  # type: ignore[method-assign]
    numbers = decoder.admit(rows_of([TARGET_FRAMES] * decoder.free_slots, 0))
    start = time.perf_counter()
    for _ in range(FIRST_STEPS):
        decoder.step()
    seconds = time.perf_counter() - start
    for number in numbers:
        decoder.cancel(number)
    return seconds


def told(traced_ms: float, compiled_ms: float, compiling_s: float) -> list[object]:
    """Return a row of the table from the times on."""
    saved = 1 - compiled_ms / traced_ms
    minutes: object = compiling_s / saved / 60 if saved > 0 else "never"
    return [traced_ms, compiled_ms, traced_ms / compiled_ms, compiling_s, minutes]


if __name__ == "__main__":
    main()
