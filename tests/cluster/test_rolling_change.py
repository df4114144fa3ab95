"""Settings and weights change under load, and no request notices more than a wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments import app
from deployments.settings import Admission, Settings
from tests.cluster.fake_synthesizer import FakeSynthesizer
from tests.cluster.load import Load

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

REPLICAS = 2  # on three GPUs: one is spare
CALLERS = 6


def deploy(monkeypatch: pytest.MonkeyPatch, *, model: str, segments: int) -> None:
    """Deploy as serve_config.yaml says it for a change without a pause: every deployment may surge."""
    with_resources = app._with_resources

    def surging(deployment: type, options: dict[str, Any]) -> Any:
        return with_resources(deployment, options).options(max_surge_percent=100)

    synthesizer = FakeSynthesizer.options(num_replicas=REPLICAS, user_config=Admission(segments=segments).model_dump())
    with monkeypatch.context() as patch:
        patch.setattr(app, "Synthesizer", synthesizer)
        patch.setattr(app, "Ingress", app.Ingress.options(num_replicas=2))
        patch.setattr(app, "_with_resources", surging)
        serve.run(app.build(Settings(model=model, device="cuda")), name="rolled", route_prefix="/rolled")


def whoami(handle: DeploymentHandle[Any]) -> set[tuple[int, str, int]]:
    return {tuple(one) for one in handle.broadcast("whoami").results()}


@pytest.fixture(scope="module")
def url(base_url: str) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        deploy(monkeypatch, model="old", segments=16)
    yield f"{base_url}/rolled"
    serve.delete("rolled")


@pytest.fixture
def synthesizer(url: str) -> DeploymentHandle[Any]:
    handle: DeploymentHandle[Any] = serve.get_deployment_handle("Synthesizer", app_name="rolled")
    handle.whoami.remote().result()  # from then on it knows the replicas
    return handle


def test_a_setting_changes_while_it_runs_without_a_restart(
    url: str, synthesizer: DeploymentHandle[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = whoami(synthesizer)
    with Load(url, CALLERS, speech_seconds=2) as load:
        time.sleep(2)
        deploy(monkeypatch, model="old", segments=8)
        time.sleep(2)
    assert whoami(synthesizer) == {(process, "old", 8) for process, _, _ in before}
    print(f"{dict(load.statuses)}, slowest {load.slowest_seconds:.1f} s")
    assert set(load.statuses) == {200}


def test_new_weights_come_under_load_without_a_failed_request(
    url: str, synthesizer: DeploymentHandle[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {process for process, _, _ in whoami(synthesizer)}
    with Load(url, CALLERS, speech_seconds=2) as load:
        time.sleep(2)
        deploy(monkeypatch, model="new", segments=8)
        deadline = time.monotonic() + 60
        while {model for _, model, _ in whoami(synthesizer)} != {"new"} and time.monotonic() < deadline:
            time.sleep(0.5)
        time.sleep(2)
    after = whoami(synthesizer)
    assert {model for _, model, _ in after} == {"new"}
    assert not before & {process for process, _, _ in after}
    print(f"{dict(load.statuses)}, slowest {load.slowest_seconds:.1f} s")
    assert set(load.statuses) == {200}
