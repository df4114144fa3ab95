"""The simulated day: its fleet loses nothing, and what it measures still has the shape that it expects."""

from __future__ import annotations

import argparse
import random
import sys

import numpy as np
import pytest

from benchmarks.autoscale import Decoder, Fleet, _options, arrivals, measured_work, simulate
from deployments.autoscaling import SpeechSecondsPolicy

TEN_A_SECOND = Decoder(rows=10, step_ms=20.0, step_ms_per_row=0.0)  # each row speaks a second in a second


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    monkeypatch.setattr(sys, "argv", ["autoscale.py", "--start-seconds", "30", "--downscale-delay", "60"])
    return _options()


def test_a_replica_that_leaves_finishes_what_it_speaks() -> None:
    fleet = Fleet(TEN_A_SECOND, most=2)
    fleet.scale_to(2, ready_at=0)
    fleet.left[:, 0] = 1.5, 2.5
    fleet.scale_to(0, ready_at=0)
    spoken = [fleet.speak(now) for now in range(4)]
    assert spoken == [2.0, 1.5, 0.5, 0.0]
    assert not fleet.existing().any()


def test_who_is_not_up_yet_goes_first_and_then_who_has_least_to_do() -> None:
    fleet = Fleet(TEN_A_SECOND, most=3)
    fleet.scale_to(2, ready_at=0)
    fleet.scale_to(3, ready_at=90)
    fleet.left[0, :2] = fleet.left[1, :1] = 5.0
    fleet.scale_to(2, ready_at=0)
    assert list(fleet.draining) == [False, False, True]
    fleet.scale_to(1, ready_at=0)
    assert list(fleet.draining) == [False, True, True]


def test_a_slot_is_given_anew_as_soon_as_a_short_row_ends(options: argparse.Namespace) -> None:
    ten_times_faster = Decoder(rows=1, step_ms=2.0, step_ms_per_row=0.0)  # ten seconds of speech a second
    day = simulate(options, ten_times_faster, [6.0] * 300, fixed=1)  # more rows than seconds
    assert float(day.waits.max()) < 10


def test_every_request_of_a_day_with_a_rush_is_spoken(options: argparse.Namespace) -> None:
    load = [5.0] * 200 + [40.0] * 200 + [5.0] * 200  # one replica, six, one
    rng = random.Random(options.seed + 1)
    requests = sum(first for now, amount in enumerate(load) for _, first, _ in arrivals(rng, amount, now))
    day = simulate(options, TEN_A_SECOND, load, SpeechSecondsPolicy())
    assert len(day.waits) == requests
    assert day.most >= 6
    assert float(np.percentile(day.waits, 50)) < 30


def test_what_is_worked_out_for_many_gpus_rests_on_measured_work() -> None:
    work = measured_work(16_000)
    assert work.script_ms > 0
    assert work.compose_ms > 0
    assert work.speech_bytes_a_second == pytest.approx(64_000, rel=0.01)  # float32 at 16 kHz
    assert measured_work(44_100).speech_bytes_a_second == pytest.approx(176_400, rel=0.01)
    assert 1000 < work.segment_bytes < 10_000
