"""The running server under load: python benchmarks/serving.py [--quick] [--model embedded] [--device cpu]

Applications of the same model stand side by side and take turns, so that whatever else the machine does meets all:
`inflight` admits rows while others are spoken; `gather` gathers and waits, as the reference's batch functions and a
plain @serve.batch method do: rows that come wait until all that are being spoken have ended, are then spoken together,
and leave together. `early` is what the setting in_flight: false does: rows wait likewise, but each leaves as soon as it
has ended. All have as many slots as the product takes on a CPU, where more of them speak no faster.

Load is an open loop: requests of one to five sentences come at Poisson times, the same for all, whatever comes back.
First the rate rises until all are saturated: a server keeps up with a rate as long as the median latency of the second
half of a stretch is at most PATIENCE times the one that single requests meet in an empty house; where it falls behind,
latency grows with every second. Its saturation is the highest rate it kept up with before the first it didn't.
Then all meet COMPARED_SHARE of the saturation of the server as it is delivered, the one that admits in flight: the same
load, with in-flight admission and without it. Figures are medians over the turns, and carry the peers' names:
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
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import serve

from benchmarks.reporting import report, table
from deployments import app
from deployments.app import build
from deployments.settings import Admission, Settings
from deployments.synthesizer import Synthesizer
from voice_core.decoding.engine import EngineCounters
from voice_core.speech import Speech

# One to eight seconds each, as texts are: rows of 50 to 400 frames, as in the comparison of mixed lengths.
SENTENCES = (
    "Nobody came that day.",
    "That is all we know.",
    "Close the door, please.",
    "It rained all night.",
    "Nobody in the village could remember such a winter.",
    "Two brothers walked along the river until it was dark.",
    "How long does it take to learn a language like that one?",
    "Bring the blue folder to the office on the second floor, please.",
    "When the train came in at last, most of those who had waited for it on the platform had gone home again.",
    "She closed the door behind her, listened to the rain on the roof for a while, and then began to read.",
    "Every road out of the valley was closed, so they stayed with the farmer until the snow had melted.",
    "The old clock in the hall had stopped at ten past four, and nobody in the house knew how to mend it.",
)
SENTENCES_OF_A_REQUEST = (1, 5)

RISING_TURN = 99  # requests and times unlike those that are compared
SINGLE_REQUESTS = 8  # to each server, one by one
FIRST_RATE, RATE_FACTOR = 1.2, 1.2  # requests a second, and how they rise
PATIENCE = 3.0
COMPARED_SHARE = 0.7  # of saturation
# The gathering server's window: with the default of 5 ms, which suits admission in flight, a request's own segments may
# miss their pass by a moment and wait for the next; with this one none did.
GATHER_SECONDS = 0.02
MODES = ("inflight", "gather", "early")
LOOK_SECONDS = 0.005  # at whether the pass has ended
METRICS = ("audio_ttfp", "audio_e2e", "audio_rtf")
PERCENTILES = (50, 95, 99)
COLUMNS = ["admission", "load", "offered/s", "audio s/s", "occupancy", "metric"]
COLUMNS += ["mean", *(f"p{percent}" for percent in PERCENTILES)]


@dataclass(frozen=True)
class Answer:
    """What one request took."""

    ttfp_seconds: float
    e2e_seconds: float
    audio_seconds: float


@dataclass(frozen=True)
class Stretch:
    """A stretch of load."""

    answers: list[Answer]
    seconds: float  # that requests were sent for
    wall_seconds: float  # until the last answer
    occupancy: float

    @property
    def requests_per_second(self) -> float:
        """What was offered."""
        return len(self.answers) / self.seconds

    @property
    def settled_median_seconds(self) -> float:
        """Return the median latency once the house has filled: of the second half of the requests."""
        return statistics.median(answer.e2e_seconds for answer in self.answers[len(self.answers) // 2 :])

    def summary(self) -> dict[str, Any]:
        """Return mean and percentiles of each metric, in seconds (audio_rtf: a ratio)."""
        ttfp = [answer.ttfp_seconds for answer in self.answers]
        e2e = [answer.e2e_seconds for answer in self.answers]
        rtf = [answer.e2e_seconds / answer.audio_seconds for answer in self.answers]
        spreads = dict(zip(METRICS, map(_spread, (ttfp, e2e, rtf)), strict=True))
        audio = sum(answer.audio_seconds for answer in self.answers)
        return spreads | {
            "audio_underrun": 0.0,
            "requests_per_s": self.requests_per_second,
            "audio_s_per_s": audio / self.wall_seconds,
            "occupancy": self.occupancy,
        }


class Service:
    """A server of one admission mode and a client of it."""

    def __init__(self, client: httpx.AsyncClient, application: str, max_rows: int) -> None:
        self._client = client
        self._max_rows = max_rows
        self._synthesizer = serve.get_deployment_handle("Synthesizer", application)

    async def gather_for(self, seconds: float) -> None:
        """Let the door wait so long for more segments before it hands them on."""
        await self._synthesizer.reconfigure.remote(Admission(window_seconds=seconds).model_dump())

    async def single_requests(self, count: int) -> list[Answer]:
        """Send requests one by one, each into an empty house."""
        return [await self._speak(body) for body in itertools.islice(request_bodies(), count)]

    async def open_loop(self, requests_per_second: float, seconds: float, turn: int = 0) -> Stretch:
        """Send requests at Poisson times whatever comes back; each turn has requests and times of its own.

        Given their number, the times of a Poisson process are uniform: so every turn offers the rate that it says.
        """
        count = round(requests_per_second * seconds)
        rng = random.Random(turn)
        times = sorted(rng.uniform(0, seconds) for _ in range(count))
        before, start = await self._counters(), time.perf_counter()

        async def speak_at(moment: float, body: dict[str, Any]) -> Answer:
            await asyncio.sleep(start + moment - time.perf_counter())
            return await self._speak(body)

        answers = await asyncio.gather(*map(speak_at, times, request_bodies(turn)))
        wall_seconds, after = time.perf_counter() - start, await self._counters()
        occupancy = (after.row_steps - before.row_steps) / max(1, after.steps - before.steps) / self._max_rows
        return Stretch(answers, seconds, wall_seconds, occupancy)

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
    climb_seconds, seconds, turns = (6.0, 6.0, 2) if options.quick else (12.0, 25.0, 3)
    try:
        services = {mode: await service(options, mode) for mode in MODES}
        saturation, summary, rows = await climb(services, climb_seconds)
        summary["max_rows"] = options.max_rows
        rate = COMPARED_SHARE * saturation["inflight"]
        stretches: dict[str, list[Stretch]] = {mode: [] for mode in MODES}
        for turn, mode in itertools.product(range(turns), MODES):
            stretches[mode].append(await services[mode].open_loop(rate, seconds, turn))
    finally:
        serve.shutdown()
        ray.shutdown()
    for mode in MODES:
        summary[mode] = median_of([stretch.summary() for stretch in stretches[mode]])
        rows += table_rows(mode, f"{COMPARED_SHARE:.0%} of saturation", summary[mode], METRICS)
    for mode, name in itertools.product(MODES[1:], ("mean", "p95")):
        ratio = summary[mode]["audio_e2e"][name] / summary["inflight"]["audio_e2e"][name]
        summary[f"{mode}_{name}_ratio"] = round(ratio, 3)
    report("serving", "The server under load", table(COLUMNS, rows), summary, keep=not options.quick)


async def climb(
    services: dict[str, Service], seconds: float
) -> tuple[dict[str, float], dict[str, Any], list[list[object]]]:
    """Raise the rate until every server has fallen behind; return the highest rate that each kept up with, and how."""
    singles = []
    for of_mode in services.values():
        await of_mode.single_requests(2)  # the first requests pay for what is loaded on first use
        singles += [answer.e2e_seconds for answer in await of_mode.single_requests(SINGLE_REQUESTS)]
    unloaded_seconds = statistics.median(singles)
    saturation = dict.fromkeys(services, 0.0)
    rows: list[list[object]] = []
    climbing, rate = list(services), FIRST_RATE
    while climbing:
        for mode in list(climbing):
            stretch = await services[mode].open_loop(rate, seconds, turn=RISING_TURN)
            rows += table_rows(mode, "rising", stretch.summary(), ["audio_e2e"])
            if stretch.settled_median_seconds > PATIENCE * unloaded_seconds:
                climbing.remove(mode)
            else:
                saturation[mode] = stretch.requests_per_second
        rate *= RATE_FACTOR
    if not all(saturation.values()):
        raise SystemExit(f"the machine is too busy: a server fell behind {FIRST_RATE} requests a second")
    found = {mode: round(rate, 3) for mode, rate in saturation.items()}
    summary = {"unloaded_p50": round(unloaded_seconds, 4), "saturation_requests_per_s": found}
    return saturation, summary, rows


async def service(options: argparse.Namespace, mode: str) -> Service:
    """Deploy the application in one admission mode, under a path of its own."""
    in_flight = mode == "inflight"
    app.Synthesizer = leaving_together() if mode == "gather" else Synthesizer
    settings = Settings(
        model=options.model,
        device=options.device,
        max_rows=options.max_rows,
        in_flight=in_flight,
        segment_cache="off",  # or everything would be spoken only once
    )
    await asyncio.to_thread(serve.run, build(settings), name=mode, route_prefix=f"/{mode}")
    base_url = f"http://127.0.0.1:{options.port}/{mode}"
    client = httpx.AsyncClient(base_url=base_url, timeout=600, limits=httpx.Limits(max_connections=None))
    started = Service(client, mode, options.max_rows)
    if not in_flight:
        await started.gather_for(GATHER_SECONDS)
    return started


def leaving_together() -> Any:
    """Return the synthesizer whose segments all leave when the last of their pass has ended."""
    plain: Any = Synthesizer

    class Together(plain.func_or_class):  # type: ignore[misc,name-defined]
        async def speak(self, *told: Any) -> list[Speech]:
            speeches: list[Speech] = await super().speak(*told)
            own_pass = self._decoder.counters.passes
            while self._decoder.counters.rows_active and self._decoder.counters.passes == own_pass:
                await asyncio.sleep(LOOK_SECONDS)
            return speeches

    return plain.options(func_or_class=Together, name="Synthesizer")


def median_of(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of every figure."""
    first = summaries[0]
    return {
        name: median_of([summary[name] for summary in summaries])
        if isinstance(figure, dict)
        else round(statistics.median(summary[name] for summary in summaries), 4)
        for name, figure in first.items()
    }


def request_bodies(turn: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the same endless requests every time: one to five sentences, pcm."""
    rng = random.Random(turn)
    while True:
        text = " ".join(rng.choices(SENTENCES, k=rng.randint(*SENTENCES_OF_A_REQUEST)))
        seed = rng.randrange(2**31)
        yield {"model": "m", "voice": "default", "input": text, "response_format": "pcm", "seed": seed}


def table_rows(mode: str, load: str, figures: dict[str, Any], metrics: Sequence[str]) -> list[list[object]]:
    about = [figures[name] for name in ("requests_per_s", "audio_s_per_s", "occupancy")]
    return [[mode, load, *about, metric, *figures[metric].values()] for metric in metrics]


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
