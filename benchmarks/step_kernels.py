"""Where a GPU's decode step goes: python benchmarks/step_kernels.py [--size full] [--batch 1 8 32] [--tune]

Times both halves of the fused step, recorded as CUDA graphs, beside torch's kernels for the same step and the floor of
`decode.py`, says how far the two are apart, and profiles one step: the kernels by the time they take, and the time in
which none runs. `--tune` tries other ways to divide the kernels' work (see `Tuning` in voice_core/decoding/fused.py):
what is expected to gain most comes first, and what launches the same as one before it is passed over. Each takes as
long as its kernels take to compile, so there are 14 for a batch at the most. Kernels that are further from torch's
than the product puts up with make it fail, however fast they are.

Needs a GPU with Triton, torch, numpy and safetensors.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.decode import TARGET_FRAMES, TEXT_TOKENS, copy_bandwidth, floor_bytes, rows_of
from benchmarks.reporting import report, table
from benchmarks.sizes import SIZES, random_network
from voice_core.decoding import trial
from voice_core.decoding.decoder import BatchDecoder
from voice_core.decoding.fused import FusedStep, Tuning
from voice_core.decoding.graphs import CudaRecorder, Shape
from voice_core.decoding.sampling import Demand
from voice_core.decoding.slots import Slots
from voice_core.decoding.state import RowState
from voice_core.model.network import Network

FILLED_FRAMES = TARGET_FRAMES // 2
BATCHES = [1, 8, 32]
FEW = Demand(46, min_p=False, search_ties=False)
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    # The best of commit f137c5b, and as it was there. The wide product then leaves no room for what comes after it.
    {"share": 1, "held": 0, "gate_held": 0, "stages": 6, "gate_stages": 6},
    {"down_ahead": 0},
    {"down_ahead": 0, "gate_ahead": 768},
    {"early": False},
    {"gate_stages": 5},
    {"gate_held": 0, "gate_stages": 5},
    {"programs": 250},
    {"ahead": 640},  # with what is held, all that a program of queries, keys and values reads
    {"gate_held": 0, "gate_depth": 128, "gate_stages": 3},
    {"held": 0, "stages": 5},
    {"attention_warps": 4},
    {"frames": 32, "frame_stages": 3},
    {"draw_warps": 16},
)
COLUMNS = ["B", "kernels", "think ms", "draw ms", "step ms", "floor ratio", "apart", "ready s"]
STEP_MS, APART = COLUMNS.index("step ms"), COLUMNS.index("apart")


class Noted(FusedStep):
    """Notes what a step would launch, and launches nothing."""

    def __init__(self, network: Network, slots: Slots, state: RowState, tuning: Tuning) -> None:
        super().__init__(network, slots, state, tuning)
        self.launched: list[tuple[Any, ...]] = []

    def _launch(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        self.launched.append((kernel, grid, constants))


def launches(network: Network, slots: Slots, state: RowState, tuning: Tuning) -> list[tuple[Any, ...]]:
    """Return the kernels, grids and constants of a step of all slots: variants that agree in them are one."""
    step = Noted(network, slots, state, tuning)
    step.think(Shape(slots.slots, 256, TEXT_TOKENS))
    step.draw(slice(0, slots.slots), FEW)
    return step.launched


class Case:
    """Rows in the middle of their speech, ready to be stepped by the kernels, or by torch where there is no tuning."""

    def __init__(self, network: Network, batch: int, tuning: Tuning | None) -> None:
        start = time.perf_counter()
        self.decoder = decoder = BatchDecoder(network, max_rows=batch, max_frames=640, max_tokens=TEXT_TOKENS)
        state, rows, shape = decoder._state, slice(0, batch), Shape(batch, 256, TEXT_TOKENS)
        decoder._fused = FusedStep(network, decoder.slots, state, tuning) if tuning else None
        decoder.admit(rows_of([TARGET_FRAMES] * batch, 0))
        state.filled += FILLED_FRAMES
        state.steps += FILLED_FRAMES
        decoder.slots.keys.normal_(generator=torch.Generator(network.device).manual_seed(1))
        decoder.slots.values.normal_(generator=torch.Generator(network.device).manual_seed(2))
        state.last_code[rows] = torch.arange(batch, device=network.device) * 97 + 5
        self.saved = state.filled.clone(), state.steps.clone()
        recorder = CudaRecorder(network.device)
        self.think = recorder(partial(decoder._think, shape))
        self.rewind()
        self.think()
        self.hidden = state.hidden.float().clone()
        self.draw = recorder(partial(decoder._draw, rows, FEW))
        self.ready_seconds = time.perf_counter() - start

    def rewind(self) -> None:
        self.decoder._state.filled.copy_(self.saved[0])
        self.decoder._state.steps.copy_(self.saved[1])

    def seconds(self) -> tuple[float, float, float]:
        """Return the medians of think, draw and both, in seconds of groups of four."""
        times = []
        for parts in ((self.think,), (self.draw,), (self.think, self.draw)):
            taken = []
            for _ in range(12):
                self.rewind()
                torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(4):
                    for part in parts:
                        part()
                torch.cuda.synchronize()
                taken.append((time.perf_counter() - start) / 4)
            times.append(statistics.median(taken))
        return times[0], times[1], times[2]


def main() -> int:
    options = _options()
    device = torch.device("cuda")
    bandwidth = copy_bandwidth(device)
    if options.layers:
        SIZES[options.size] = replace(SIZES[options.size], layers=options.layers)
    network = random_network(options.size, device, torch.bfloat16)
    rows: list[list[Any]] = []
    for batch in options.batch:
        floor = floor_bytes(network, batch, FILLED_FRAMES) / bandwidth
        by_torch = Case(network, batch, None)
        rows.append(measured(by_torch, batch, "torch", by_torch, floor))
        tried: list[list[Any]] = []
        for variant in VARIANTS if options.tune else [VARIANTS[0], VARIANTS[options.variant]]:
            tuning = replace(Tuning(), **variant)
            launched = launches(network, by_torch.decoder.slots, by_torch.decoder._state, tuning)
            if launched in tried:
                print(f"B {batch}: {json.dumps(variant)} launches what one before it did and is passed over")
                continue
            tried.append(launched)
            rows.append(measured(Case(network, batch, tuning), batch, json.dumps(variant), by_torch, floor))
    summary: dict[str, Any] = {"size": options.size, "copy_gb_per_s": round(bandwidth / 1e9)}
    summary["step_ms"] = {f"{row[0]} {row[1]}": round(row[STEP_MS], 4) for row in rows}
    apart = {f"{row[0]} {row[1]}": row[APART] for row in rows}
    summary["apart"] = {case: round(share, 4) if math.isfinite(share) else None for case, share in apart.items()}
    summary["passed"] = all(share < trial.MOST_APART for share in apart.values())  # NaN isn't less
    whole = not (options.tune or options.variant or options.layers) and options.batch == BATCHES
    title, keep = "A decode step's kernels", whole and summary["passed"]
    report(f"step_kernels_{options.size}", title, table(COLUMNS, rows), summary, keep=keep, device="cuda")
    return 0 if summary["passed"] else 1


def measured(case: Case, batch: int, kernels: str, by_torch: Case, floor_seconds: float) -> list[Any]:
    """Return a row of the table, and print where the time goes of what the product does."""
    think, draw, both = case.seconds()
    apart = float((case.hidden - by_torch.hidden).norm() / by_torch.hidden.norm())
    row = [batch, kernels, think * 1e3, draw * 1e3, both * 1e3, both / floor_seconds, apart, case.ready_seconds]
    print(row, flush=True)
    if kernels in ("torch", "{}"):
        profile(case)
    return row


def profile(case: Case) -> None:
    """Print the kernels of a step by their time, and how long the GPU was idle between them."""
    case.rewind()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        case.think()
        case.draw()
        torch.cuda.synchronize()
    kernels = [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    spans = sorted((event.time_range.start, event.time_range.end, event.name) for event in kernels)
    if not spans:
        return
    busy, until = 0.0, spans[0][0]
    own: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for start, end, name in spans:
        added = max(0.0, end - max(start, until))
        busy += added
        own[name] += added  # what this kernel adds to those before it: they overlap
        counts[name] += 1
        until = max(until, end)
    print(f"  of {until - spans[0][0]:.0f} us, {busy:.0f} us busy; {len(spans)} kernels")
    layer = [span for span in spans if span[0] > spans[len(spans) // 2][0]][:14]
    print("  ends:", " ".join(f"{name.split('_')[0]} {end - layer[0][1]:.1f}" for _, end, name in layer))
    for name, microseconds in own.most_common(14):
        print(f"  {microseconds:8.1f} us {counts[name]:5d} x {name[:60]}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="full", choices=list(SIZES))
    parser.add_argument("--batch", nargs="+", type=int, default=BATCHES, help="others: no results file")
    parser.add_argument("--tune", action="store_true", help="try all ways to divide the work")
    parser.add_argument("--variant", type=int, default=0, help="try this one too, by its place in VARIANTS")
    parser.add_argument("--layers", type=int, help="fewer than the size has, to compile the kernels quickly")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
