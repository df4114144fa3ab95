"""Clients that hang up at random moments: python benchmarks/hangups.py [--quick] [--clients 200]

Each asks for a text that takes a while, whole or streamed, and leaves at a moment of its own: while it sends, while it
waits, in mid-stream. First one after the other, so that for each it can be told whether it had rows in the decoder or
before it, and how long they stay; then all at once, several times. Nothing may be left of them: rows, slots, requests,
files, tasks; and the server speaks. Pools of threads fill at first, and each thread's memory with them, so the first
rounds don't count. Python collects what refers to itself only now and then: what leaks shows in the least that is held
in the second half of the other rounds beside that in the first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from benchmarks.processes import tree
from benchmarks.reporting import report, table
from benchmarks.running import free_port
from deployments.app import build
from deployments.proxy import announce
from deployments.settings import Settings
from voice_core.decoding.engine import EngineCounters

LINE = "This is one more line of the text.\n"
LINES = 12
LONGEST_STAY_SECONDS = 1.5
GONE_SECONDS = 0.2  # within which the rows of a client who has left are to be seen gone
LOOK_SECONDS = 0.005
SURE_SECONDS = 0.1
PATIENCE_SECONDS = 20.0
WARM_UP_CLIENTS = 20
FILLING_ROUNDS, QUICK_FILLING_ROUNDS = 4, 0  # of all at once
ROUNDS, QUICK_ROUNDS = 10, 2  # after these
SETTLE_SECONDS = 12.0  # after which Ray has told how many tasks there are: it does so twice in that time
GROWTH_MB, GROWTH = 10, 5  # of all processes together, and of files, threads or tasks, over the rounds
SERVICE = re.compile(r"ray::(?:ServeReplica:\w+:)?(ProxyActor|Ingress|Composer|Synthesizer|VoiceEncoder)")
TASKS = re.compile(r"(?m)^ray_serve_event_loop_tasks\{.*\} (\S+)$")


class Departure(NamedTuple):
    """What the decoder held of a client who left."""

    rows: int  # when it left, spoken or waiting; or afterwards, if they were on their way
    seconds: float  # until none was seen any more


async def main() -> int:
    options = _options()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as voices, in_this_process(options.port, voices) as url:
        synthesizer = serve.get_deployment_handle("Synthesizer", "voice")
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            for _ in range(WARM_UP_CLIENTS):
                await hang_up(url, rng)  # what is made once is made
            await until_gone(synthesizer)
            held = {"the first few": await holdings()}
            alone: list[Departure] = []
            for number in range(options.clients):
                rows = await hang_up(url, rng, synthesizer)
                later = await until_gone(synthesizer)
                alone.append(later._replace(rows=max(rows, later.rows)))
                if number % 20 == 19:
                    slowest = max((departure.seconds for departure in alone if departure.rows), default=0.0)
                    print(f"{number + 1} left, the slowest rows stayed {slowest:.3f} s", file=sys.stderr, flush=True)
            held["one by one"] = await holdings()
            together = []
            for number in range(options.filling_rounds + options.rounds):
                await asyncio.gather(*[hang_up(url, rng) for _ in range(options.clients)])
                together.append((await until_gone(synthesizer)).seconds)
                held[f"all at once, {number + 1}"] = await holdings()
            status = (await client.get("/status", headers={"Accept": "application/json"})).json()
            body = request_body("Hello there.", None)
            speaks = (await client.post("/v1/audio/speech", json=body)).status_code == 200
    looks = list(held.values())
    half = options.rounds // 2
    first, second = looks[-2 * half : -half], looks[-half:]
    grown = {
        name: min(look[name] for look in second) - min(look[name] for look in first)
        for name in ("MB", "files", "threads", "tasks")
    }
    stays = [departure.seconds for departure in alone if departure.rows]
    inside = status["this_ingress"]["requests_in_flight"]
    small = grown["MB"] < GROWTH_MB and max(grown[name] for name in ("files", "threads", "tasks")) < GROWTH
    passed = speaks and small and not inside and bool(stays) and max(stays) <= GONE_SECONDS
    summary = {
        "clients": options.clients,
        "clients_who_left_rows": len(stays),
        "gone_seconds_max": round(max(stays), 3) if stays else None,
        "gone_seconds_p50": round(statistics.median(stays), 3) if stays else None,
        "gone_in_time": sum(seconds <= GONE_SECONDS for seconds in stays),
        "gone_seconds_all_at_once": round(max(together), 3),
        "grown": grown,
        "requests_left_inside": inside,
        "still_speaks": speaks,
        "passed": passed,
        "seed": options.seed,
    }
    rows = [[moment, *(look[name] for name in looks[-1])] for moment, look in held.items()]
    report("hangups", "Clients that hang up", table(["after", *looks[-1]], rows), summary, keep=not options.quick)
    return 0 if passed else 1


@contextmanager
def in_this_process(port: int, voices: str) -> Iterator[str]:
    """Serve from here, so that the decoder's counters can be asked for in milliseconds; yield the service's address."""
    port = port or free_port()
    announce(Settings())
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(build(Settings(device="cpu", voices=voices)), name="voice")
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


async def hang_up(url: str, rng: random.Random, synthesizer: DeploymentHandle | None = None) -> int:
    """Send a request and leave at some moment; return how many rows the synthesizer, if any, has just before."""
    body = json.dumps(request_body(LINE * LINES, rng.choice([None, "audio", "sse"]))).encode()
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    whole = head.encode() + b"\r\n\r\n" + body
    stay_seconds = rng.uniform(0, LONGEST_STAY_SECONDS)
    address = httpx.URL(url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        if rng.random() < 0.1:
            whole = whole[: rng.randrange(1, len(whole))]
        writer.write(whole)
        await writer.drain()
        async with asyncio.timeout(stay_seconds):
            while await reader.read(4096):
                pass
    except TimeoutError:
        pass
    rows = 0 if synthesizer is None else await rows_inside(synthesizer)
    if rng.random() < 0.5:
        writer.transport.abort()  # a reset, as of a process that was killed
    else:
        writer.close()
    return rows


def request_body(text: str, stream_format: str | None) -> dict[str, Any]:
    """Ask for what no cache knows."""
    body = {"model": "m", "voice": "default", "input": text, "response_format": "pcm", "cache": False}
    return body if stream_format is None else body | {"stream_format": stream_format}


async def until_gone(synthesizer: DeploymentHandle) -> Departure:
    """Return the most rows that were left, and after how many seconds there was none.

    Rows may still be on their way when a client has left already, so it takes some looks in a row to be sure.
    """
    begun = time.monotonic()
    most, gone_at = 0, None
    while (asked_at := time.monotonic()) < begun + PATIENCE_SECONDS:
        rows = await rows_inside(synthesizer)
        most = max(most, rows)
        if rows:
            gone_at = None
        elif gone_at is None:
            gone_at = time.monotonic()  # they weren't there when this was answered; before it, who knows
        elif asked_at - gone_at > SURE_SECONDS:
            return Departure(most, gone_at - begun)
        await asyncio.sleep(LOOK_SECONDS)
    return Departure(most, PATIENCE_SECONDS)


async def rows_inside(synthesizer: DeploymentHandle) -> int:
    """Return how many rows there are, in slots or waiting for one."""
    counters: EngineCounters = await synthesizer.counters.remote()
    return counters.rows_active + counters.rows_waiting


async def holdings() -> Counter[str]:
    """Return what the service's processes hold together, and how many MB each kind of them; zero for none."""
    await asyncio.sleep(SETTLE_SECONDS)
    held: Counter[str] = Counter()
    for process in tree(os.getpid()):
        if kind := SERVICE.match(process.name):
            held["MB"] += round(process.memory_mb)
            held["files"] += process.files
            held["threads"] += process.threads
            held[f"MB: {kind[1]}"] += round(process.memory_mb)
    held["tasks"] = await asyncio.to_thread(_tasks)
    return held


def _tasks() -> int:
    """Return how many tasks all event loops of replicas and proxies have."""
    (node,) = ray.nodes()
    agent = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    return round(sum(map(float, TASKS.findall(httpx.get(agent, timeout=10).text))))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--port", type=int, default=0, help="of the server that is started; 0: any")
    parser.add_argument("--quick", action="store_true", help="two minutes at most, and no results file")
    options = parser.parse_args()
    options.clients = options.clients or (20 if options.quick else 200)
    options.rounds = QUICK_ROUNDS if options.quick else ROUNDS
    options.filling_rounds = QUICK_FILLING_ROUNDS if options.quick else FILLING_ROUNDS
    return options


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
