"""Bad inputs against a running server: python benchmarks/fuzz.py [--quick] [--inputs 10000] [--port 0]

JSON that is none, fields of wrong types and sizes, odd Unicode, forms that end too early, headers that steer or lie,
heads that are no HTTP, bodies that are cut off or trickle. Every input is made from the seed and its number, so that a
finding can be repeated alone with --only NUMBER. What must hold: no answer of 5xx, no connection dropped without an
answer (where the input was whole HTTP within limits), memory flat, and afterwards the server speaks. Memory is judged
once it has filled, by the least that is held in the third quarter of the inputs and in the last: Python collects what
refers to itself only now and then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import tree
from benchmarks.reporting import report, table
from benchmarks.running import Service, service

AT_ONCE = 16
ANSWER_SECONDS = 60.0
UPLOAD_SECONDS = 2.0  # the server's limit here, so that bodies which trickle end soon
LARGEST_UPLOAD_BYTES = 300_000
MEMORY_SAMPLES = 40
FLAT_MB = 10.0  # of all processes together; of 10 000 inputs a quarter, so 4 KB for each

GOOD = {"model": "voice", "voice": "default", "input": "Hi.", "response_format": "wav"}
FIELDS = (
    *("model", "input", "voice", "response_format", "speed", "instructions", "stream_format", "seed", "temperature"),
    *("top_k", "top_p", "min_p", "language", "seconds", "segment", "inter_segment_silence", "n", "on_bad_segment"),
    *("seconds_tolerance", "best_of", "captions", "manifest", "cache", "priority", "timeout_seconds"),
    *("reference_audio", "reference_text", "tempo", "", "__proto__", "in\u0000put"),
)
ODD_TEXTS = (
    *(
        "",
        " ",
        "\u0000",
        "\ufeff",
        "\ud800",
        "\udfff\ud800",
        "\u202e",
        "\u200b" * 50,
        "a\u0301" * 40,
        "\U0001f600" * 30,
    ),
    *("世界", "ﷺ" * 20, "١٢٣", "\r\n\r\n", "<script>", "../../etc/passwd", "%00", "${jndi:x}", "' OR 1=1 --", "nan"),
    *("x" * 30_000, "A." * 9_000, "!" * 500, "9" * 400, "\\ud800", "\x1b[31m", "ß\u0308", "I" * 3000, "🏳️‍🌈"),
)
ODD_NUMBERS = (
    *(0, -1, 1, 2**31, 2**53, 2**63, 2**64, 10**400, -(10**400), 0.0, -0.0, 1e-320, 1e308, -1e308, 0.1, 1e-9),
)
ODD_JSON = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "01", "1.", ".5", "0x10", "'a'", "undefined", "[" * 5000)
PATHS = (
    *("/v1/audio/speech", "/v1/audio/speech/estimate", "/v1/audio/voices", "/v1/audio/voices/default", "/v1/models"),
    *("/v1/audio/voices/x/sample", "/healthz", "/readyz", "/status", "/", "/v1/audio/dub", "/v1/audio/speech/stream"),
    *(
        "/v1/audio/voices/%00",
        "/v1/audio/voices/..%2f..%2fetc",
        "//",
        "/" + "a" * 4000,
        "/%ff%fe",
        "/v1/audio/voices/é",
    ),
)
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "FOO")
HEADERS = (
    *(("Content-Type", "text/plain"), ("Content-Type", "application/json; charset=utf-16"), ("Content-Type", "")),
    *(("Content-Type", "multipart/form-data"), ("Content-Type", "multipart/form-data; boundary=" + "b" * 300)),
    *(("Content-Encoding", "gzip"), ("Expect", "100-continue"), ("Accept", "\xff\xfe"), ("Accept", "application/json")),
    *(("X-Request-ID", "é \t"), ("X-Request-ID", "x" * 5000), ("x-request-timeout-seconds", "0.0001")),
    *(("x-request-disconnect-disabled", "?1"), ("serve_multiplexed_model_id", "\xff"), ("x-session-id", "\xff\xfe")),
    *(("Authorization", "Bearer \xff"), ("Authorization", "Basic x"), ("traceparent", "00-zz"), ("Range", "bytes=5-1")),
    *(
        ("Host", ""),
        ("Host", "a" * 300),
        ("Transfer-Encoding", "identity"),
        ("Upgrade", "websocket"),
        ("Cookie", "\x01"),
    ),
)


@dataclass(frozen=True)
class Input:
    """What goes over one connection."""

    kind: str
    pieces: list[bytes]
    pause_seconds: float = 0.0  # after each piece
    hangs_up: bool = False  # before the answer
    may_be_dropped: bool = False  # what is no whole HTTP request within limits needs no answer


@dataclass
class Findings:
    """What came back."""

    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def input_number(number: int, seed: int) -> Input:
    """Make an input; the same number gives the same one."""
    rng = random.Random(seed * 1_000_003 + number)
    makers: list[tuple[int, Callable[[random.Random], Input]]] = [
        *((40, fields), (12, broken_json), (8, nested), (12, forms), (10, headers), (6, paths), (3, raw_heads)),
        *((4, cut_off), (1, trickle), (2, too_large), (2, websockets)),
    ]
    make = rng.choices([maker for _, maker in makers], [weight for weight, _ in makers])[0]
    return make(rng)


def fields(rng: random.Random) -> Input:
    """A request with some fields that are wrong, or just on the edge."""
    document: dict[str, Any] = dict(GOOD)
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(FIELDS)
        if rng.random() < 0.15:
            document.pop(name, None)
        else:
            document[name] = odd_value(rng)
    if rng.random() < 0.7 and isinstance(document.get("seconds"), int | float) and document["seconds"] > 20:
        document["n"] = 0  # not a long one by accident
    return json_post(rng, "fields", json.dumps(document, ensure_ascii=rng.random() < 0.8))


def broken_json(rng: random.Random) -> Input:
    text = json.dumps(GOOD)
    place = rng.randrange(len(text))
    match rng.randrange(4):
        case 0:
            text = text[:place]
        case 1:
            text = text[:place] + chr(rng.choice([0, 7, 34, 92, 123, 125, 0xFEFF, 0x1F600])) + text[place:]
        case 2:
            text = text.replace('"Hi."', rng.choice(ODD_JSON))
        case _:
            text = text.replace(
                '"wav"', f'"wav", "input": "twice", "{rng.choice(FIELDS[:-1])}": {rng.choice(ODD_JSON)}'
            )
    body = text.encode(rng.choice(["utf-8", "utf-16", "utf-32", "utf-8-sig"]), errors="surrogatepass")
    if rng.random() < 0.2:
        body = bytes(rng.randrange(256) for _ in range(rng.randrange(200)))
    return post("broken JSON", "/v1/audio/speech", body)


def nested(rng: random.Random) -> Input:
    value: Any = rng.choice([1, "x", None, True])
    for _ in range(rng.choice([1, 3, 50, 900])):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return json_post(rng, "nested", json.dumps(GOOD | {rng.choice(FIELDS): value}))


def forms(rng: random.Random) -> Input:
    """A multipart body with something wrong in it."""
    boundary = rng.choice(["b", "x" * 70, "--", "é"])
    parts = []
    for _ in range(rng.choice([0, 1, 3, 5, 40])):
        name = rng.choice((*FIELDS, "audio_sample", "name", "transcript", "consent"))
        file = f'; filename="{rng.choice(ODD_TEXTS[:12])[:20]}"' if rng.random() < 0.4 else ""
        content = rng.choice([odd_text(rng), json.dumps(odd_value(rng)), "RIFF" + "\x00" * rng.randrange(2000)])[:5000]
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n{content}\r\n')
    body = ("".join(parts) + f"--{boundary}--\r\n").encode(errors="surrogatepass")
    if rng.random() < 0.4:
        body = body[: rng.randrange(len(body) + 1)]
    path = rng.choice(["/v1/audio/speech", "/v1/audio/voices", "/v1/audio/dub"])
    return post("form", path, body, ("Content-Type", f"multipart/form-data; boundary={boundary}"))


def headers(rng: random.Random) -> Input:
    chosen = [rng.choice(HEADERS) for _ in range(rng.randint(1, 4))]
    body = json.dumps(GOOD | {"n": rng.choice([0, 0, 0, 1])}).encode()
    encoding = any(name in ("Transfer-Encoding", "Upgrade", "Host", "Cookie", "Expect") for name, _ in chosen)
    return post("headers", "/v1/audio/speech", body, *chosen, may_be_dropped=encoding)


def paths(rng: random.Random) -> Input:
    path = rng.choice(PATHS)
    if rng.random() < 0.3:
        path += "?" + "".join(chr(rng.randrange(33, 127)) for _ in range(rng.randrange(60)))
    head = f"{rng.choice(METHODS)} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    return Input("path", [head.encode()], may_be_dropped=not path.isascii() or " " in path)


def raw_heads(rng: random.Random) -> Input:
    """What is no HTTP, or two requests for one."""
    choices = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\nZZ\r\n",
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: h\r\n" + b"X-A: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"X-A: a\r\n" * 3000 + b"\r\n",
        bytes(rng.randrange(256) for _ in range(300)),
    ]
    return Input("no HTTP", [rng.choice(choices)], may_be_dropped=True, hangs_up=rng.random() < 0.5)


def cut_off(rng: random.Random) -> Input:
    """A body that is shorter than announced, by a client who leaves."""
    body = json.dumps(GOOD).encode()
    head = _head("/v1/audio/speech", len(body) + rng.randint(1, 50), ("Content-Type", "application/json"))
    return Input("cut off", [head + body], hangs_up=True, may_be_dropped=True)


def trickle(rng: random.Random) -> Input:
    """A body that comes a byte now and then, for longer than it may."""
    head = _head("/v1/audio/speech", 500, ("Content-Type", "application/json"))
    pause = UPLOAD_SECONDS / 8
    return Input("trickle", [head, *[b" "] * 24], pause_seconds=pause)


def too_large(rng: random.Random) -> Input:
    size = LARGEST_UPLOAD_BYTES + rng.choice([1, 1000, 400_000])
    body = json.dumps(GOOD | {"input": "x" * size}).encode()
    if rng.random() < 0.5:
        return post("too large", "/v1/audio/speech", body, may_be_dropped=True)
    head = _head("/v1/audio/speech", None, ("Content-Type", "application/json"), ("Transfer-Encoding", "chunked"))
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    return Input("too large", [head, *[chunk] * (size // 0x8000 + 2), b"0\r\n\r\n"], may_be_dropped=True)


def websockets(rng: random.Random) -> Input:
    key = rng.choice(["dGhlIHNhbXBsZSBub25jZQ==", "", "x"])
    head = (
        "GET /v1/audio/speech/stream HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: {rng.choice(['13', '8', 'x'])}\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    frame = bytes(rng.randrange(256) for _ in range(rng.randrange(40)))
    return Input("WebSocket", [head.encode(), frame], hangs_up=True, may_be_dropped=True)


def odd_text(rng: random.Random) -> str:
    if rng.random() < 0.7:
        return rng.choice(ODD_TEXTS)
    return "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(1, 30)))


def odd_value(rng: random.Random) -> Any:
    match rng.randrange(6):
        case 0 | 1:
            return odd_text(rng)
        case 2 | 3:
            return rng.choice(ODD_NUMBERS)
        case 4:
            return rng.choice([None, True, False])
        case _:
            return rng.choice([[], {}, [1, 2], {"id": odd_text(rng)}, {"id": {}}, [[]], ["x"] * 1000])


def json_post(rng: random.Random, kind: str, text: str) -> Input:
    path = rng.choice(["/v1/audio/speech"] * 4 + ["/v1/audio/speech/estimate", "/v1/audio/dub"])
    return post(kind, path, text.encode(errors="surrogatepass"))


def post(kind: str, path: str, body: bytes, *headers: tuple[str, str], may_be_dropped: bool = False) -> Input:
    if not any(name == "Content-Type" for name, _ in headers):
        headers = (("Content-Type", "application/json"), *headers)
    return Input(kind, [_head(path, len(body), *headers) + body], may_be_dropped=may_be_dropped)


def _head(path: str, length: int | None, *headers: tuple[str, str]) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Connection: close", *(f"{n}: {v}" for n, v in headers)]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", errors="replace")


async def send(target: Service, one: Input) -> str:
    """Return the status that came, "none" for a connection that was closed without, "late" for none in time."""
    reader, writer = await asyncio.open_connection(target.host, target.port)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            try:
                for piece in one.pieces:
                    writer.write(piece)
                    await writer.drain()
                    if one.pause_seconds:
                        answered = asyncio.ensure_future(final_status(reader))
                        done, _ = await asyncio.wait({answered}, timeout=one.pause_seconds)
                        if done:
                            return answered.result()
                        answered.cancel()
                        await asyncio.wait({answered})
            except ConnectionError:
                pass  # it may have answered all the same
            if one.hangs_up:
                return "left"
            return await final_status(reader)
    except TimeoutError:
        return "late"
    except ConnectionError:
        return "none"
    finally:
        writer.transport.abort()


async def final_status(reader: asyncio.StreamReader) -> str:
    """Return the status of the answer itself: heads of 1xx only come before it, but for that of another protocol."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as end:
            head = end.partial
        status = head[9:12].decode(errors="replace") if head.startswith(b"HTTP/1.") else "none"
        if not status.startswith("1") or status == "101":
            return status


