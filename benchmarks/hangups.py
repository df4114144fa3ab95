"""Clients that hang up at random moments: python benchmarks/hangups.py [--quick] [--clients 200]

Each asks for a text that takes a while, whole or streamed, and leaves at a moment of its own: while it sends, while it
waits, in mid-stream. First one after the other, so that for each it can be told how long its rows stay in the decoder;
then all at once. Afterwards nothing may be left of them: rows, slots, memory, threads, files; and the server speaks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import Holdings, tree
from benchmarks.reporting import report, table
from benchmarks.running import Service, service

LINE = "This is one more line of the text.\n"
LINES = 12
LONGEST_STAY_SECONDS = 1.5
GONE_SECONDS = 0.2  # within which the rows of a client who has left are to be gone
LOOK_SECONDS = 0.005
PATIENCE_SECONDS = 20.0
GROWTH_MB = 40.0  # of all processes together; the first clients pay for what is made once
GROWTH_FILES, GROWTH_THREADS = 10, 10


async def main() -> int:
    options = _options()
    rng = random.Random(options.seed)
    with service(options) as target:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=target.url, timeout=60, limits=limits) as watcher:
            for _ in range(5):
                await hang_up(target, rng)  # what is made once is made
            await until_empty(watcher)
            before = service_holdings(target.pid)
            alone = []
            for number in range(options.clients):
                await hang_up(target, rng)
                alone.append(await until_empty(watcher))
                if number % 20 == 19:
                    print(f"{number + 1} left, the slowest rows stayed {max(alone):.3f} s", file=sys.stderr, flush=True)
            await asyncio.gather(*[hang_up(target, rng) for _ in range(options.clients)])
            together = await until_empty(watcher)
            await asyncio.sleep(2)
            after = service_holdings(target.pid)
            body = request_body("Hello there.", None)
            speaks = (await watcher.post("/v1/audio/speech", json=body)).status_code == 200
    grown = {name: after[name] - before[name] for name in after}
    summary = {
        "clients": options.clients,
        "gone_seconds_max": round(max(alone), 3),
        "gone_seconds_p50": round(sorted(alone)[len(alone) // 2], 3),
        "gone_in_time": sum(seconds <= GONE_SECONDS for seconds in alone),
        "gone_seconds_all_at_once": round(together, 3),
        "grown": {name: round(value, 1) for name, value in grown.items()},
        "still_speaks": speaks,
        "seed": options.seed,
    }
    rows = [[name, before[name], after[name]] for name in after]
    report("hangups", "Clients that hang up", table(["held", "before", "after"], rows), summary, keep=not options.quick)
    small = grown["MB"] < GROWTH_MB and grown["files"] < GROWTH_FILES and grown["threads"] < GROWTH_THREADS
    return 0 if speaks and small and max(alone) <= GONE_SECONDS else 1


async def hang_up(target: Service, rng: random.Random) -> None:
    """Send a request and leave at some moment."""
    body = json.dumps(request_body(LINE * LINES, rng.choice([None, "audio", "sse"]))).encode()
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    whole = head.encode() + b"\r\n\r\n" + body
    stay_seconds = rng.uniform(0, LONGEST_STAY_SECONDS)
    reader, writer = await asyncio.open_connection(target.host, target.port)
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
    finally:
        if rng.random() < 0.5:
            writer.transport.abort()  # a reset, as of a process that was killed
        else:
            writer.close()


def request_body(text: str, stream_format: str | None) -> dict[str, Any]:
    """Ask for what no cache knows."""
    body = {"model": "m", "voice": "default", "input": text, "response_format": "pcm", "cache": False}
    return body if stream_format is None else body | {"stream_format": stream_format}


async def until_empty(watcher: httpx.AsyncClient) -> float:
    """Return after how many seconds no row is left, neither in the decoder nor on its way there."""
    begun = time.monotonic()
    while time.monotonic() < begun + PATIENCE_SECONDS:
        looked_at = time.monotonic()
        answer = await watcher.get("/status", headers={"Accept": "application/json"})
        status = answer.json()
        decoders = status.get("decoders", {"rows_active": 1, "rows_waiting": 0})
        rows = decoders["rows_active"] + decoders["rows_waiting"] + status["this_ingress"]["rows_in_flight"]
        if not rows:
            return looked_at - begun  # they may have been gone before the answer came
        await asyncio.sleep(LOOK_SECONDS)
    return PATIENCE_SECONDS


def service_holdings(pid: int) -> dict[str, float]:
    """Return what the service's processes hold together."""
    held: list[Holdings] = [one for one in tree(pid) if one.name.startswith(("ray::ServeReplica", "ray::Proxy"))]
    return {
        "MB": sum(one.memory_mb for one in held),
        "files": sum(one.files for one in held),
        "threads": sum(one.threads for one in held),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--port", type=int, default=0, help="of the server that is started; 0: any")
    parser.add_argument("--quick", action="store_true", help="a minute at most, and no results file")
    options = parser.parse_args()
    options.clients = options.clients or (20 if options.quick else 200)
    return options


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
