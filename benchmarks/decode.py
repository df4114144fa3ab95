"""What a decode step costs: python benchmarks/decode.py [--quick] [--device cuda] [--size full] [--threads 1]

For every size and batch B: rows of equal length (step time, frames/s) and rows of mixed length, 50 to 450 frames
(frames/s, and the share of the rows' draws that became speech; a batch that keeps every row until its longest one ends
would reach only the share in the column "rectangle"). The floor is the time to read once what a step must read, the
decoder's and head's weights and the filled keys and values, at the copy bandwidth measured in the same run. On a CPU
everything is measured in three rounds and the best of each figure is told, because neighbours who take the core for
some seconds slow some figures and not others. On a GPU, which nobody shares, there is one round; steps are captured as
CUDA graphs, as they are in the product, unless --graphs off, and computed by the fused kernels where those can compute
the model, half precision and so on.

Needs torch, numpy and safetensors only, so it runs from a plain checkout on a GPU machine.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.reporting import report, table
from benchmarks.sizes import SIZES, random_network
from voice_core.decoding.decoder import BatchDecoder
from voice_core.decoding.graphs import CudaRecorder
from voice_core.decoding.rows import Row
from voice_core.model.network import Network

TARGET_FRAMES = 250
TEXT_TOKENS = 60  # about what 250 frames of speech hold
MIXED_FRAMES = (50, 450)
BATCHES = [1, 2, 4, 8, 16, 32, 64, 128]
QUICK_BATCHES = [1, 4, 8, 16, 32]
PROMPTS_FRAMES = (0, 150)
CPU_ROUNDS = 3
CPU_SCALE, QUICK_SCALE = 0.2, 0.03  # shorten the mixed rows on slow devices, all alike
COLUMNS = [
    "size",
    "graphs",
    "kernels",
    "B",
    "prompt",
    "step ms",
    "floor ms",
    "floor ratio",
    "frames/s",
    "mixed frames/s",
    "useful",
    "rectangle",
]


class Mixed(NamedTuple):
    """A pass over rows of mixed length."""

    mixed_frames_per_s: float
    useful_row_share: float
    rectangle_share: float


@dataclass(frozen=True)
class Cell:
    """What was seen of so many rows of a size, with prompts of some length."""

    size: str
    graphs: str
    kernels: str
    batch: int
    prompt_frames: int
    step_seconds: float
    floor_bytes: int
    mixed: Mixed | None  # for rows without a prompt

    def best(self, other: Cell) -> Cell:
        """Return the faster steps of both, and the faster pass."""
        mixed = max(self.mixed, other.mixed) if self.mixed and other.mixed else None
        return replace(self, step_seconds=min(self.step_seconds, other.step_seconds), mixed=mixed)

    def measures(self, bandwidth: float) -> dict[str, float]:
        """Return what a step of rows of equal length takes, and what it must take at the least."""
        floor_seconds = self.floor_bytes / bandwidth
        return {
            "step_ms": self.step_seconds * 1e3,
            "floor_ms": floor_seconds * 1e3,
            "floor_ratio": self.step_seconds / floor_seconds,
            "frames_per_s": self.batch / self.step_seconds,
        }


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    rounds = CPU_ROUNDS if device.type == "cpu" and not options.quick else 1
    scale = QUICK_SCALE if options.quick else CPU_SCALE if device.type == "cpu" else 1.0
    bandwidth = 0.0
    cells: list[Cell] = []
    for size in options.size:
        network = random_network(size, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
        best: list[Cell] = []
        for _ in range(rounds):
            bandwidth = max(bandwidth, copy_bandwidth(device))
            seen = cells_of(size, network, scale, options)
            best = [cell.best(before) for cell, before in zip(seen, best or seen, strict=True)]
        cells += best
    summary: dict[str, Any] = {
        "device": options.device,
        "copy_gb_per_s": round(bandwidth / 1e9, 2),
        "mixed_scale": scale,
        "rounds": rounds,
        **{size: {} for size in options.size},
    }
    rows: list[list[object]] = []
    for cell in cells:
        step, mixed = cell.measures(bandwidth), cell.mixed._asdict() if cell.mixed else {}
        about = [cell.size, cell.graphs, cell.kernels, cell.batch, cell.prompt_frames]
        rows.append([*about, *step.values(), *(mixed.values() or [""] * 3)])
        summary["graphs"], summary["kernels"] = cell.graphs, cell.kernels
        if cell.prompt_frames == 0:
            figures = {key: round(value, 4) for key, value in (step | mixed).items()}
            summary[cell.size][str(cell.batch)] = figures
    name = f"decode_{device.type}" + ("" if options.size == ["toy", "mid"] else "_" + "_".join(options.size))
    title = "Decode steps" + ("" if scale == 1 else f"; mixed rows are {scale:g} times as long as said")
    body, keep = table(COLUMNS, rows), not options.quick
    report(name, title, body, summary, keep=keep, device=options.device, threads=options.threads)


def cells_of(size: str, network: Network, scale: float, options: argparse.Namespace) -> list[Cell]:
    """Measure every batch and prompt once."""
    steps, steps_before = (6, 4) if options.quick else (30, TARGET_FRAMES // 2 - 15)
    cells = []
    for batch in options.batch or (QUICK_BATCHES if options.quick else BATCHES):
        for prompt_frames in PROMPTS_FRAMES[: 1 if options.quick else None]:
            decoder = decoder_for(network, batch, prompt_frames, graphs=options.graphs == "auto")
            cells.append(
                Cell(
                    size,
                    "on" if decoder.recorded else "off",
                    "fused" if decoder.fused else "torch",
                    batch,
                    prompt_frames,
                    step_seconds(decoder, prompt_frames, steps, steps_before),
                    floor_bytes(network, batch, 1 + prompt_frames + steps_before + steps // 2),
                    mixed_pass(decoder, scale) if prompt_frames == 0 else None,
                )
            )
    return cells


def step_seconds(decoder: BatchDecoder, prompt_frames: int, steps: int, steps_before: int) -> float:
    """Return the median time of steps, after others, of rows of TARGET_FRAMES in all slots.

    As in the product, the host waits for the device only where it looks which rows have ended.
    """
    numbers = decoder.admit(rows_of([TARGET_FRAMES] * decoder.free_slots, prompt_frames))
    for _ in range(steps_before):
        decoder.step()
    times, together = [], decoder.steps_between_looks
    for _ in range(-(-steps // together)):
        start = _now(decoder.network)
        for _ in range(together):
            decoder.step()
        times.append((_now(decoder.network) - start) / together)
    for number in numbers:
        decoder.cancel(number)
    return statistics.median(times)


def mixed_pass(decoder: BatchDecoder, scale: float) -> Mixed:
    """Speak rows of mixed length, `scale` times MIXED_FRAMES, in all slots in one pass."""
    network, batch, steps_before = decoder.network, decoder.free_slots, decoder.row_steps
    lengths = [max(3, round(scale * frames)) for frames in mixed_lengths(batch)]
    start = _now(network)
    spoken = decoder.speak(rows_of(lengths, 0))
    seconds = _now(network) - start
    frames = sum(len(row.ids) for row in spoken)
    return Mixed(frames / seconds, frames / (decoder.row_steps - steps_before), frames / (batch * (max(lengths) + 1)))


def mixed_lengths(count: int) -> list[int]:
    """Return row lengths spread evenly over MIXED_FRAMES, in a fixed random order; both ends are among them."""
    low, high = MIXED_FRAMES
    lengths = [round(low + (high - low) * index / max(1, count - 1)) for index in range(count)]
    random.Random(0).shuffle(lengths)
    return lengths if count > 1 else [(low + high) // 2]


def floor_bytes(network: Network, batch: int, filled_frames: int) -> int:
    """Return what a step has to read: weights of decoder and head once, filled keys and values of every row."""
    stack, element = network.config.decoder, network.dtype.itemsize
    queries, keys = stack.heads * stack.head_dim, stack.kv_heads * stack.head_dim
    # Cross-attention's keys and values are made once per text; a step does not read their weights.
    attention = stack.hidden_size * (2 * queries + 2 * keys) + stack.hidden_size * 2 * queries
    layer = attention + 3 * stack.hidden_size * stack.intermediate_size
    head = stack.hidden_size * (stack.hidden_size + network.config.code_vocab_size)
    weights = (stack.layers * layer + head) * element
    memory = 2 * stack.layers * stack.kv_heads * stack.head_dim * (filled_frames + TEXT_TOKENS) * element
    return weights + batch * memory


def copy_bandwidth(device: torch.device) -> float:
    """Return bytes a second of a large copy, read and written counted."""
    source = torch.ones(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(8):
        _synchronise(device)
        start = time.perf_counter()
        target.copy_(source)
        _synchronise(device)
        times.append(time.perf_counter() - start)
    return 2 * source.nbytes / statistics.median(times)


def decoder_for(network: Network, batch: int, prompt_frames: int, *, graphs: bool, traced: bool = True) -> BatchDecoder:
    return BatchDecoder(
        network,
        max_rows=batch,
        max_frames=prompt_frames + max(TARGET_FRAMES, *MIXED_FRAMES) + 8,
        max_tokens=TEXT_TOKENS,
        recorder=CudaRecorder(network.device) if graphs and network.device.type == "cuda" else None,
        traced=traced,
    )


def rows_of(lengths: list[int], prompt_frames: int) -> list[Row]:
    """Return rows that end exactly at their length: the random network never ends by itself."""
    prompt = tuple(range(prompt_frames))
    text = tuple(2 + index % 50 for index in range(TEXT_TOKENS - 1))
    return [
        Row((*text, index % 50), prompt_frames + frames, prompt, seed=index) for index, frames in enumerate(lengths)
    ]


def _now(network: Network) -> float:
    _synchronise(network.device)
    return time.perf_counter()


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--size", nargs="+", default=["toy", "mid"], choices=list(SIZES))
    parser.add_argument("--batch", nargs="+", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--graphs", default="auto", choices=["auto", "off"], help="of CUDA")
    parser.add_argument("--quick", action="store_true", help="a minute at most, and no results file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
