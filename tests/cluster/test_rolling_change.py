"""Settings and weights change under load, and no request notices more than a wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

from tests.cluster.load import Load, until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CALLERS = 6


def deploy(*, model: str, segments: int) -> None:
    """Apply a config as `serve deploy` does, and wait until it is so: two replicas on three GPUs, so one is spare."""
    document: dict[str, Any] = {
        "applications": [
            {
                "name": "rolled",
                "route_prefix": "/rolled",
                "import_path": "tests.cluster.fake_synthesizer:build",
                "args": {"model": model, "device": "cuda"},
                "deployments": [
                    {"name": "Ingress", "num_replicas": 2, "max_surge_percent": 100},
                    {
                        "name": "Synthesizer",
                        "num_replicas": 2,
                        "max_surge_percent": 50,
                        "user_config": {"segments": segments},
                    },
                    {"name": "Composer", "max_surge_percent": 100},
                    {"name": "VoiceEncoder", "max_surge_percent": 100},
                ],
            }
        ]
    }
    _get_global_client().deploy_apps(ServeDeploySchema.model_validate(document))
    until(lambda: is_running("rolled"), 240)  # a busy machine starts twelve processes slowly


def is_running(name: str) -> bool:
    application = serve.status().applications.get(name)
    return application is not None and application.status is ApplicationStatus.RUNNING


def whoami(handle: DeploymentHandle[Any]) -> set[tuple[int, str, int]]:
    return {tuple(one) for one in handle.broadcast("whoami").results()}


@pytest.fixture(scope="module")
def url(base_url: str) -> Iterator[str]:
    deploy(model="old", segments=16)
    yield f"{base_url}/rolled"
    serve.delete("rolled")


@pytest.fixture
def synthesizer(url: str) -> DeploymentHandle[Any]:
    handle: DeploymentHandle[Any] = serve.get_deployment_handle("Synthesizer", app_name="rolled")
    handle.whoami.remote().result()  # from then on it knows the replicas
    return handle


def test_a_setting_changes_while_it_runs_without_a_restart(url: str, synthesizer: DeploymentHandle[Any]) -> None:
    before = whoami(synthesizer)
    with Load(url, CALLERS, speech_seconds=2) as load:
        time.sleep(2)
        deploy(model="old", segments=8)
        until(lambda: {segments for _, _, segments in whoami(synthesizer)} == {8}, 30)
        time.sleep(2)
    assert whoami(synthesizer) == {(process, "old", 8) for process, _, _ in before}
    print(f"{dict(load.statuses)}, slowest {load.slowest_seconds:.1f} s")
    assert set(load.statuses) == {200}


def test_new_weights_come_under_load_without_a_failed_request(url: str, synthesizer: DeploymentHandle[Any]) -> None:
    before = {process for process, _, _ in whoami(synthesizer)}
    with Load(url, CALLERS, speech_seconds=2) as load:
        time.sleep(2)
        deploy(model="new", segments=8)
        until(lambda: {model for _, model, _ in whoami(synthesizer)} == {"new"}, 60)
        time.sleep(2)
    after = whoami(synthesizer)
    assert {model for _, model, _ in after} == {"new"}
    assert not before & {process for process, _, _ in after}
    print(f"{dict(load.statuses)}, slowest {load.slowest_seconds:.1f} s")
    assert set(load.statuses) == {200}
