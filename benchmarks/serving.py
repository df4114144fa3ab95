"""The running server under load: python benchmarks/serving.py [--quick] [--model embedded] [--device cpu]

A closed loop finds the rate at which the server is full. Then an open loop (Poisson arrivals, the same ones each time)
at rising shares of that rate, with rows admitted in flight. At 70 % a second application, whose rows wait until all
rows being spoken have ended, takes turns with the first, so that whatever else the machine does meets both. Same model,
same requests. Figures carry the peers' names:
audio_ttfp (seconds to the first byte of sound), audio_e2e (to the last), audio_rtf (audio_e2e over the sound's length),
audio_underrun (requests whose sound would have stopped in mid-play; none, while answers are sent whole), and occupancy,
the share of the decoder's slots that were speaking in its steps.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import serve

from benchmarks.reporting import report, table
from deployments.app import build
from deployments.settings import Settings
from voice_core.decoding.engine import EngineCounters

SENTENCES = (
    "The morning train was late again.",
    "Nobody in the village could remember such a winter.",
    "She closed the door and listened to the rain.",
    "Bring the blue folder to the second floor, please.",
    "It was not the answer that we had hoped for.",
    "Two brothers walked along the river until it was dark.",
    "How long does it take to learn a language?",
    "The old clock in the hall has stopped.",
    "After dinner they talked about the sea.",
    "Every road out of the valley was closed.",
)
SENTENCES_OF_A_REQUEST = (1, 5)
COMPARED_SHARE = 0.7  # of the full rate, where in-flight admission and waiting are compared
SHARES = (0.4, 0.9, 1.1)
FULL_CONCURRENCY = 12
PERCENTILES = (50, 95, 99)
COLUMNS = ["admission", "load", "requests/s", "audio s/s", "metric", "mean", "p50", "p95", "p99", "occupancy"]


@dataclass(frozen=True)
class Answer:
    """What one request took."""

    ttfp_seconds: float
    e2e_seconds: float
    audio_seconds: float


@dataclass(frozen=True)
class Phase:
    """A stretch of load."""

    answers: list[Answer]
    wall_seconds: float
    requests_per_second: float
    occupancy: float

    def summary(self) -> dict[str, Any]:
        """Return mean and percentiles of each metric, in seconds (audio_rtf: a ratio)."""
        ttfp = [answer.ttfp_seconds for answer in self.answers]
        e2e = [answer.e2e_seconds for answer in self.answers]
        rtf = [answer.e2e_seconds / answer.audio_seconds for answer in self.answers]
        metrics = {"audio_ttfp": _spread(ttfp), "audio_e2e": _spread(e2e), "audio_rtf": _spread(rtf)}
        audio = sum(answer.audio_seconds for answer in self.answers)
        return metrics | {
            "audio_underrun": 0.0,
            "requests_per_s": round(self.requests_per_second, 3),
            "audio_s_per_s": round(audio / self.wall_seconds, 3),
            "occupancy": round(self.occupancy, 4),
        }


class Service:
    """A server of one admission mode and a client of it."""

    def __init__(self, client: httpx.AsyncClient, application: str, max_rows: int) -> None:
        self._client = client
        self._max_rows = max_rows
        self._synthesizer = serve.get_deployment_handle("Synthesizer", application)

    async def closed_loop(self, concurrency: int, seconds: float) -> Phase:
        """Keep `concurrency` requests in the house; the rate is that of those that ended while it was full."""
        deadline, bodies = time.perf_counter() + seconds, request_bodies()
        in_time = 0

        async def caller() -> list[Answer]:
            nonlocal in_time
            answers = []
            while time.perf_counter() < deadline:
                answers.append(await self._speak(next(bodies)))
                in_time += time.perf_counter() < deadline
            return answers

        phase = await self._phase(asyncio.gather(*[caller() for _ in range(concurrency)]))
        return replace(phase, requests_per_second=in_time / seconds)

    async def open_loop(self, requests_per_second: float, count: int, turn: int = 0) -> Phase:
        """Send requests at Poisson times whatever comes back; each turn has requests and times of its own."""
        rng, bodies = random.Random(turn), request_bodies(turn)

        async def sender() -> list[list[Answer]]:
            tasks = []
            for _ in range(count):
                tasks.append(asyncio.create_task(self._speak(next(bodies))))
                await asyncio.sleep(rng.expovariate(requests_per_second))
            return [[await task] for task in tasks]

        return await self._phase(sender())

    async def _phase(self, load: Any) -> Phase:
        before, start = await self._counters(), time.perf_counter()
        answers = list(itertools.chain.from_iterable(await load))
        wall_seconds, after = time.perf_counter() - start, await self._counters()
        steps = after.steps - before.steps
        occupancy = (after.row_steps - before.row_steps) / max(1, steps) / self._max_rows
        return Phase(answers, wall_seconds, len(answers) / wall_seconds, occupancy)

    async def _counters(self) -> EngineCounters:
        counters: EngineCounters = await self._synthesizer.counters.remote()
        return counters

    async def _speak(self, body: dict[str, Any]) -> Answer:
        start = time.perf_counter()
        async with self._client.stream("POST", "/v1/audio/speech", json=body) as answer:
            answer.raise_for_status()
            pieces = answer.aiter_bytes()
            await anext(pieces)
            first = time.perf_counter()
            async for _ in pieces:
                pass
        audio_seconds = float(answer.headers["x-audio-seconds"])
        return Answer(first - start, time.perf_counter() - start, audio_seconds)


async def main() -> None:
    options = _options()
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    serve.start(http_options={"host": "127.0.0.1", "port": options.port})
    seconds, count, rounds = (6.0, 12, 2) if options.quick else (25.0, 40, 4)
    rows, summary = [], {}
    try:
        inflight, gather = await service(options, in_flight=True), await service(options, in_flight=False)
        for of_mode in (inflight, gather):
            await of_mode.closed_loop(2, 1.0)  # the first requests pay for what is loaded on first use
        full = await inflight.closed_loop(FULL_CONCURRENCY, seconds)
        rows += table_rows("in flight", "closed, full", full)
        rate = full.requests_per_second
        summary["full_requests_per_s"] = round(rate, 3)
        for share in () if options.quick else SHARES:
            rows += table_rows("in flight", f"open, {share:.0%}", await inflight.open_loop(share * rate, count))
        turns = [
            (
                await inflight.open_loop(COMPARED_SHARE * rate, count, turn),
                await gather.open_loop(COMPARED_SHARE * rate, count, turn),
            )
            for turn in range(rounds)
        ]
        for name, phases in zip(("inflight", "gather"), zip(*turns, strict=True), strict=True):
            phase = together(phases)
            rows += table_rows(name, f"open, {COMPARED_SHARE:.0%}", phase)
            summary[name] = phase.summary()
    finally:
        serve.shutdown()
        ray.shutdown()
    for name in ("mean", "p95"):
        ratio = summary["gather"]["audio_e2e"][name] / summary["inflight"]["audio_e2e"][name]
        summary[f"{name}_ratio"] = round(ratio, 3)
    report("serving", "The server under load", table(COLUMNS, rows), summary, keep=not options.quick)


async def service(options: argparse.Namespace, *, in_flight: bool) -> Service:
    """Deploy the application in one admission mode, under a path of its own."""
    name = "inflight" if in_flight else "gather"
    settings = Settings(model=options.model, device=options.device, max_rows=options.max_rows, in_flight=in_flight)
    await asyncio.to_thread(serve.run, build(settings), name=name, route_prefix=f"/{name}")
    base_url = f"http://127.0.0.1:{options.port}/{name}"
    client = httpx.AsyncClient(base_url=base_url, timeout=600, limits=httpx.Limits(max_connections=None))
    return Service(client, name, options.max_rows)


def together(phases: Sequence[Phase]) -> Phase:
    """Return several stretches of the same load as one."""
    answers = [answer for phase in phases for answer in phase.answers]
    wall_seconds = sum(phase.wall_seconds for phase in phases)
    occupancy = sum(phase.occupancy * phase.wall_seconds for phase in phases) / wall_seconds
    return Phase(answers, wall_seconds, len(answers) / wall_seconds, occupancy)


def request_bodies(turn: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the same endless requests every time: one to five sentences, pcm."""
    rng = random.Random(turn)
    while True:
        text = " ".join(rng.choices(SENTENCES, k=rng.randint(*SENTENCES_OF_A_REQUEST)))
        seed = rng.randrange(2**31)
        yield {"model": "m", "voice": "default", "input": text, "response_format": "pcm", "seed": seed}


def table_rows(admission: str, load: str, phase: Phase) -> list[list[object]]:
    summary = phase.summary()
    return [
        [
            *(admission, load, summary["requests_per_s"], summary["audio_s_per_s"], metric),
            *summary[metric].values(),
            summary["occupancy"],
        ]
        for metric in ("audio_ttfp", "audio_e2e", "audio_rtf")
    ]


def _spread(values: Sequence[float]) -> dict[str, float]:
    spread = {"mean": float(np.mean(values))}
    spread |= {f"p{percent}": float(np.percentile(values, percent)) for percent in PERCENTILES}
    return {name: round(value, 4) for name, value in spread.items()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--max-rows", type=int, default=16)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--quick", action="store_true", help="a minute at most, and no results file")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
