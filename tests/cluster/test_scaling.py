"""Replicas follow the load on a cluster of three nodes, and nobody's request is lost on the way up or down."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import ray
from ray import serve
from ray.util import list_named_actors

from deployments import app
from deployments.settings import Settings
from tests.cluster.fake_synthesizer import FakeSynthesizer
from tests.cluster.load import Load, until

# Ray leaves sockets and subprocesses to the garbage collector.
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PATIENCE_SECONDS = 150  # of a machine that does other things too; alone it takes 20

AUTOSCALING: dict[str, Any] = {
    "min_replicas": 1,
    "max_replicas": 3,
    "policy": {"policy_function": "deployments.autoscaling:SpeechSecondsPolicy"},
    "target_ongoing_requests": 4,
    "upscale_delay_s": 1,
    "downscale_delay_s": 3,
    "look_back_period_s": 3,
    "metrics_interval_s": 0.5,
}


def deploy(monkeypatch: pytest.MonkeyPatch, name: str, **autoscaling: Any) -> None:
    options = AUTOSCALING | autoscaling
    with monkeypatch.context() as patch:
        patch.setattr(app, "Synthesizer", FakeSynthesizer.options(autoscaling_config=options))
        serve.run(app.build(Settings(device="cuda")), name=name, route_prefix=f"/{name}")


def running(name: str) -> int:
    states = serve.status().applications[name].deployments["Synthesizer"].replica_states
    return states.get("RUNNING", 0)


@pytest.fixture(scope="module")
def url(base_url: str) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        deploy(monkeypatch, "scaled")
    yield f"{base_url}/scaled"
    serve.delete("scaled")


def test_replicas_come_before_anybody_is_refused_and_go_without_anybody_cut_off(url: str) -> None:
    """A replica speaks 8 s a second. Twelve callers want 24 at once, a single one never more than 2."""
    with Load(url, 1, speech_seconds=2) as single:
        time.sleep(3)
        assert running("scaled") == 1
        with Load(url, 12, speech_seconds=4) as crowd:
            up_seconds = until(lambda: running("scaled") == 3, PATIENCE_SECONDS)
            time.sleep(3)
        down_seconds = until(lambda: running("scaled") == 1, PATIENCE_SECONDS)
        time.sleep(2)
    print(f"up after {up_seconds:.1f} s, down after {down_seconds:.1f} s; {crowd.statuses + single.statuses}")
    print(f"slowest: {crowd.slowest_seconds:.1f} s in the crowd, {single.slowest_seconds:.1f} s alone")
    assert set(crowd.statuses) == set(single.statuses) == {200}


def test_a_replica_that_dies_is_replaced_and_changes_nothing_else(url: str) -> None:
    """Nine callers want 18 s a second, and 12 where they get no processor in between: three replicas at 65 %."""
    with Load(url, 9, speech_seconds=4) as load:
        until(lambda: running("scaled") == 3, PATIENCE_SECONDS)
        time.sleep(2)
        kill_a_synthesizer("scaled")
        counts = set()

        def three_again() -> bool:
            counts.add(running("scaled"))
            return running("scaled") == 3 and len(counts) > 1

        until(three_again, PATIENCE_SECONDS)
        time.sleep(2)
    assert set(load.statuses) == {200}
    assert counts == {2, 3}


def test_a_fleet_of_nobody_is_woken_by_a_request(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(monkeypatch, "asleep", min_replicas=0, initial_replicas=1, downscale_to_zero_delay_s=1)
    request = {"model": "voice", "voice": "default", "input": "Hello there.", "response_format": "wav", "seconds": 1}
    with httpx.Client(base_url=f"{base_url}/asleep", timeout=60) as client:
        assert client.post("/v1/audio/speech", json=request).status_code == 200
        until(lambda: running("asleep") == 0, PATIENCE_SECONDS)
        start = time.monotonic()
        assert client.post("/v1/audio/speech", json=request).status_code == 200
        print(f"woken and answered within {time.monotonic() - start:.1f} s")
    serve.delete("asleep")


def kill_a_synthesizer(application: str) -> None:
    names = [actor["name"] for actor in list_named_actors(all_namespaces=True)]
    (victim, *_) = [name for name in names if name.startswith(f"SERVE_REPLICA::{application}#Synthesizer#")]
    ray.kill(ray.get_actor(victim, namespace="serve"))
