"""The service on a cluster whose parts die: python benchmarks/chaos.py [--minutes 5] [--quick]

A cluster of a head and three nodes on this machine, a synthesizer on each node, two ingresses on the head. Load comes
at Poisson times at 60 % of the rate that many callers who never pause were served at. Meanwhile a synthesizer's process
is killed every 20 s; after a third of the time a node is taken away, after two thirds another is added. Every request
must be answered with the very bytes that it was answered with before anything was disturbed, or this fails. A client
who is told to come later (429, 503) does so; that is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from benchmarks.processes import tree
from benchmarks.reporting import report, table
from benchmarks.running import free_port
from benchmarks.serving import request_bodies

NODES = 3
HOUSE, VOICE = {"house": 0.01}, {"voice": 1}  # what pins ingress and composer to the head, a synthesizer to each node
KILL_SECONDS = 20.0
SHARE = 0.6
CALLERS = 12  # who never pause
DIFFERENT = 24  # requests, sent over and over
PATIENCE_SECONDS = 300.0  # of a client, all its tries together
ASK_LATER = (429, 503)
COLUMNS = ["load", "requests", "right", "told to wait", "median (s)", "p95 (s)", "worst (s)"]


@dataclass
class Log:
    """What became of the requests."""

    latencies: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    told_to_wait: int = 0
    kills: int = 0
    events: list[str] = field(default_factory=list)


class Clients:
    """Sends requests and knows what they were answered with at first."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.bodies = list(itertools.islice(request_bodies(), DIFFERENT))
        self._hashes: list[str] = []

    async def learn(self) -> None:
        """Have every request answered once, undisturbed."""
        for body in self.bodies:
            answer = await self._client.post("/v1/audio/speech", json=body)
            answer.raise_for_status()
            self._hashes.append(_hash(answer.content))

    async def closed_loop_rate(self, seconds: float) -> float:
        """Return how many requests a second are answered to many callers who never pause."""
        deadline, places, done = time.perf_counter() + seconds, itertools.cycle(range(DIFFERENT)), 0

        async def caller() -> None:
            nonlocal done
            while time.perf_counter() < deadline:
                (await self._client.post("/v1/audio/speech", json=self.bodies[next(places)])).raise_for_status()
                done += time.perf_counter() < deadline

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return done / seconds

    async def send(self, place: int, log: Log) -> None:
        """Send one request until it is answered, as long as it is told to come later."""
        start = time.perf_counter()
        while time.perf_counter() - start < PATIENCE_SECONDS:
            try:
                answer = await self._client.post("/v1/audio/speech", json=self.bodies[place])
            except httpx.HTTPError as error:
                log.outcomes[type(error).__name__] += 1
                return
            if answer.status_code not in ASK_LATER:
                break
            log.told_to_wait += 1
            await asyncio.sleep(float(answer.headers["retry-after"]))
        log.latencies.append(time.perf_counter() - start)
        right = answer.status_code == 200 and _hash(answer.content) == self._hashes[place]
        log.outcomes["right" if right else f"wrong {answer.status_code}"] += 1


def main() -> int:
    options = _options()
    seconds = 60.0 if options.quick else options.minutes * 60
    with (
        tempfile.TemporaryDirectory() as voices,
        _cluster() as (cluster, nodes),
        _service(voices) as url,
        asyncio.Runner() as clients_runner,
        ThreadPoolExecutor(1) as clients_thread,  # Ray starts nodes in the main thread only
    ):
        client = httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS, limits=httpx.Limits(max_connections=None))
        clients, quiet, disturbed = Clients(client), Log(), Log()
        before = _undisturbed(clients, 10.0 if options.quick else 30.0, seconds / 3, quiet)
        rate = clients_thread.submit(clients_runner.run, before).result()
        under_load = clients_thread.submit(clients_runner.run, load(clients, rate, seconds, disturbed))
        _disturb(cluster, nodes, seconds, disturbed)
        under_load.result()
        clients_thread.submit(clients_runner.run, client.aclose()).result()
    rows = [_row("undisturbed", quiet), _row("disturbed", disturbed)]
    requests = disturbed.outcomes.total()
    all_right = disturbed.outcomes["right"] == requests > 0
    summary = {
        "requests": requests,
        "requests_per_s": round(requests / seconds, 3),
        "kills": disturbed.kills,
        "events": disturbed.events,
        "outcomes": dict(disturbed.outcomes),
        "all_right": all_right,
        "told_to_wait": disturbed.told_to_wait,
        "worst_seconds": round(max(disturbed.latencies), 3) if disturbed.latencies else None,
        "worst_seconds_undisturbed": round(max(quiet.latencies), 3) if quiet.latencies else None,
    }
    report("chaos", "A cluster whose parts die", table(COLUMNS, rows), summary, keep=not options.quick)
    return 0 if all_right else 1


