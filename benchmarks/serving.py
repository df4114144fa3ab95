"""The running server under load: python benchmarks/serving.py [--quick] [--heavier] [--model ...] [--device cpu]

One server, whose synthesizer has a switch (gathering.py), takes every load in one admission mode after the other, in
turns, so that whatever else the machine does meets all: `inflight` admits rows while others are spoken; `gather`
gathers and waits, as the reference's batch functions and a plain @serve.batch method do: rows that come wait until all
that are being spoken have ended, are then spoken together, and leave together. Where such a server could do one thing
or another, ours does what is faster: sound is made of a row while others of its pass still speak, answers leave when
the last of them has ended, not when its sound is made too, and the next pass begins at once. `early` is what the
setting in_flight: false does: rows wait likewise, but each leaves as soon as it has ended. There are as many slots as
the product takes on a CPU, where more of them speak no faster.

Requests are the same for all, and of two kinds: utterances, one sentence each, as the peers' benchmarks send them (a
line of Seed-TTS), and texts of one to five sentences. Loads are told in frames a second, so that they are as heavy
whatever the requests are:

1. closed loop: so many callers, each of whom sends the next text as soon as the answer has come. What counts are the
   answers of a time that begins when every caller has had one. A mode's saturation is what is spoken for the most
   callers, who leave no slot empty. (Not what is answered to them meanwhile: when every caller has just had an answer
   the house is full of rows that have just begun, and what is spoken of them is answered too late to count.)
2. rising: texts come at Poisson times, whatever comes back (an open loop), at rates up to more than the saturation of
   the server as it is delivered, admitting in flight.
3. compared: COMPARED_SHARE of that saturation, again at Poisson times: the same load, with in-flight admission and
   without it, in utterances and, because a text waits for the longest of its own rows wherever it is spoken, in texts.
   The ratios are taken here.
4. streams: the same load in texts, but sound is sent as it is spoken.

An open loop begins before the requests that count are due, and goes on as long after the last of them: a server under
load is never as empty as at the start of a benchmark, and the last rows of one must not have the house to themselves.

With `--heavier` the embedded voice's decoder is as heavy beside the rest of the server as a checkpoint's would be, see
heavier.py, and only the comparison is made, of longer turns, since answers take longer. HTTP and Ray are a good part of
what the embedded voice's requests cost a processor; this tells what admission does where it is the decoder that is
short.

All loads but the streams are of whole answers. For these the ingress hands over all segments of a request at once; of a
stream it holds all but the first back until that one is spoken, which suits rows that are admitted in flight and costs
those that are gathered a pass more. So whole answers compare admissions, and streams tell what a listener gets.

Figures are of all requests of a load, those of its turns put together, and carry the peers' names: audio_ttfp (seconds
to the first byte of sound, in open loops from the time when the request was due, even if it was sent later; of a whole
answer hardly less than to the last), audio_e2e (to the last), audio_rtf (audio_e2e over the sound's length),
audio_underrun (the share of requests whose sound, played from its first byte on, would have stopped before the last
came), and occupancy, the share of the decoder's slots that were speaking in its steps. A percentile is left out where
there are so few requests that not one lies beyond it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import serve

from benchmarks.gathering import EARLY, GATHER, INFLIGHT, switched
from benchmarks.heavier import heavier_voice
from benchmarks.reporting import report, table
from deployments import app
from deployments.app import build
from deployments.settings import Settings
from voice_core.decoding.engine import EngineCounters

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
RISING_TURN, CLOSED_TURN = 100, 200  # the first ones; requests and times unlike those that are compared
FIRST_REQUESTS = 1  # whole and streamed, that pay for what is loaded on first use
RISING_SHARES = (0.25, 0.5, 0.85, 1.0, 1.2)  # of saturation
COMPARED_SHARE = 0.7
APPLICATION = "voice"
METRICS = ("audio_ttfp", "audio_e2e", "audio_rtf")
PERCENTILES = (50, 95, 99)
COLUMNS = ["admission", "load", "requests", "requests/s", "audio s/s", "occupancy", "underrun", "metric"]
COLUMNS += ["mean", *(f"p{percent}" for percent in PERCENTILES)]
PCM_SAMPLE_BYTES = 2


@dataclass(frozen=True)
class Kind:
    """A kind of request."""

    name: str
    fewest_sentences: int
    most_sentences: int  # every number as often

    @property
    def mean_characters(self) -> float:
        sentences = (self.fewest_sentences + self.most_sentences) / 2
        return sentences * statistics.mean(map(len, SENTENCES)) + sentences - 1  # with a space between them


UTTERANCES = Kind("utterances", 1, 1)
TEXTS = Kind("texts", 1, 5)


@dataclass(frozen=True)
class Plan:
    """How much of everything is done."""

    modes: tuple[str, ...]
    single_requests: int  # in each mode, one by one
    callers: tuple[int, ...]
    closed_turns: int  # for each number of callers
    closed_seconds: float  # of each turn
    lead_seconds: float  # of an open loop, before its requests count, and after
    rising_turns: int  # at each rate
    rising_seconds: float  # of each turn, in which requests count
    compared_turns: int  # of each kind of request
    compared_seconds: float  # of each turn, in which requests count
    stream_turns: int
    stream_seconds: float  # of each turn, in which requests count


TWO_MODES = (INFLIGHT, GATHER)
WHOLE = Plan(
    modes=(INFLIGHT, GATHER, EARLY),
    single_requests=8,
    callers=(1, 2, 4, 8, 16, 32),
    closed_turns=1,
    closed_seconds=30,
    lead_seconds=5,
    rising_turns=1,
    rising_seconds=20,
    compared_turns=3,
    compared_seconds=30,
    stream_turns=2,
    stream_seconds=20,
)
QUICK = Plan(
    modes=TWO_MODES,
    single_requests=3,
    callers=(1, 32),
    closed_turns=1,
    closed_seconds=5,
    lead_seconds=1,
    rising_turns=1,
    rising_seconds=3,
    compared_turns=2,
    compared_seconds=6,
    stream_turns=1,
    stream_seconds=4,
)
HEAVIER = Plan(
    modes=TWO_MODES,
    single_requests=4,
    callers=(32,),
    closed_turns=2,
    closed_seconds=30,
    lead_seconds=20,
    rising_turns=0,
    rising_seconds=0,
    compared_turns=3,
    compared_seconds=90,
    stream_turns=0,
    stream_seconds=0,
)


@dataclass(frozen=True)
class Answer:
    """What one request took."""

    characters: int
    ttfp_seconds: float
    e2e_seconds: float
    audio_seconds: float
    ran_dry: bool  # played from its first byte on, it would have stopped before the last came


@dataclass(frozen=True)
class Stretch:
    """A stretch of load."""

    answers: list[Answer]
    wall_seconds: float  # that the answers came in
    slot_steps: int  # codes that the decoder could have drawn in its steps
    row_steps: int  # codes that it drew

    @property
    def frames_of_a_character(self) -> float:
        """Return how many a character takes, if no other requests were spoken meanwhile."""
        return self.row_steps / sum(answer.characters for answer in self.answers)

    @property
    def frames_per_second(self) -> float:
        """Return how many were spoken."""
        return self.row_steps / self.wall_seconds

    def summary(self) -> dict[str, Any]:
        """Return mean and percentiles of each metric, in seconds (audio_rtf: a ratio), and what holds for all."""
        ttfp = [answer.ttfp_seconds for answer in self.answers]
        e2e = [answer.e2e_seconds for answer in self.answers]
        rtf = [answer.e2e_seconds / answer.audio_seconds for answer in self.answers]
        spreads = dict(zip(METRICS, map(_spread, (ttfp, e2e, rtf)), strict=True))
        audio_seconds = sum(answer.audio_seconds for answer in self.answers)
        return spreads | {
            "audio_underrun": round(float(np.mean([answer.ran_dry for answer in self.answers])), 4),
            "requests": len(self.answers),
            "requests_per_s": round(len(self.answers) / self.wall_seconds, 4),
            "audio_s_per_s": round(audio_seconds / self.wall_seconds, 4),
            "occupancy": round(self.row_steps / max(1, self.slot_steps), 4),
        }


@dataclass(frozen=True)
class OpenLoop:
    """Requests that come whatever comes back."""

    kind: Kind
    requests_per_second: float
    lead_seconds: float  # before those that count, and after
    streamed: bool = False


class Service:
    """The server and a client of it."""

    def __init__(self, client: httpx.AsyncClient, max_rows: int) -> None:
        self._client = client
        self._max_rows = max_rows
        self._synthesizer = serve.get_deployment_handle("Synthesizer", APPLICATION)

    async def in_turns(
        self, modes: Sequence[str], turns: range, load: Callable[[int], Awaitable[Stretch]]
    ) -> list[tuple[str, Stretch]]:
        """Take a load in these turns, each in every mode; return what came, with the mode.

        Every other time the last mode goes first: a machine that slows favours nobody.
        """
        stretches: list[tuple[str, Stretch]] = []
        for turn in turns:
            for mode in modes[::-1] if turn % 2 else modes:
                await self._synthesizer.admit.remote(mode)
                stretches.append((mode, await load(turn)))
        return stretches

    async def single_requests(self, count: int, *, streamed: bool = False) -> Stretch:
        """Send requests one by one, each into an empty house."""
        before, start = await self._counters(), time.perf_counter()
        answers = [await self._speak(body) for body in itertools.islice(request_bodies(streamed=streamed), count)]
        return await self._stretch(answers, start, before)

    async def open_loop(self, load: OpenLoop, seconds: float, turn: int) -> Stretch:
        """Send requests at Poisson times whatever comes back; each turn has requests and times of its own.

        Those count that are due in so many seconds, after the load's lead.
        """
        rng = random.Random(turn)
        begin, end = load.lead_seconds, load.lead_seconds + seconds
        earlier = poisson_times(rng, load.requests_per_second, 0, begin)
        counting = poisson_times(rng, load.requests_per_second, begin, end, at_least=1)
        later = poisson_times(rng, load.requests_per_second, end, end + load.lead_seconds)
        bodies = request_bodies(turn, load.kind, streamed=load.streamed)
        start = time.perf_counter()

        async def speak_at(due: float) -> Answer:
            body = next(bodies)
            await asyncio.sleep(start + due - time.perf_counter())
            return await self._speak(body, start + due)

        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(speak_at(due)) for due in (*earlier, *counting, *later)]
            await asyncio.sleep(begin)
            before, counts_from = await self._counters(), time.perf_counter()
            counted = await asyncio.gather(*answers[len(earlier) : len(earlier) + len(counting)])
            return await self._stretch(counted, counts_from, before)

    async def closed_loop(self, callers: int, seconds: float, turn: int) -> Stretch:
        """Have so many callers send a request whenever their last one is answered; count the answers of so long."""
        bodies = request_bodies(turn)
        answered: list[Answer] = []
        first_answers, all_answered, over = itertools.count(1), asyncio.Event(), asyncio.Event()

        async def call() -> None:
            await self._speak(next(bodies))
            if next(first_answers) == callers:
                all_answered.set()
            while not over.is_set():
                answered.append(await self._speak(next(bodies)))

        async def measure() -> Stretch:
            await all_answered.wait()
            before, start = await self._counters(), time.perf_counter()
            answered.clear()
            await asyncio.sleep(seconds)
            stretch = await self._stretch(answered, start, before)
            if not stretch.answers:
                raise SystemExit(f"the machine is too busy: {callers} callers had no answer in {seconds} seconds")
            return stretch

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(call())
            measured = group.create_task(measure())
            measured.add_done_callback(lambda _: over.set())
        return measured.result()

    async def _stretch(self, answers: list[Answer], start: float, before: EngineCounters) -> Stretch:
        """Return what has come since the start and these counters, until those come that are asked for now."""
        after = await self._counters()
        wall_seconds = time.perf_counter() - start
        slot_steps = (after.steps - before.steps) * self._max_rows
        return Stretch([*answers], wall_seconds, slot_steps, after.row_steps - before.row_steps)

    async def _counters(self) -> EngineCounters:
        counters: EngineCounters = await self._synthesizer.counters.remote()
        return counters

    async def _speak(self, body: dict[str, Any], due: float | None = None) -> Answer:
        """Send a request; it is timed from when it was due, else from now on."""
        start = time.perf_counter() if due is None else due
        arrivals: list[tuple[float, int]] = []  # clock, bytes: pcm is sound from its first byte on
        async with self._client.stream("POST", "/v1/audio/speech", json=body) as answer:
            answer.raise_for_status()
            async for piece in answer.aiter_bytes():
                if piece:
                    arrivals.append((time.perf_counter(), len(piece)))
        bytes_per_second = PCM_SAMPLE_BYTES * int(answer.headers["x-sample-rate"])
        first, last = arrivals[0][0], arrivals[-1][0]
        audio_seconds = sum(count for _, count in arrivals) / bytes_per_second
        return Answer(
            len(body["input"]), first - start, last - start, audio_seconds, runs_dry(arrivals, bytes_per_second)
        )


def poisson_times(
    rng: random.Random, requests_per_second: float, begin: float, end: float, *, at_least: int = 0
) -> list[float]:
    """Return the times of a Poisson process, in order, but as many as its rate says.

    Given their number, its times are uniform.
    """
    count = max(at_least, round(requests_per_second * (end - begin)))
    return sorted(rng.uniform(begin, end) for _ in range(count))


def runs_dry(arrivals: Sequence[tuple[float, int]], bytes_per_second: int) -> bool:
    """Tell whether sound that is played from its first byte on is over before more of it comes."""
    plays_until, _ = arrivals[0]
    for clock, count in arrivals:
        if clock > plays_until:
            return True
        plays_until += count / bytes_per_second
    return False


async def main() -> None:
    options = _options()
    plan = QUICK if options.quick else HEAVIER if options.heavier else WHOLE
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    if options.device == "cuda" and not ray.cluster_resources().get("GPU"):
        raise SystemExit("--device cuda needs a GPU that Ray sees")
    with tempfile.TemporaryDirectory() as directory:
        if options.heavier:
            options.model = str(heavier_voice(Path(directory) / "heavier"))
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": options.port})
            summary, rows = await measured(await service(options), plan)
        finally:
            serve.shutdown()
            ray.shutdown()
    summary |= {"max_rows": options.max_rows}
    name, title = "serving", "The server under load"
    if options.heavier:
        name, title = "serving_heavier", f"{title}; a voice with a heavier decoder"
    report(name, title, table(COLUMNS, rows), summary, keep=not options.quick, device=options.device)


async def measured(server: Service, plan: Plan) -> tuple[dict[str, Any], list[list[object]]]:
    """Put every load on the server; return the summary and the rows of the table."""
    single = pooled_of(await unloaded(server, plan))
    summary: dict[str, Any] = {"unloaded_p50": single.summary()["audio_e2e"]["p50"]}
    rows: list[list[object]] = []

    summary["closed_loop"] = closed = {mode: {} for mode in TWO_MODES}
    saturation: dict[str, int] = {}  # frames a second
    for callers in plan.callers:
        loop = partial(server.closed_loop, callers, plan.closed_seconds)
        stretches = await server.in_turns(TWO_MODES, turns_from(CLOSED_TURN, plan.closed_turns), loop)
        for mode in TWO_MODES:
            stretch = pooled(mode, stretches)
            closed[mode][str(callers)] = stretch.summary()
            rows += table_rows(mode, f"closed loop, callers: {callers}", stretch.summary(), METRICS)
            saturation[mode] = round(stretch.frames_per_second)  # the last ones fill the house
    summary["saturation_frames_per_s"] = saturation

    def load(kind: Kind, share: float, *, streamed: bool = False) -> OpenLoop:
        """Return the load that is so much of what fills the house."""
        rate = share * saturation[INFLIGHT] / (single.frames_of_a_character * kind.mean_characters)
        return OpenLoop(kind, rate, plan.lead_seconds, streamed)

    summary["rising"] = rising = {mode: {} for mode in TWO_MODES}
    for share in RISING_SHARES if plan.rising_turns else ():
        loop = partial(server.open_loop, load(TEXTS, share), plan.rising_seconds)
        stretches = await server.in_turns(TWO_MODES, turns_from(RISING_TURN, plan.rising_turns), loop)
        for mode in TWO_MODES:
            rising[mode][str(share)] = pooled(mode, stretches).summary()
            rows += table_rows(mode, f"{share:.0%} of saturation", rising[mode][str(share)], ["audio_e2e"])

    for kind in (UTTERANCES, TEXTS):
        loop = partial(server.open_loop, load(kind, COMPARED_SHARE), plan.compared_seconds)
        compared = comparison(plan.modes, await server.in_turns(plan.modes, range(plan.compared_turns), loop))
        summary |= compared if kind is UTTERANCES else {kind.name: compared}
        for mode in plan.modes:
            rows += table_rows(mode, f"{COMPARED_SHARE:.0%} of saturation, {kind.name}", compared[mode], METRICS)

    if not plan.stream_turns:
        return summary, rows
    loop = partial(server.open_loop, load(TEXTS, COMPARED_SHARE, streamed=True), plan.stream_seconds)
    stretches = await server.in_turns(TWO_MODES, range(plan.stream_turns), loop)
    summary["streams"] = {mode: pooled(mode, stretches).summary() for mode in TWO_MODES}
    for mode, figures in summary["streams"].items():
        rows += table_rows(mode, f"{COMPARED_SHARE:.0%} of saturation, streams", figures, METRICS)
    return summary, rows


def comparison(modes: Sequence[str], stretches: Sequence[tuple[str, Stretch]]) -> dict[str, Any]:
    """Return the figures of each mode, and how much longer answers take in the others than in flight.

    Both as they are and over the sound's length: a short answer that waits for a long neighbour counts in the second as
    much as it waits in its own terms. (Orca, Yu et al., OSDI 2022, divides latencies by the tokens that came of them.)
    """
    compared: dict[str, Any] = {mode: pooled(mode, stretches).summary() for mode in modes}
    for mode, name in itertools.product(modes[1:], ("mean", "p95")):
        compared[f"{mode}_{name}_ratio"] = _ratio(compared[mode], compared[INFLIGHT], name)
        compared[f"{mode}_{name}_rtf_ratio"] = _ratio(compared[mode], compared[INFLIGHT], name, "audio_rtf")
        slower, faster = ([turn.summary() for whose, turn in stretches if whose == one] for one in (mode, INFLIGHT))
        compared[f"{mode}_{name}_ratio_by_turn"] = [_ratio(*turns, name) for turns in zip(slower, faster, strict=True)]
    return compared


def turns_from(first: int, count: int) -> range:
    """Return the numbers of turns."""
    return range(first, first + count)


async def unloaded(server: Service, plan: Plan) -> list[Stretch]:
    """Return single requests in every mode, in an empty house."""
    await server.single_requests(FIRST_REQUESTS)
    await server.single_requests(FIRST_REQUESTS, streamed=True)
    stretches = await server.in_turns(plan.modes, range(1), lambda _: server.single_requests(plan.single_requests))
    return [stretch for _, stretch in stretches]


async def service(options: argparse.Namespace) -> Service:
    """Deploy the application, its synthesizer with a switch."""
    app.Synthesizer = switched()
    settings = Settings(
        model=options.model,
        device=options.device,
        max_rows=options.max_rows,
        segment_cache="off",  # or everything would be spoken only once
    )
    await asyncio.to_thread(serve.run, build(settings), name=APPLICATION)
    base_url = f"http://127.0.0.1:{options.port}"
    client = httpx.AsyncClient(base_url=base_url, timeout=600, limits=httpx.Limits(max_connections=None))
    return Service(client, options.max_rows)


def pooled(mode: str, turns: Sequence[tuple[str, Stretch]]) -> Stretch:
    """Return the turns of one mode as one stretch."""
    return pooled_of([stretch for of_mode, stretch in turns if of_mode == mode])


def pooled_of(stretches: Sequence[Stretch]) -> Stretch:
    return Stretch(
        answers=[answer for stretch in stretches for answer in stretch.answers],
        wall_seconds=sum(stretch.wall_seconds for stretch in stretches),
        slot_steps=sum(stretch.slot_steps for stretch in stretches),
        row_steps=sum(stretch.row_steps for stretch in stretches),
    )


def request_bodies(turn: int = 0, kind: Kind = TEXTS, *, streamed: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the same endless requests every time, pcm.

    What the voice says badly is kept, after the retries that everybody gets: nobody's admission is to blame for it.
    """
    rng = random.Random(turn)
    stream = {"stream_format": "audio"} if streamed else {}
    usual = {"model": "m", "voice": "default", "response_format": "pcm", "on_bad_segment": "keep"} | stream
    while True:
        text = " ".join(rng.choices(SENTENCES, k=rng.randint(kind.fewest_sentences, kind.most_sentences)))
        yield usual | {"input": text, "seed": rng.randrange(2**31)}


