"""What is counted, under which name; Ray's agent on every node gives it to Prometheus.

    metrics.count("voice_requests_total", route="/v1/audio/speech", status="200")

Labels are few and known beforehand: routes are templates, and neither voices nor keys nor texts are labels.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Kind = Literal["counter", "gauge", "histogram"]

SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 60.0, 120.0, 300.0, 1200.0)
RATIOS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
STALLS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Metric:
    """One family."""

    kind: Kind
    description: str
    labels: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()  # of a histogram


METRICS = {
    "voice_requests_total": Metric("counter", "Requests answered; status 499: the client left", ("route", "status")),
    "voice_audio_ttfp_seconds": Metric(
        "histogram", "From a request for speech to the first byte of its answer", ("route",), SECONDS
    ),
    "voice_audio_e2e_seconds": Metric("histogram", "From a request for speech to its last byte", ("route",), SECONDS),
    "voice_audio_rtf": Metric("histogram", "audio_e2e over the seconds of speech in it", ("route",), RATIOS),
    "voice_audio_seconds_total": Metric("counter", "Seconds of speech spoken or found in the cache"),
    "voice_audio_underrun_seconds": Metric(
        "histogram", "How long a player of a stream, begun with its first byte, would have stood still", (), STALLS
    ),
    "voice_segments_total": Metric("counter", "Samples of segments spoken, by how they ended", ("finish_reason",)),
    "voice_segment_retries_total": Metric("counter", "Segments asked for again, by why", ("reason",)),
    "voice_cache_hits_total": Metric("counter", "Segments found in the cache"),
    "voice_cache_misses_total": Metric("counter", "Segments looked for in the cache in vain"),
    "voice_rows_active": Metric("gauge", "Rows that are being spoken"),
    "voice_rows_waiting": Metric("gauge", "Rows at the decoder that wait for a slot"),
    "voice_decoder_steps_total": Metric("counter", "Steps of the decoder"),
    "voice_decoder_frames_total": Metric("counter", "Codes drawn: one for every row in every step"),
    "voice_row_occupancy": Metric("gauge", "Share of the slots that spoke in the steps of the last second"),
    "voice_seconds_in_flight": Metric("gauge", "Seconds of speech that were asked for and are not yet spoken"),
    "voice_capacity_seconds_per_second": Metric("gauge", "Seconds of speech that are spoken in a second, as learned"),
    "voice_rejected_total": Metric("counter", "Requests refused for want of room, right or time", ("reason",)),
}


class Meter(Protocol):
    """Where figures go."""

    def record(self, name: str, value: float, labels: dict[str, str]) -> None: ...


class Tally:
    """Keeps figures in the process; what a process has that nobody scrapes."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, tuple[str, ...]]] = Counter()  # counters' sums, gauges' last values
        self.observed: Counter[str] = Counter()  # how often a histogram was told something

    def record(self, name: str, value: float, labels: dict[str, str]) -> None:
        key = (name, tuple(labels.values()))
        match METRICS[name].kind:
            case "counter":
                self.counts[key] += value  # type: ignore[assignment]  # counters of seconds are no integers
            case "gauge":
                self.counts[key] = value  # type: ignore[assignment]
            case "histogram":
                self.observed[name] += 1

    def __getitem__(self, name_and_labels: tuple[str, ...]) -> float:
        """Return a figure: tally["voice_requests_total", "/healthz", "200"]."""
        name, *labels = name_and_labels
        return self.counts[(name, tuple(labels))]


class RayMeter:
    """Gives figures to the Ray node that the process runs on; Serve's labels (deployment, replica) come with them."""

    def __init__(self) -> None:
        from ray.serve.metrics import Counter as RayCounter
        from ray.serve.metrics import Gauge, Histogram

        self._told: dict[str, Callable[[float, dict[str, str]], None]] = {}
        for name, metric in METRICS.items():
            labels: Any = metric.labels  # typed in Ray as a tuple of one
            match metric.kind:
                case "counter":
                    self._told[name] = RayCounter(name, metric.description, labels).inc
                case "gauge":
                    self._told[name] = Gauge(name, metric.description, labels).set
                case "histogram":
                    boundaries = list(metric.boundaries)
                    self._told[name] = Histogram(name, metric.description, boundaries, labels).observe

    def record(self, name: str, value: float, labels: dict[str, str]) -> None:
        self._told[name](value, labels)


_meter: Meter = Tally()


def use(meter: Meter) -> None:
    """Let everything that this process counts go there from now on."""
    global _meter  # noqa: PLW0603  # one process is one replica
    _meter = meter


def count(name: str, value: float = 1, **labels: str) -> None:
    """Add to a counter; nothing is told of nothing, for Ray refuses to add 0."""
    if value > 0:
        _meter.record(name, value, labels)


def observe(name: str, value: float, **labels: str) -> None:
    """Tell a histogram one value, or a gauge its new one."""
    _meter.record(name, value, labels)


class Playback:
    """A listener who starts with the first sound of a stream: how long would they have waited in mid-play?"""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._plays_until: float | None = None
        self.underrun_seconds = 0.0

    def came(self, seconds: float) -> None:
        """Count sound that was sent now."""
        now = self._clock()
        if self._plays_until is not None and now > self._plays_until:
            self.underrun_seconds += now - self._plays_until
        self._plays_until = max(now, self._plays_until or now) + seconds

    def ended(self) -> None:
        """Tell what it came to, once all was sent."""
        observe("voice_audio_underrun_seconds", self.underrun_seconds)
