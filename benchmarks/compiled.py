"""Whether torch.compile would pay on a CPU: python benchmarks/compiled.py [--size toy mid] [--batch 1 4 16]

The decoder's step as the product runs it (traced, with packed matrices) beside the same step compiled by torch's
inductor, both halves of it: what the rows think (it leaves that in two pieces, because a generator returns there), and
what is drawn. Weights are frozen, so the compiler packs matrices itself, as the product does. In a served house the
rows of a step and the filled part of the cache change all the time, so shapes are dynamic. Every decoder is compiled
from nothing: neither an earlier one's kernels nor those of an earlier run are taken. Told are the time of a step, the
seconds that the first steps took because they were compiled, and after how many minutes of decoding without a pause
those are made up for. Needs a C++ compiler, which the product doesn't.
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
    torch._inductor.config.freezing = True
    torch.compiler.config.force_disable_caches = True
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # else what is beyond it runs uncompiled

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
                "compiled_ms": compiled_step_seconds(compiled) * 1e3,
            }
            summary[size][str(batch)] = {name: round(value, 3) for name, value in figures.items()}
            rows.append([size, batch, *told(**figures)])
    title, threads = "Decode steps, traced and compiled", options.threads
    report("compiled_cpu", title, table(COLUMNS, rows), summary, keep=True, threads=threads)


def compile_steps(decoder: BatchDecoder) -> float:
    """Let both halves of a decoder's steps be compiled; return the seconds that the first steps took."""
    torch._dynamo.reset()
    plain, slots = decoder._plain, decoder.slots
    # Keys and values lie in one tensor. Weights can't be frozen where views of a tensor are written to.
    slots.keys, slots.values = slots.keys.clone(), slots.values.clone()
    plain.think = torch.compile(plain.think, dynamic=True)  # type: ignore[method-assign]
    draw = torch.compile(plain.draw, dynamic=True)
    # To look for ties is to ask the host in mid-draw, where a compiled step would break in two.
    plain.draw = lambda rows, demand: draw(rows, demand._replace(search_ties=False))  # type: ignore[method-assign]
    numbers = decoder.admit(rows_of([TARGET_FRAMES] * decoder.free_slots, 0))
    start = time.perf_counter()
    for _ in range(FIRST_STEPS):
        decoder.step()
    seconds = time.perf_counter() - start
    for number in numbers:
        decoder.cancel(number)
    return seconds


def compiled_step_seconds(decoder: BatchDecoder) -> float:
    """Return the median time of compiled steps; it fails if any of them is compiled only now."""
    with torch.compiler.set_stance("fail_on_recompile"):
        return step_seconds(decoder, 0, STEPS, STEPS_BEFORE)


def told(traced_ms: float, compiled_ms: float, compiling_s: float) -> list[object]:
    """Return a row of the table from the times on."""
    saved = 1 - compiled_ms / traced_ms
    minutes: object = compiling_s / saved / 60 if saved > 0 else "never"
    return [traced_ms, compiled_ms, traced_ms / compiled_ms, compiling_s, minutes]


if __name__ == "__main__":
    main()
