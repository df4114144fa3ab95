"""Figures and their names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deployments import metrics
from deployments.metrics import METRICS, Playback, Tally


@pytest.fixture
def tally() -> Iterator[Tally]:
    kept = Tally()
    metrics.use(kept)
    yield kept
    metrics.use(Tally())


def test_counters_add_up_and_gauges_say_what_is(tally: Tally) -> None:
    metrics.count("voice_audio_seconds_total", 1.5)
    metrics.count("voice_audio_seconds_total", 2)
    metrics.count("voice_audio_seconds_total", 0)
    metrics.observe("voice_rows_active", 3)
    metrics.observe("voice_rows_active", 2)
    assert tally["voice_audio_seconds_total",] == 3.5
    assert tally["voice_rows_active",] == 2


def test_no_label_can_grow_without_bound() -> None:
    labels = {label for metric in METRICS.values() for label in metric.labels}
    assert labels == {"route", "status", "finish_reason", "reason"}


def test_names_end_in_what_they_are() -> None:
    for name, metric in METRICS.items():
        assert name.startswith("voice_")
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert bool(metric.boundaries) == (metric.kind == "histogram"), name


def test_a_listener_waits_for_what_comes_after_the_last_sound_has_played(tally: Tally) -> None:
    times = iter([0.0, 1.0, 4.5, 5.0])
    listener = Playback(lambda: next(times))
    listener.came(2.0)  # plays until 2
    listener.came(1.0)  # until 3
    listener.came(1.0)  # came at 4.5, plays until 5.5
    listener.came(1.0)
    listener.ended()
    assert listener.underrun_seconds == pytest.approx(1.5)
    assert tally.observed["voice_audio_underrun_seconds"] == 1