async def _undisturbed(clients: Clients, rate_seconds: float, load_seconds: float, log: Log) -> float:
    """Learn all answers, and return the rate of the load, which comes for a while first."""
    await clients.learn()
    rate = SHARE * await clients.closed_loop_rate(rate_seconds)
    await load(clients, rate, load_seconds, log)
    return rate


async def load(clients: Clients, requests_per_second: float, seconds: float, log: Log) -> None:
    """Send requests at Poisson times whatever comes back, and wait for all answers."""
    rng, start, tasks = random.Random(1), time.perf_counter(), []
    for place in itertools.cycle(range(DIFFERENT)):
        if time.perf_counter() - start > seconds:
            break
        tasks.append(asyncio.create_task(clients.send(place, log)))
        await asyncio.sleep(rng.expovariate(requests_per_second))
    await asyncio.gather(*tasks)


def _disturb(cluster: Cluster, nodes: list[Any], seconds: float, log: Log) -> None:
    """Kill synthesizers, take a node away and bring another."""
    rng, start = random.Random(2), time.perf_counter()
    plan = [(moment, _kill) for moment in _every(KILL_SECONDS, seconds)]
    plan += [(seconds / 3, _remove_node), (2 * seconds / 3, _add_node)]
    for moment, act in sorted(plan, key=lambda one: one[0]):
        time.sleep(max(0.0, start + moment - time.perf_counter()))
        act(cluster, nodes, rng, log)


def _kill(_cluster: Cluster, _nodes: list[Any], rng: random.Random, log: Log) -> None:
    running = [held.pid for held in tree(os.getpid()) if re.match(r"ray::ServeReplica:\w+:Synthesizer", held.name)]
    if running:
        os.kill(rng.choice(running), signal.SIGKILL)
        log.kills += 1


def _remove_node(cluster: Cluster, nodes: list[Any], _rng: random.Random, log: Log) -> None:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    log.events.append("node taken away")


def _add_node(cluster: Cluster, nodes: list[Any], _rng: random.Random, log: Log) -> None:
    nodes.append(cluster.add_node(num_cpus=2, resources=VOICE, object_store_memory=100_000_000))
    log.events.append("node added")


def _every(step_seconds: float, until_seconds: float) -> list[float]:
    return [step_seconds * count for count in range(1, int(until_seconds / step_seconds) + 1)]


@contextlib.contextmanager
def _cluster() -> Any:
    """A head without a synthesizer, and nodes with one each."""
    head = {"num_cpus": 6, "resources": {"house": 1}, "include_dashboard": False, "object_store_memory": 200_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=2, resources=VOICE, object_store_memory=100_000_000) for _ in range(NODES)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield cluster, nodes
    finally:
        ray.shutdown()
        cluster.shutdown()


@contextlib.contextmanager
def _service(voices: str) -> Any:
    """The application as serve_config.yaml would deploy it, on this cluster."""
    port = free_port()
    at_head = {"ray_actor_options": {"num_cpus": 0.2, "resources": HOUSE}}
    deployments = [
        {"name": "Ingress", "num_replicas": 2, **at_head},
        {"name": "Composer", **at_head},
        {"name": "VoiceEncoder", **at_head},
        {"name": "Synthesizer", "num_replicas": NODES, "ray_actor_options": {"num_cpus": 1, "resources": VOICE}},
    ]
    # without a cache, or everything would be spoken only once
    args = {"model": "embedded", "device": "cpu", "voices": voices, "segment_cache": "off"}
    application = {"name": "voice", "import_path": "deployments.app:build", "args": args, "deployments": deployments}
    serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
    schema = ServeDeploySchema.model_validate({"applications": [application]})
    _get_global_client().deploy_apps(schema)
    try:
        _wait_until_running(NODES)
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()


def _wait_until_running(synthesizers: int, patience_seconds: float = 300.0) -> None:
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        application = serve.status().applications.get("voice")
        running = application is not None and application.status == "RUNNING"
        if running and application.deployments["Synthesizer"].replica_states.get("RUNNING", 0) == synthesizers:
            return
        time.sleep(0.5)
    raise SystemExit(f"not running: {application}")


def _row(name: str, log: Log) -> list[object]:
    counts = [log.outcomes.total(), log.outcomes["right"], log.told_to_wait]
    ranked = sorted(log.latencies)
    if not ranked:
        return [name, *counts, "", "", ""]
    p95 = ranked[min(len(ranked) - 1, int(0.95 * len(ranked)))]
    return [name, *counts, statistics.median(ranked), p95, ranked[-1]]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--quick", action="store_true", help="a minute of disturbance, and no results file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
