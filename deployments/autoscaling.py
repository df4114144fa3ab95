"""How many synthesizers there should be: a policy for Serve's autoscaler that counts seconds of speech.

Serve pickles this module by value into its controller, so it imports nothing but Python's own library.

Serve's built-in policy counts requests, but a segment of 20 s is twenty times the work of one of a second. Here the
load is what a fleet has to speak each second of the clock to keep up, and so is what one replica can do:

    load = seconds of speech spoken each second  +  seconds of speech that wait / CATCH_UP
    replicas = load / (what one replica speaks each second with all its slots taken * BUSY_SHARE)

What is being spoken counts as a rate and not as a stock: rows of long segments hold more seconds than rows of short
ones, and are no more work each second. What waits counts as the rate that would clear it in time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any, Protocol

# What a replica reports, each a number; deployments/workload.py fills them in.
WAITING = "speech_seconds_waiting"  # asked for by segments that have no slot in the decoder yet
SPEAKING = "speech_seconds_speaking"  # asked for by segments that have one
SEGMENTS = "segments_in_hand"  # both together
RATE = "speech_seconds_per_second"  # spoken since the last report
CAPACITY = "speech_seconds_per_second_when_full"  # learned; left out until there is something to learn from

# From here on another replica is started: the rest is room for what comes while it loads its model.
BUSY_SHARE = 0.65
# A replica goes only if those that stay are no busier than this: between the two shares nothing changes.
IDLE_SHARE = 0.5
# What waits is to be spoken within so long. Much less than a replica takes to start asks for some that come too late.
CATCH_UP_SECONDS = 30.0
TYPICAL_SEGMENT_SECONDS = 5.0  # for what waits at the callers, while no replica has anything to compare with

ReplicaNumbers = Mapping[Any, float]


class Limits(Protocol):
    """The part of Serve's AutoscalingConfig that is read here."""

    def get_target_ongoing_requests(self) -> float: ...


class Situation(Protocol):
    """The part of Serve's AutoscalingContext that is read here; sums and averages over `look_back_period_s`."""

    current_num_replicas: int  # that run
    target_num_replicas: int  # that were decided on last
    config: Limits

    @property
    def aggregated_metrics(self) -> Mapping[str, ReplicaNumbers] | None: ...

    @property
    def total_num_requests(self) -> float: ...  # at replicas and callers

    @property
    def total_queued_requests(self) -> float | None: ...  # at callers: no replica has room for them


class SpeechSecondsPolicy:
    """Called by Serve's controller ten times a second; it applies bounds and delays to what comes back."""

    def __init__(
        self,
        busy_share: float = BUSY_SHARE,
        idle_share: float = IDLE_SHARE,
        catch_up_seconds: float = CATCH_UP_SECONDS,
    ) -> None:
        if not 0 < idle_share <= busy_share <= 1:
            raise ValueError("idle_share and busy_share: must be 0 < idle_share <= busy_share <= 1")
        if catch_up_seconds <= 0:
            raise ValueError("catch_up_seconds: must be above 0")
        self._busy_share = busy_share
        self._idle_share = idle_share
        self._catch_up_seconds = catch_up_seconds

    def __call__(self, situation: Situation) -> tuple[int, dict[str, Any]]:
        """Return how many replicas there should be, and no state: Serve keeps that of its delays itself."""
        if not situation.current_num_replicas:
            return situation.target_num_replicas, {}  # they are starting, or nobody needs them
        load, capacity = self._load_and_capacity(situation)
        if not load:
            return (1 if situation.total_num_requests else 0), {}
        target = situation.target_num_replicas
        needed = math.ceil(load / (capacity * self._busy_share))
        enough = math.ceil(load / (capacity * self._idle_share))
        return max(1, needed if needed > target else min(target, enough)), {}

    def _load_and_capacity(self, situation: Situation) -> tuple[float, float]:
        """Return the load and what one replica can bear, in seconds of speech each second; else in requests."""
        reported = situation.aggregated_metrics or {}
        learned = [capacity for capacity in reported.get(CAPACITY, {}).values() if capacity > 0]
        if not learned:  # no replica has spoken yet, or Serve couldn't ask: as the built-in policy would
            requests = situation.total_num_requests
            return requests, situation.config.get_target_ongoing_requests() / self._busy_share
        waiting = _sum(reported, WAITING) + self._queued_seconds(situation, reported)
        load = _sum(reported, RATE) + waiting / self._catch_up_seconds
        return load, statistics.median(learned)  # of one that stumbles the others' word counts

    @staticmethod
    def _queued_seconds(situation: Situation, reported: Mapping[str, ReplicaNumbers]) -> float:
        """Return the seconds of speech that wait at the callers, whose segments are as long as those here."""
        queued = situation.total_queued_requests or 0.0
        segments = _sum(reported, SEGMENTS)
        in_hand = _sum(reported, WAITING) + _sum(reported, SPEAKING)
        return queued * (in_hand / segments if segments >= 1 else TYPICAL_SEGMENT_SECONDS)


def _sum(reported: Mapping[str, ReplicaNumbers], name: str) -> float:
    return sum(reported.get(name, {}).values())
