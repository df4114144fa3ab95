"""A day's load on a fleet that scales itself: python benchmarks/autoscale.py [--quick] [--step-ms 26.7] [--rows 16] ...

A simulation second by second, with the policy that Serve runs (deployments/autoscaling.py) and Serve's own delays. A
replica is a decoder with slots whose steps take a + b * rows; a row advances by one frame a step. Load is a day's wave
with a trough at night, and bursts. Compared are the fleet that scales by seconds of speech, one that scales by requests
as Serve does by itself, and two of fixed size. Nothing here ran on a GPU: what a step takes there is an assumption that
is printed with the result, and an option. `cpu_mid` takes its steps from what was measured (results/decode_cpu.md).

What a thousand GPUs would need besides is worked out from what is measured here and now: a request's planning, the
composer, the bytes on the way, and what Serve's controller computes in every turn of its loop; once for the assumed
steps, once for those that were timed on an H200, of a decoder alone.
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
import random
import re
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    # Serve's own parts, private ones too: the delays with a clock of our own, and what its controller computes.
    from ray.serve._private.autoscaling_state import DeploymentAutoscalingState
    from ray.serve._private.common import DeploymentID, TimeStampedValue
    from ray.serve.autoscaling_policy import _apply_delay_logic
    from ray.serve.config import AutoscalingConfig

from benchmarks.reporting import RESULTS, report, table
from deployments import autoscaling
from deployments.autoscaling import SpeechSecondsPolicy
from deployments.composer import compose
from deployments.script import write_script
from deployments.speech_request import SpeechRequest
from voice_core.speech import FinishReason, ModelFacts, Segment, Speech, VoicePrompt

FRAMES_PER_SECOND = 50.0
SEGMENTS_OF_A_REQUEST = (1, 5)
SEGMENT_SECONDS = (2.0, 8.0)  # of speech, evenly spread: sentences
SPOKEN_AT_ONCE_SECONDS = 1.0  # by a row at most, before slots that are free are given anew: half of a short segment
LOOK_BACK_SECONDS = 20  # as in serve_config.yaml
COLUMNS = [
    "decoder",
    "fleet",
    "replica-hours",
    "of the peak's",
    "most",
    "wait p50 s",
    "p95",
    "p99",
    "worst",
    "over 60 s",
]


@dataclass(frozen=True)
class Decoder:
    """What a replica can do."""

    rows: int  # slots
    step_ms: float  # without rows, or with any number of them where steps wait for the weights
    step_ms_per_row: float

    def speed(self, rows: np.ndarray) -> np.ndarray:
        """Return seconds of speech a second for each row, in decoders with so many."""
        return 1000 / (self.step_ms + self.step_ms_per_row * rows) / FRAMES_PER_SECOND

    @property
    def capacity(self) -> float:
        """Seconds of speech a second, with all slots taken."""
        return float(self.rows * self.speed(np.array(self.rows)))


# The full-size model with random weights: results/step_kernels_h200_f137c5b.md. Of the decoder alone: neither codec nor
# admissions nor the server around it are in there.
H200_DECODER = Decoder(rows=32, step_ms=2.76, step_ms_per_row=0.0)


@dataclass
class Fleet:
    """Replicas by their birth, each with what its rows have left to say."""

    decoder: Decoder
    most: int
    left: np.ndarray = field(init=False)  # [replica, slot] seconds of speech
    ready_at: np.ndarray = field(init=False)  # [replica] second of the day; infinite: there is none
    draining: np.ndarray = field(init=False)  # [replica]

    def __post_init__(self) -> None:
        self.left = np.zeros((self.most, self.decoder.rows))
        self.ready_at = np.full(self.most, np.inf)
        self.draining = np.zeros(self.most, bool)

    def existing(self) -> np.ndarray:
        return np.isfinite(self.ready_at)

    def running(self, now: float) -> np.ndarray:
        return (self.ready_at <= now) & ~self.draining

    def scale_to(self, replicas: int, ready_at: float) -> None:
        """Start those that lack, or send away those too many: first who isn't up yet, then who has least to do."""
        wanted = self.existing() & ~self.draining
        lacking = replicas - int(wanted.sum())
        if lacking > 0:
            free = np.flatnonzero(~self.existing())[:lacking]
            self.ready_at[free] = ready_at
        elif lacking < 0:
            order = np.lexsort(((self.left > 0).sum(1), -self.ready_at))
            leaving = [replica for replica in order if wanted[replica]][:-lacking]
            self.draining[leaving] = True

    def speak(self, now: float, seconds: float = 1.0) -> float:
        """Let so much time pass; return the seconds of speech spoken in it."""
        active = self.left > 0
        said = np.minimum(self.left, seconds * self.decoder.speed(active.sum(1))[:, None] * active)
        self.left -= said
        gone = self.draining & ~(self.left > 0).any(1)
        self.ready_at[gone], self.draining[gone] = np.inf, False
        return float(said.sum())


