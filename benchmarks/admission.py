"""How long admissions hold up the rows that are being spoken: python benchmarks/admission.py [--quick] [--size mid]

A full house of 16 slots: whenever a row ends, another one comes, with a text of 20 to 100 tokens, one in eight with 500
to 1000, and in every second case a voice prompt of 150 frames. The embedded voice's codec makes sound of each row that
has ended, as it does in the product: beside the steps. Measured: the time between the ends of two steps, in medians of
a step.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.reporting import report, table
from benchmarks.sizes import SIZES, random_network
from voice_core.codec.codec import Codec
from voice_core.codec.worker import CodecWorker
from voice_core.decoding.decoder import BatchDecoder
from voice_core.decoding.engine import Engine
from voice_core.decoding.graphs import CudaRecorder
from voice_core.decoding.rows import Row
from voice_core.embedded import DIRECTORY as EMBEDDED

SLOTS = 16
PROMPT_FRAMES = 150
USUAL_TOKENS, LONG_TOKENS = (20, 100), (500, 1000)
LONG_EVERY = 8  # rows
COLUMNS = ["size", "slots", "steps", "step ms", "p50", "p95", "p99", "worst"]


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    network = random_network(options.size, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    recorder = CudaRecorder(device) if device.type == "cuda" else None
    decoder = BatchDecoder(network, max_rows=SLOTS, max_frames=700, max_tokens=LONG_TOKENS[1], recorder=recorder)
    ends, steps = watch(decoder)
    engine = Engine(decoder, largest_share=1.0)
    codec = Codec.load(EMBEDDED / "codec", device)
    worker = CodecWorker(codec)
    rows = endless_rows()
    handles = engine.submit([next(rows) for _ in range(SLOTS)])
    deadline = time.perf_counter() + (15 if options.quick else 120)
    while time.perf_counter() < deadline:
        ended = [handle for handle in handles if handle.future.done()]
        worker.submit([[code % codec.codebook_size for code in handle.future.result().ids] for handle in ended])
        waiting = [handle for handle in handles if handle not in ended]
        handles = waiting + engine.submit([next(rows) for _ in range(SLOTS + 2 - len(waiting))])
        time.sleep(0.01)
    for handle in handles:
        handle.cancel()
    engine.close()
    worker.close()
    step_s = statistics.median(steps)
    gaps = np.diff(ends)[SLOTS:] / step_s  # the first rows come into an empty house
    spread = {f"p{percent}": float(np.percentile(gaps, percent)) for percent in (50, 95, 99)}
    summary = {"size": options.size, "step_ms": step_s * 1e3, **spread, "worst": float(gaps.max()), "steps": len(gaps)}
    summary = {name: round(value, 3) if isinstance(value, float) else value for name, value in summary.items()}
    row = [options.size, SLOTS, len(gaps), step_s * 1e3, *spread.values(), float(gaps.max())]
    title = "What admissions cost those who speak"
    report(
        f"admission_{options.size}",
        title,
        table(COLUMNS, [row]),
        summary,
        keep=not options.quick,
        device=options.device,
        threads=options.threads,
    )


def watch(decoder: BatchDecoder) -> tuple[list[float], list[float]]:
    """Return lists that fill with the clock at the end of every step and with what every step took."""
    ends: list[float] = []
    steps: list[float] = []
    step = decoder.step

    def timed_step() -> None:
        start = time.perf_counter()
        step()
        if decoder.network.device.type == "cuda":
            torch.cuda.synchronize()  # a step is over when the device is done with it
        ends.append(time.perf_counter())
        steps.append(ends[-1] - start)

    decoder.step = timed_step  # type: ignore[method-assign]
    return ends, steps


def endless_rows() -> Iterator[Row]:
    rng = random.Random(0)
    for seed in itertools.count():
        prompt = tuple(range(PROMPT_FRAMES)) if seed % 2 else ()
        tokens = rng.randint(*(USUAL_TOKENS if (seed + 1) % LONG_EVERY else LONG_TOKENS))
        text = tuple(rng.randrange(2, 50) for _ in range(tokens))
        yield Row(text, len(prompt) + rng.randrange(50, 451), prompt, seed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="mid", choices=list(SIZES))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a minute at most, and no results file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
