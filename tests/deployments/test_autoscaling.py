"""How many replicas the policy asks for, by numbers that can be checked in the head."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from deployments import autoscaling
from deployments.autoscaling import SpeechSecondsPolicy

# A replica speaks 10 s a second when full: busy above 5, and one goes where those that stay are left with 4 at most.
POLICY = SpeechSecondsPolicy(busy_share=0.5, idle_share=0.4, catch_up_seconds=20)
FULL = 10.0


@dataclass
class Now:
    """What Serve's controller tells the policy."""

    rates: Sequence[float | None] = ()  # one for each running replica, None: it told nothing
    waiting_seconds: float = 0.0
    speaking_seconds: float = 0.0
    segments: float = 0.0
    capacities: Sequence[float] | None = None
    target_num_replicas: int = 0
    total_num_requests: float = 1.0
    total_queued_requests: float | None = 0.0
    config: AutoscalingConfig = field(default_factory=lambda: AutoscalingConfig(target_ongoing_requests=16))

    def __post_init__(self) -> None:
        self.target_num_replicas = self.target_num_replicas or len(self.rates)

    @property
    def current_num_replicas(self) -> int:
        return len(self.rates)

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None:
        told = {f"replica {number}": rate for number, rate in enumerate(self.rates) if rate is not None}
        if not told:
            return {}
        first = next(iter(told))
        capacities = [FULL] * len(told) if self.capacities is None else self.capacities
        return {
            autoscaling.RATE: told,
            autoscaling.WAITING: {first: self.waiting_seconds},
            autoscaling.SPEAKING: {first: self.speaking_seconds},
            autoscaling.SEGMENTS: {first: self.segments},
            autoscaling.CAPACITY: dict(zip(told, capacities, strict=False)),
        }


def replicas(now: Now) -> int:
    number, state = POLICY(now)
    assert state == {}
    return number


def test_another_replica_is_started_before_those_there_are_full() -> None:
    assert replicas(Now([4.9])) == 1
    assert replicas(Now([5.1])) == 2
    assert replicas(Now([5.1, 5.1])) == 3


def test_what_waits_counts_as_the_rate_that_clears_it_in_time() -> None:
    assert replicas(Now([10.0], waiting_seconds=200)) == 4  # 10 + 200 / 20 a second, 5 for each


def test_segments_that_wait_at_the_callers_are_as_long_as_those_at_the_replicas() -> None:
    now = Now([10.0], speaking_seconds=80, segments=10, total_queued_requests=25)  # 25 of 8 s
    assert replicas(now) == 4
    assert replicas(Now([10.0], total_queued_requests=40)) == 4  # 40 of 5 s, where there is nothing to compare with


def test_a_replica_goes_only_if_the_others_are_left_with_room() -> None:
    assert replicas(Now([2.1, 2.1])) == 2
    assert replicas(Now([1.9, 1.9])) == 1


def test_between_the_two_shares_nothing_changes() -> None:
    for rate in (4.1, 4.5, 4.9, 4.5, 4.1):
        assert replicas(Now([rate / 2, rate / 2])) == 2
        assert replicas(Now([rate])) == 1


def test_a_fleet_that_has_nothing_to_do_asks_for_nobody() -> None:
    assert replicas(Now([0.0, 0.0], total_num_requests=0)) == 0  # Serve applies min_replicas


def test_a_request_that_is_under_way_keeps_one_replica() -> None:
    assert replicas(Now([0.0, 0.0], total_num_requests=0.2)) == 1


def test_replicas_that_are_starting_are_waited_for() -> None:
    assert replicas(Now([], target_num_replicas=2)) == 2


def test_without_a_learned_capacity_segments_are_counted_as_serve_does() -> None:
    assert replicas(Now([None], total_num_requests=17)) == 2
    assert replicas(Now([0.0], capacities=[], total_num_requests=33)) == 3
    assert replicas(Now([None, None], total_num_requests=33)) == 3
    assert replicas(Now([None, None], total_num_requests=0)) == 0


def test_a_replica_that_has_not_reported_yet_counts_as_idle() -> None:
    assert replicas(Now([5.1, None], target_num_replicas=2)) == 2


def test_one_replica_that_stumbles_does_not_send_for_a_crowd() -> None:
    assert replicas(Now([4.0, 4.0, 4.0], capacities=[10, 10, 0.01])) == 3


def test_the_work_of_a_replica_that_died_is_still_asked_for() -> None:
    """Its segments are repeated on the others, so the load is the same on fewer."""
    assert replicas(Now([5.0, 5.0, 5.0, 5.0])) == 4
    assert replicas(Now([6.7, 6.7, 6.6], target_num_replicas=4)) == 4


def test_more_load_never_asks_for_fewer() -> None:
    asked = [replicas(Now([rate / 10] * 3)) for rate in range(0, 101, 5)]
    assert asked == sorted(asked)


@pytest.mark.parametrize("shares", [(0.5, 0.6), (1.2, 0.5), (0.5, 0.0)])
def test_shares_that_can_not_work_are_refused_at_deployment(shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="idle_share"):
        SpeechSecondsPolicy(*shares)
    with pytest.raises(ValueError, match="catch_up_seconds"):
        SpeechSecondsPolicy(catch_up_seconds=0)


def test_serve_can_pickle_the_policy_into_a_process_that_lacks_this_package(tmp_path: Path) -> None:
    policy = AutoscalingPolicy(policy_function="deployments.autoscaling:SpeechSecondsPolicy")
    serialised = policy.get_serialized_policy_def()
    assert serialised is not None
    program = (
        "import sys; from ray import cloudpickle; policy = cloudpickle.load(sys.stdin.buffer)(busy_share=0.5)\n"
        "assert 'deployments' not in sys.modules; print(policy.__class__.__name__)"
    )
    told = subprocess.run(
        [sys.executable, "-I", "-c", program], input=serialised, capture_output=True, cwd=tmp_path, check=True
    )
    assert told.stdout.decode().strip() == "SpeechSecondsPolicy"