@dataclass
class Situation:
    """What Serve's controller would tell the policy."""

    current_num_replicas: int
    target_num_replicas: int
    config: AutoscalingConfig
    aggregated_metrics: dict[str, dict[int, float]]
    total_num_requests: float
    total_queued_requests: float


@dataclass(frozen=True)
class Day:
    """What a fleet made of a day."""

    replica_hours: float
    most: int
    by_hour: list[float]  # replicas on average
    waits: np.ndarray  # seconds, of every request's first segment

    def row(self, decoder: str, fleet: str, peak_hours: float) -> list[object]:
        waits = [float(np.percentile(self.waits, percent)) for percent in (50, 95, 99, 100)]
        late = f"{float((self.waits > 60).mean()):.2%}"
        return [decoder, fleet, self.replica_hours, self.replica_hours / peak_hours, self.most, *waits, late]

    def summary(self, peak_hours: float) -> dict[str, Any]:
        p50, p95, p99 = (round(float(np.percentile(self.waits, percent)), 2) for percent in (50, 95, 99))
        return {
            "replica_hours": round(self.replica_hours, 1),
            "of_peak_fleet": round(self.replica_hours / peak_hours, 3),
            "most_replicas": self.most,
            "wait_p50_s": p50,
            "wait_p95_s": p95,
            "wait_p99_s": p99,
            "wait_over_60_s": round(float((self.waits > 60).mean()), 5),
        }


Policy = Callable[[Situation], tuple[int, dict[str, Any]]]


