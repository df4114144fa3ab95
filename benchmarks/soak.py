"""The server under steady load for a long time: python benchmarks/soak.py [--minutes 60] [--quick]

Starts the server as its user would, keeps a steady load on it (an open loop at a share of what it was seen to bear) of
whole answers, streams, clients that hang up and requests that are wrong, and looks every few seconds at what every
process of it holds. Everybody must be answered as they should be, hardly anybody told to come later, and the server
must end by itself. Memory must not grow: its slope is fitted to the second half of the run, after caches have filled.
It goes up and down by tens of megabytes, as answers come and go and freed pages are given back, so the slope is told
with its error; a few minutes are too short to judge it. Nor may the queue: latency of the last quarter is told beside
that of the second.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import re
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from benchmarks.processes import Holdings, tree
from benchmarks.reporting import report, table
from benchmarks.running import service
from benchmarks.serving import request_bodies

CACHE_BYTES = 20_000_000
LOOK_SECONDS = 5.0
MEAN_OF_SECONDS = 60.0  # memory is trimmed twice in it, see voice_core.upkeep
FEWEST_MINUTES = 4  # that a slope and its error are told of
CALLERS = 6  # of the closed loop that tells what the server bears
SHARE = 0.5  # of that, under which it then stays
MOST_TOLD_TO_WAIT = 0.01  # of the requests; they come at random times, so now and then many at once
MOST_GROWTH_MB_PER_HOUR = 50.0  # 1.2 GB a day; it was 135 before a leak was mended, and -16 after
KINDS = {"whole": 6, "stream": 3, "events": 2, "hang-up": 2, "wrong": 1}  # how often each is sent
RIGHT = {"whole 200", "stream 200", "events 200", "hang-up 200", "hang-up left", "wrong 400"}
COLUMNS = ["process", "memory at half time (MB)", "at the end", "slope (MB/h)", "±", "files", "threads"]


@dataclass
class Log:
    """What was seen."""

    outcomes: Counter[str] = field(default_factory=Counter)
    latencies: list[tuple[float, float]] = field(default_factory=list)  # when sent, and seconds to the last byte
    looks: list[tuple[float, list[Holdings]]] = field(default_factory=list)
    most_in_flight: int = 0
    in_flight: int = 0


async def main() -> int:
    options = _options()
    if not options.quick and options.minutes < 2 * FEWEST_MINUTES:
        raise SystemExit(f"--minutes: memory can't be judged in fewer than {2 * FEWEST_MINUTES}")
    seconds = 60.0 if options.quick else options.minutes * 60
    # so small that it is full before the half that is looked at
    with service("--segment-cache-bytes", str(CACHE_BYTES)) as target:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=target.url, timeout=120, limits=limits) as client:
            rate = SHARE * await closed_loop_rate(client, 10.0 if options.quick else 30.0)
            log = await soak(client, target.process.pid, rate, seconds)
            last = await client.post("/v1/audio/speech", json=next(request_bodies()))
            last.raise_for_status()
    rows, growth, error = memory_table(log)
    early, late = (_median(part) for part in _parts(log.latencies, seconds))
    requests = log.outcomes.total()
    steady = options.quick or growth <= MOST_GROWTH_MB_PER_HOUR
    passed = steady and answered_as_they_should_be(log.outcomes) and target.process.returncode == 0
    summary = {
        "minutes": round(seconds / 60, 1),
        "requests": requests,
        "requests_per_s": round(requests / seconds, 3),
        "outcomes": dict(log.outcomes),
        "memory_slope_mb_per_hour": round(growth, 2),
        "memory_slope_error_mb_per_hour": round(error, 2),
        "median_seconds_second_quarter": early,
        "median_seconds_last_quarter": late,
        "most_in_flight": log.most_in_flight,
        "exit_code": target.process.returncode,
        "passed": passed,
    }
    report("soak", "The server under steady load", table(COLUMNS, rows), summary, keep=not options.quick)
    return 0 if passed else 1


def answered_as_they_should_be(outcomes: Counter[str]) -> bool:
    """Tell if all requests were answered right, but for a few that were told to come later."""
    told_to_wait = sum(count for outcome, count in outcomes.items() if outcome.endswith(" 429"))
    right = sum(count for outcome, count in outcomes.items() if outcome in RIGHT)
    return (
        right > 0 and right + told_to_wait == outcomes.total() and told_to_wait <= MOST_TOLD_TO_WAIT * outcomes.total()
    )


async def closed_loop_rate(client: httpx.AsyncClient, seconds: float) -> float:
    """Return how many requests a second the server answers to a few callers that never pause."""
    deadline, bodies, done = time.perf_counter() + seconds, request_bodies(), 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < deadline:
            (await client.post("/v1/audio/speech", json=next(bodies))).raise_for_status()
            done += time.perf_counter() < deadline

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return done / seconds


async def soak(client: httpx.AsyncClient, server_pid: int, requests_per_second: float, seconds: float) -> Log:
    """Send requests of all kinds at Poisson times; look at the server's processes all the while."""
    log, rng, bodies, start = Log(), random.Random(0), request_bodies(), time.perf_counter()
    under_way: set[asyncio.Task[None]] = set()

    async def look() -> None:
        while True:
            log.looks.append((time.perf_counter() - start, await asyncio.to_thread(tree, server_pid)))
            await asyncio.sleep(LOOK_SECONDS)

    looking = asyncio.create_task(look())
    while time.perf_counter() - start < seconds:
        (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
        task = asyncio.create_task(_send(client, kind, next(bodies), rng.random(), log, start))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        log.most_in_flight = max(log.most_in_flight, len(under_way))
        await asyncio.sleep(rng.expovariate(requests_per_second))
    await asyncio.gather(*under_way)
    looking.cancel()
    return log


async def _send(
    client: httpx.AsyncClient, kind: str, body: dict[str, Any], chance: float, log: Log, start: float
) -> None:
    """Send one request and note what became of it; `chance` in 0..1 decides when a client hangs up."""
    if kind in ("stream", "events", "hang-up"):
        body = body | {"stream_format": "sse" if kind == "events" else "audio"}
    if kind == "wrong":
        body = body | {"temperature": 99}
    sent_at, began = time.perf_counter() - start, time.perf_counter()
    try:
        async with asyncio.timeout(0.02 + chance if kind == "hang-up" else None):
            async with client.stream("POST", "/v1/audio/speech", json=body) as answer:
                size = sum([len(chunk) async for chunk in answer.aiter_bytes()])
    except TimeoutError:
        log.outcomes["hang-up left"] += 1
        return
    except httpx.HTTPError as error:
        log.outcomes[f"{kind} {type(error).__name__}"] += 1
        return
    log.outcomes[f"{kind} {answer.status_code}"] += 1
    if answer.status_code == 200 and size:
        log.latencies.append((sent_at, time.perf_counter() - began))


def memory_table(log: Log) -> tuple[list[list[object]], float, float]:
    """Return a row for every process that lived through the second half; slope and error of all together in MB/h."""
    half = log.looks[len(log.looks) // 2 :]
    held: dict[int, list[tuple[float, Holdings]]] = defaultdict(list)
    for moment, processes in half:
        for process in processes:
            held[process.pid].append((moment, process))
    rows: list[list[object]] = []
    for looks in held.values():
        if len(looks) == len(half):
            (_, first), (_, last) = looks[0], looks[-1]
            growth = slope([(moment, process.memory_mb) for moment, process in looks])
            rows.append([_short(first.name), first.memory_mb, last.memory_mb, *growth, last.files, last.threads])
    rows.sort(key=lambda row: -float(str(row[3])))
    whole = [(moment, sum(process.memory_mb for process in processes)) for moment, processes in half]
    growth = slope(whole)
    rows.append(["all together", whole[0][1], whole[-1][1], *growth, "", ""])
    return rows, *growth


def slope(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the slope per hour of values over seconds and its standard error, by least squares of minutes' means.

    Both are 0 where there are too few minutes to tell an error.
    """
    minutes: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for moment, value in points:
        minutes[int((moment - points[0][0]) / MEAN_OF_SECONDS)].append((moment / 3600, value))
    means = np.array([np.mean(minute, axis=0) for minute in minutes.values()])
    if len(means) < FEWEST_MINUTES:
        return 0.0, 0.0
    line, covariance = np.polyfit(means[:, 0], means[:, 1], 1, cov=True)
    return float(line[0]), float(covariance[0, 0] ** 0.5)


def _parts(latencies: Sequence[tuple[float, float]], seconds: float) -> list[list[float]]:
    """Return the latencies of the second and of the last quarter."""
    quarters = [[one for sent, one in latencies if int(4 * sent / seconds) == quarter] for quarter in range(4)]
    return [quarters[1], quarters[3]]


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 3) if values else None


def _short(name: str) -> str:
    """Return a process's title without what is the same in all of them, or different in every run."""
    title = re.match(r"ray::[\w:]+", name)  # while it answers, Ray adds what it is asked
    return title.group() if title else " ".join(itertools.islice((Path(word).name for word in name.split()), 3))[:60]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--quick", action="store_true", help="a minute of load, and no results file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