def table_rows(mode: str, load: str, figures: dict[str, Any], metrics: Sequence[str]) -> list[list[object]]:
    names = ("requests", "requests_per_s", "audio_s_per_s", "occupancy", "audio_underrun")
    about = [figures[name] for name in names]
    spreads = [(metric, ["" if value is None else value for value in figures[metric].values()]) for metric in metrics]
    return [[mode, load, *about, metric, *spread] for metric, spread in spreads]


def _ratio(slower: dict[str, Any], faster: dict[str, Any], name: str, metric: str = "audio_e2e") -> float | None:
    """Return how many times as large a figure is; None where one of both has too few requests to tell."""
    larger, smaller = slower[metric][name], faster[metric][name]
    return None if larger is None or smaller is None else round(larger / smaller, 3)


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """Return mean and percentiles; None for a percentile that not even one of so few values lies beyond."""
    spread: dict[str, float | None] = {"mean": round(float(np.mean(values)), 4)}
    for percent in PERCENTILES:
        enough = len(values) * (100 - percent) >= 100
        spread[f"p{percent}"] = round(float(np.percentile(values, percent)), 4) if enough else None
    return spread


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", default="embedded")
    model.add_argument("--heavier", action="store_true", help="the embedded voice with a heavier decoder")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--max-rows", type=int, default=16)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--quick", action="store_true", help="less of all, in a few minutes; no results file")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
