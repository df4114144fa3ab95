"""Our decoder beside a plain one: python benchmarks/compare.py [--quick] [--size mid] [--threads 1]

Same weights, same texts, same options (top_k 30, top_p 0.9, temperature 0.8), float32, one run: useful frames a second
of whole passes (encoder and prefill included), ours divided by the plain decoder's (benchmarks/plain.py). Rows of
equal length, 250 frames, and of mixed length, 50 to 450, all shortened by `--scale`. After a pass of each that doesn't
count, for what is made on first use, the two take turns, and the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.decode import TARGET_FRAMES, TEXT_TOKENS, mixed_lengths, rows_of
from benchmarks.plain import PlainDecoder
from benchmarks.reporting import report, table
from benchmarks.sizes import SIZES, random_network
from voice_core.decoding.decoder import BatchDecoder
from voice_core.decoding.rows import Row
from voice_core.decoding.slots import slot_bytes
from voice_core.model.packing import pack_linears

BATCHES = [1, 2, 4, 8, 16, 32]
QUICK_BATCHES = [1, 16]
QUICK_SCALE = 0.08
MIXED_FROM = 8  # rows: below it a batch has hardly room for mixed lengths
COLUMNS = ["B", "lengths", "ours frames/s", "plain frames/s", "ratio", "cache MB", "formula MB"]


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    network = random_network(options.size, torch.device("cpu"), torch.float32, packed=False)
    plain = PlainDecoder(network)
    pack_linears(network)
    plain.check_against(network)
    rows, summary = [], {}
    for batch in options.batch or (QUICK_BATCHES if options.quick else BATCHES):
        kinds = {"equal": [TARGET_FRAMES] * batch}
        if batch >= MIXED_FROM:
            kinds["mixed"] = mixed_lengths(batch)
        for kind, lengths in kinds.items():
            scaled = [max(3, round(frames * (QUICK_SCALE if options.quick else options.scale))) for frames in lengths]
            decoder = BatchDecoder(network, max_rows=batch, max_frames=max(scaled) + 8, max_tokens=TEXT_TOKENS)
            ours_s, plain_s = take_turns(
                decoder.speak, plain.speak, rows_of(scaled, 0), 2 if options.quick else options.turns
            )
            frames, ratio = sum(scaled), plain_s / ours_s
            slot = slot_bytes(network.config.decoder, max(scaled) + 8, TEXT_TOKENS, torch.float32)
            caches = decoder.slots.nbytes / 1e6, batch * slot / 1e6
            rows.append([batch, kind, frames / ours_s, frames / plain_s, ratio, *caches])
            summary[f"{kind}_b{batch}"] = round(ratio, 3)
            print(f"B = {batch}, {kind}: {ratio:.2f}", file=sys.stderr, flush=True)
    title = f"Ours beside the plain decoder, {options.size} size"
    keep = not options.quick
    report(f"compare_{options.size}", title, table(COLUMNS, rows), summary, keep=keep, threads=options.threads)


def take_turns(
    ours: Callable[[Sequence[Row]], object], plain: Callable[[Sequence[Row]], object], rows: list[Row], turns: int
) -> tuple[float, float]:
    """Return the median seconds of both, which ran one after the other `turns` times, and once before."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(1 + turns):
        for times, speak in zip(seconds, (ours, plain), strict=True):
            start = time.perf_counter()
            speak(rows)
            times.append(time.perf_counter() - start)
    return statistics.median(seconds[0][1:]), statistics.median(seconds[1][1:])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="mid", choices=list(SIZES))
    parser.add_argument("--batch", nargs="+", type=int)
    parser.add_argument("--scale", type=float, default=1.0, help="shortens all rows alike; 1 takes half an hour")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of both")
    parser.add_argument("--quick", action="store_true", help="a minute at most, and no results file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