async def attack(target: Service, options: argparse.Namespace) -> tuple[Findings, list[float]]:
    """Send everything, so many at once; return what came back, and the memory of all processes on the way, in MB."""
    findings = Findings()
    memory: list[float] = []
    numbers = iter(range(options.inputs) if options.only is None else [options.only])
    sent = 0

    async def sender() -> None:
        nonlocal sent
        for number in numbers:
            one = input_number(number, options.seed)
            status = await send(target, one)
            findings.statuses[status] += 1
            findings.kinds[one.kind] += 1
            unanswered = status in ("none", "late") and not one.may_be_dropped
            if status.startswith("5") or status == "late" or unanswered:
                findings.wrong.append(f"{number}: {one.kind}: {status}")
                print(f"input {number} ({one.kind}): {status}", file=sys.stderr, flush=True)
            sent += 1
            if sent % max(1, options.inputs // MEMORY_SAMPLES) == 0:
                memory.append(sum(memory_mb(target.process.pid).values()))
                print(f"{sent} sent, {memory[-1]:.0f} MB", file=sys.stderr, flush=True)

    await asyncio.gather(*[sender() for _ in range(AT_ONCE)])
    return findings, memory


def memory_mb(pid: int) -> dict[str, float]:
    """Return the memory of the service's processes: its proxy and its replicas."""
    return {
        held.name: held.memory_mb for held in tree(pid) if held.name.startswith(("ray::ServeReplica", "ray::Proxy"))
    }


def growth_mb(memory: list[float]) -> float:
    """Return how much more the least of the last quarter is than the least of the quarter before."""
    quarter = len(memory) // 4
    return min(memory[-quarter:]) - min(memory[-2 * quarter : -quarter]) if quarter else 0.0


async def still_speaks(target: Service) -> bool:
    return await send(target, post("good", "/v1/audio/speech", json.dumps(GOOD).encode())) == "200"


def main() -> int:
    options = _options()
    limits = ("--longest-upload-seconds", str(UPLOAD_SECONDS), "--largest-upload-bytes", str(LARGEST_UPLOAD_BYTES))
    body = ("--largest-body-bytes", str(LARGEST_UPLOAD_BYTES), "--longest-speech-seconds", "60")
    cache = ("--segment-cache", "off")  # what it takes is bounded, and would look like a leak until it is full
    with service(*limits, *body, *cache, port=options.port) as target:
        begun = time.monotonic()
        findings, memory = asyncio.run(attack(target, options))
        seconds = time.monotonic() - begun
        time.sleep(UPLOAD_SECONDS)
        speaks = asyncio.run(still_speaks(target))
        held = memory_mb(target.process.pid)
    grown_mb = growth_mb(memory)
    flat = grown_mb < FLAT_MB
    few = options.quick or options.only is not None  # to fill the memory
    summary = {
        "inputs": sum(findings.kinds.values()),
        "seconds": round(seconds, 1),
        "statuses": dict(sorted(findings.statuses.items())),
        "wrong": len(findings.wrong),
        "memory_grown_mb": round(grown_mb, 1),
        "memory_grown_mb_in_all": round(memory[-1] - memory[0], 1) if memory else 0.0,
        "memory_flat": flat,
        "still_speaks": speaks,
        "seed": options.seed,
    }
    rows = [[kind, count] for kind, count in findings.kinds.most_common()]
    text = table(["input", "sent"], rows) + "\n" + table(["status", "answers"], sorted(findings.statuses.items()))
    text += "\n" + table(["process", "MB after"], sorted(held.items()))
    text += "".join(f"\n- {line}" for line in findings.wrong[:50]) + "\n" if findings.wrong else ""
    report("fuzz", "Bad inputs", text, summary, keep=not options.quick and options.only is None)
    return 0 if speaks and not findings.wrong and (flat or few) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=None)
    parser.add_argument("--only", type=int, help="the number of one input, to repeat it")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--port", type=int, default=0, help="of the server that is started; 0: any")
    parser.add_argument("--quick", action="store_true", help="a minute at most, and no results file")
    options = parser.parse_args()
    options.inputs = options.inputs or (500 if options.quick else 10_000)
    return options


if __name__ == "__main__":
    sys.exit(main())