def main() -> None:
    options = _options()
    of_cpu, measured_on = measured_decoder(options.rows)
    decoders = {"gpu_assumed": Decoder(options.rows, options.step_ms, options.step_ms_per_row), "cpu_mid": of_cpu}
    rows: list[list[object]] = []
    summary: dict[str, Any] = {"assumed": vars(options).copy()}
    hours_table: list[list[object]] = []
    for name, decoder in decoders.items():
        load = list(offered_load(options, decoder))
        mean, peak = float(np.mean(load)), float(np.sort(load)[-len(load) // 24 :].mean())
        share = autoscaling.BUSY_SHARE
        sizes = {
            which: math.ceil(amount / decoder.capacity / share) for which, amount in (("peak", peak), ("mean", mean))
        }
        days = {
            "seconds of speech": simulate(options, decoder, load, SpeechSecondsPolicy()),
            "requests (built in)": simulate(options, decoder, load, builtin_policy),
            f"fixed for the peak hour ({sizes['peak']})": simulate(options, decoder, load, fixed=sizes["peak"]),
            f"fixed for the mean ({sizes['mean']})": simulate(options, decoder, load, fixed=sizes["mean"]),
        }
        peak_hours = sizes["peak"] * len(load) / 3600
        rows += [day.row(name, fleet, peak_hours) for fleet, day in days.items()]
        keys = ("speech_seconds", "builtin", "fixed_peak", "fixed_mean")
        summary[name] = {key: day.summary(peak_hours) for key, day in zip(keys, days.values(), strict=True)}
        summary[name] |= {"capacity_s_per_s": round(decoder.capacity, 2), "mean_load": round(mean, 1)}
        summary[name] |= {"step_ms": round(decoder.step_ms, 3), "step_ms_per_row": round(decoder.step_ms_per_row, 3)}
        by_hour = days["seconds of speech"].by_hour
        hours_table.append([name, *[f"{replicas:.1f}" for replicas in by_hour]])
    summary["cpu_mid"]["measured_on"] = measured_on
    needs, summary["thousand_gpus"] = around_gpus(decoders["gpu_assumed"], options)
    assumed = ", ".join(f"{name} {value}" for name, value in summary["assumed"].items())
    body = "\n".join(
        [
            table(COLUMNS, rows),
            "`wait` is that of a request's first segment for a slot, in seconds. `gpu_assumed` is no measurement: it",
            "takes the 37.5 steps/s that the project that this one began from reports for 4 rows, and lets them hold",
            f"for more. `cpu_mid` takes {of_cpu.step_ms:.2f} ms a step and {of_cpu.step_ms_per_row:.3f} ms more",
            f"for each row, fitted to what [decode_cpu.md](decode_cpu.md) measured on {measured_on}. Assumed:",
            f"{assumed}.\n",
            "Replicas on average in each hour of the day, scaled by seconds of speech:\n",
            table(["decoder", *map(str, range(len(hours_table[0]) - 1))], hours_table),
            f"What {options.gpus} GPUs' worth of traffic would need, {autoscaling.BUSY_SHARE:.0%} busy: with the",
            f"assumed steps, and with {H200_DECODER.step_ms} ms, which {H200_DECODER.rows} rows took on an H200. That",
            "is the decoder's time alone, so it is the most that could come of such GPUs:\n",
            table(["what", "steps assumed", "H200, decoder alone", "from"], needs),
        ]
    )
    report("autoscale", "A day's load on a fleet that scales itself", body, summary, keep=not options.quick)


def measured_decoder(rows: int) -> tuple[Decoder, str]:
    """Fit the steps of the mid size on one CPU thread, as benchmarks/decode.py measured them; tell on which day."""
    text = (RESULTS / "decode_cpu.md").read_text(encoding="utf-8")
    measured = json.loads(text.split("```json")[1].split("```")[0])["mid"]
    batches = {int(batch): figures["step_ms"] for batch, figures in measured.items() if int(batch) <= rows}
    slope, start = np.polyfit(list(batches), list(batches.values()), 1)
    return Decoder(rows, float(start), float(slope)), re.findall(r"(?m)^\d{4}-\d\d-\d\d", text)[0]


def offered_load(options: argparse.Namespace, decoder: Decoder) -> Iterator[float]:
    """Yield the seconds of speech asked for in every second of the day: a wave from night to noon, and bursts."""
    rng = random.Random(options.seed)
    seconds = round(options.hours * 3600)
    peak = options.peak_replicas * decoder.capacity * autoscaling.BUSY_SHARE
    bursts = sorted((rng.randrange(seconds), rng.randrange(120, 600)) for _ in range(options.bursts))
    for second in range(seconds):
        wave = (1 - math.cos(2 * math.pi * second / seconds)) / 2
        load = peak * (options.trough + (1 - options.trough) * wave)
        if any(start <= second < start + length for start, length in bursts):
            load += options.burst_size * peak
        yield load


def builtin_policy(situation: Situation) -> tuple[int, dict[str, Any]]:
    """As ray.serve's replica_queue_length_autoscaling_policy: so many requests for each replica."""
    return math.ceil(situation.total_num_requests / situation.config.get_target_ongoing_requests()), {}


def simulate(
    options: argparse.Namespace, decoder: Decoder, load: list[float], policy: Policy | None = None, *, fixed: int = 0
) -> Day:
    """Let a fleet meet the load, the same requests each time."""
    rng = random.Random(options.seed + 1)
    fleet = Fleet(decoder, most=max(fixed, options.max_replicas) + 8)  # some more, for those that drain
    target = fixed or 1
    fleet.scale_to(target, ready_at=0)
    config = AutoscalingConfig(
        min_replicas=1,
        max_replicas=options.max_replicas,
        upscale_delay_s=options.upscale_delay,
        downscale_delay_s=options.downscale_delay,
        target_ongoing_requests=0.6 * decoder.rows,
    )
    state: dict[str, Any] = {}
    queue: deque[tuple[int, bool, float]] = deque()  # arrived at, first of its request, seconds of speech
    waits: list[int] = []
    history: deque[tuple[float, float, float, float]] = deque(maxlen=LOOK_BACK_SECONDS)
    existed: list[int] = []
    parts = math.ceil(float(decoder.speed(np.array(1))) / SPOKEN_AT_ONCE_SECONDS)  # of a second
    now = 0
    while now < len(load) or queue:
        if now < len(load):
            queue.extend(arrivals(rng, load[now], now))
        running = np.flatnonzero(fleet.running(now))
        spoken = 0.0
        for _ in range(parts):
            free = decoder.rows - (fleet.left[running] > 0).sum(1)
            while queue and len(running) and free.max() > 0:
                arrived, first, seconds = queue.popleft()
                place = int(free.argmax())
                slots = fleet.left[running[place]]
                slots[int((slots <= 0).argmax())] = seconds
                free[place] -= 1
                if first:
                    waits.append(now - arrived)
            spoken += fleet.speak(now, 1 / parts)
        rows = int((fleet.left > 0).sum())
        existed.append(int(fleet.existing().sum()))
        if policy is not None:
            history.append((spoken, float(fleet.left.sum()), rows, len(queue)))
            situation = averaged(history, fleet, decoder, config, len(running), target)
            wanted, _ = policy(situation)
            wanted = min(options.max_replicas, max(1, wanted))
            new_target, state = _apply_delay_logic(wanted, target, config, state, _now=float(now))
            if new_target != target:
                fleet.scale_to(new_target, ready_at=now + options.start_seconds)
                target = new_target
        now += 1
    hours = np.array_split(np.array(existed[: len(load)], float), 24)
    return Day(sum(existed) / 3600, max(existed), [float(hour.mean()) for hour in hours], np.array(waits))


def arrivals(rng: random.Random, load: float, now: int) -> Iterator[tuple[int, bool, float]]:
    """Yield the segments of the requests that come in a second: as many as there are in a Poisson process."""
    mean_request = sum(SEGMENTS_OF_A_REQUEST) / 2 * sum(SEGMENT_SECONDS) / 2
    elapsed = rng.expovariate(load / mean_request)
    while elapsed < 1:
        for segment in range(rng.randint(*SEGMENTS_OF_A_REQUEST)):
            yield now, segment == 0, rng.uniform(*SEGMENT_SECONDS)
        elapsed += rng.expovariate(load / mean_request)


def averaged(
    history: deque[tuple[float, float, float, float]],
    fleet: Fleet,
    decoder: Decoder,
    config: AutoscalingConfig,
    running: int,
    target: int,
) -> Situation:
    """Return what Serve would have gathered: means over the look-back period; the capacity is known."""
    spoken, speaking, rows, queued = (float(np.mean(column)) for column in zip(*history, strict=True))
    metrics = {
        autoscaling.RATE: {0: spoken},
        autoscaling.SPEAKING: {0: speaking},
        autoscaling.SEGMENTS: {0: rows},
        autoscaling.WAITING: {0: 0.0},
        autoscaling.CAPACITY: {0: decoder.capacity},
    }
    return Situation(running, target, config, metrics, rows + queued, queued)


def around_gpus(assumed: Decoder, options: argparse.Namespace) -> tuple[list[list[object]], dict[str, Any]]:
    """Return what stands around GPUs of assumed and of measured steps: a table's rows, and the same for the summary."""
    work = measured_work(options.sample_rate)
    controllers_ms = {gpus: controller_ms(gpus) for gpus in (options.gpus // 10, options.gpus)}
    decoders = {"gpu_assumed": assumed, "h200_decoder_alone": H200_DECODER}
    needs = {name: thousand_gpus(decoder, work, controllers_ms, options) for name, decoder in decoders.items()}
    summary = {name: {what: value for what, value, _ in each} for name, each in needs.items()}
    sources = {what: source for each in needs.values() for what, _, source in each}
    rows = [[what, *(values[what] for values in summary.values()), source] for what, source in sources.items()]
    return rows, summary


def thousand_gpus(
    decoder: Decoder, work: Work, controllers_ms: dict[int, float], options: argparse.Namespace
) -> list[tuple[str, float, str]]:
    """Work out what stands around so many GPUs; each line says what it rests on."""
    segments, segment_seconds = sum(SEGMENTS_OF_A_REQUEST) / 2, sum(SEGMENT_SECONDS) / 2
    speech = options.gpus * decoder.capacity * autoscaling.BUSY_SHARE
    requests = speech / (segments * segment_seconds)
    rows = speech / float(decoder.speed(np.array(decoder.rows)))  # Little's law, in seconds of speech
    gigabits = speech * work.speech_bytes_a_second * 8 / 1e9
    here = "measured here"
    each = f"{options.ingress_requests:g}/s each (option): 31 to 42 with empty deployments, Ray 2.60, two busy cores"
    needs = [
        ("speech, s/s", speech, "GPUs x what each speaks x busy share"),
        ("requests/s", requests, f"{segments:g} segments of {segment_seconds:g} s each (assumed)"),
        ("rows in decoders", rows, "rate x time that one takes"),
        (
            "ingress replicas",
            requests / options.ingress_requests,
            each,
        ),
        (
            "ingress cores, planning texts",
            requests * work.script_ms / 1e3,
            f"{work.script_ms:.2f} ms a request, {here}",
        ),
        ("composer cores", speech * work.compose_ms / 1e3, f"{work.compose_ms:.2f} ms for a second of mp3, {here}"),
        (
            "to decoders, MB/s",
            requests * segments * work.segment_bytes / 1e6,
            f"{work.segment_bytes} bytes a segment with a voice of 10 s, {here}",
        ),
        (
            "decoders to ingresses, Gbit/s",
            gigabits,
            f"{work.speech_bytes_a_second / 1e3:.0f} KB/s: float32 at {options.sample_rate / 1e3:g} kHz",
        ),
        ("ingresses to composers, Gbit/s", gigabits, "the same again"),
        (
            "to clients, Gbit/s",
            speech * work.file_bytes_a_second * 8 / 1e9,
            f"{work.file_bytes_a_second / 1e3:.1f} KB a second of mp3, {here}",
        ),
        (
            "object stores together, GB",
            2 * rows * segment_seconds * work.speech_bytes_a_second / 1e9,
            "two copies of what was said, until its request is whole",
        ),
        *(
            (f"controller, ms of each 100 ms, {gpus} replicas", milliseconds, f"Serve's own code, {here}")
            for gpus, milliseconds in controllers_ms.items()
        ),
    ]
    return [(name, round(value, 2), source) for name, value, source in needs]


@dataclass(frozen=True)
class Work:
    """What the parts around the decoders cost."""

    script_ms: float  # a request's planning
    compose_ms: float  # a second of mp3
    segment_bytes: int
    speech_bytes_a_second: float
    file_bytes_a_second: float  # mp3


def measured_work(sample_rate: int) -> Work:
    facts = ModelFacts(
        model_id="m",
        sample_rate=sample_rate,
        frames_per_second=FRAMES_PER_SECOND,
        longest_seconds=20.0,
        checkpoint_longest_seconds=20.0,
        device="cuda",
        max_rows=16,
        code_fingerprint="codec",
        model_fingerprint="model",
        load_seconds=1.0,
    )
    wanted = SpeechRequest(model="m", voice="default", input="It was not the answer that we had hoped for. " * 3)
    script_ms = best_ms(lambda: write_script(wanted, facts), 20)
    noise = np.random.default_rng(0).normal(0, 0.1, sample_rate * 5).astype(np.float32)
    speeches = [Speech(noise, sample_rate, 0, FinishReason.STOP, 5.0)] * 3
    composed = compose(speeches, "mp3", 0.05)
    compose_ms = best_ms(lambda: compose(speeches, "mp3", 0.05), 5) / composed.seconds
    prompt = VoicePrompt(tuple(range(1000, 1500)), "What is said in the recording of the voice.")
    segment = Segment("It was not the answer that we had hoped for.", 5.0, prompt=prompt, request="0" * 16)
    speech_bytes = len(pickle.dumps(speeches[0])) / 5
    file_bytes = len(composed.audio) / composed.seconds
    return Work(script_ms, compose_ms, len(pickle.dumps(segment)), speech_bytes, file_bytes)


def controller_ms(replicas: int) -> float:
    """Measure what Serve's controller does with the metrics that our replicas send, for one decision.

    Five metrics and the running requests of each replica, with a point every 4 s of the last 20.
    """
    state = DeploymentAutoscalingState(DeploymentID(name="Synthesizer", app_name="voice"))
    state._config = AutoscalingConfig(look_back_period_s=20)
    now = time.time()
    series = [[TimeStampedValue(now - 4 * age, 1.0) for age in range(5, 0, -1)] for _ in range(5)]
    policy = SpeechSecondsPolicy()
    names = (autoscaling.RATE, autoscaling.SPEAKING, autoscaling.SEGMENTS, autoscaling.WAITING, autoscaling.CAPACITY)

    def decide() -> None:
        metrics = {
            name: {replica: state._merge_and_aggregate_timeseries([points]) for replica in range(replicas)}
            for name, points in zip(names, series, strict=True)
        }
        policy(Situation(replicas, replicas, state._config, metrics, float(replicas), 0.0))

    return best_ms(decide, 3)


def best_ms(act: Callable[[], object], times: int) -> float:
    """Return the processor time of the cheapest of several goes: what else the machine does only adds."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        act()
        taken.append(time.process_time() - start)
    return min(taken) * 1000


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16, help="slots of a replica")
    parser.add_argument("--step-ms", type=float, default=26.7, help="of gpu_assumed: a step, whatever its rows")
    parser.add_argument("--step-ms-per-row", type=float, default=0.0, help="of gpu_assumed: more for each row")
    parser.add_argument("--start-seconds", type=float, default=90.0, help="from the decision to a replica that speaks")
    parser.add_argument("--hours", type=float, default=24.0, help="length of the day")
    parser.add_argument("--peak-replicas", type=float, default=8.0, help="that noon keeps busy")
    parser.add_argument("--trough", type=float, default=0.05, help="of the peak, at night")
    parser.add_argument("--bursts", type=int, default=12, help="a day, of 2 to 10 minutes each")
    parser.add_argument("--burst-size", type=float, default=0.5, help="of the peak, on top of the wave")
    parser.add_argument("--max-replicas", type=int, default=24)
    parser.add_argument("--upscale-delay", type=float, default=10.0)
    parser.add_argument("--downscale-delay", type=float, default=300.0)
    parser.add_argument("--gpus", type=int, default=1000)
    parser.add_argument("--sample-rate", type=int, default=44_100, help="Hz, of the codec that T5Gemma-TTS comes with")
    parser.add_argument("--ingress-requests", type=float, default=30.0, help="a second, that one ingress replica bears")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="half a minute at most, and no results file")
    options = parser.parse_args()
    if options.quick:
        options.hours, options.bursts = min(options.hours, 2.0), min(options.bursts, 2)
    return options


if __name__ == "__main__":
    main()
