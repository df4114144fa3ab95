"""serve_config.yaml against Ray's schema and against our code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from deployments.app import build
from deployments.settings import Admission, Settings

MOST_ROWS_ON_A_GPU = 128  # that are chosen for max_rows: null

PATH = Path(__file__).resolve().parents[2] / "serve_config.yaml"

# Ray warns of the autoscaling field that it gave up; the file says why we set it all the same.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(PATH.read_text())
    return loaded


@pytest.fixture
def application(document: dict[str, Any]) -> dict[str, Any]:
    (only,) = document["applications"]
    return dict(only)


def test_rays_schema_accepts_it_and_knows_every_key(document: dict[str, Any]) -> None:
    schema = ServeDeploySchema.model_validate(document)
    assert set(document) <= set(ServeDeploySchema.model_fields)
    assert schema.http_options.host == "127.0.0.1"
    assert schema.applications[0].import_path == "deployments.app:build"


def test_it_names_every_setting_of_the_application(application: dict[str, Any]) -> None:
    settings = Settings.model_validate(application["args"])
    assert set(application["args"]) == set(Settings.model_fields)
    assert settings.model == "Aratako/T5Gemma-TTS-2b-2b"
    assert settings.device == "cuda"


def test_the_readme_tells_of_every_setting() -> None:
    readme = PATH.with_name("README.md").read_text()
    assert [name for name in Settings.model_fields if f"`{name}`" not in readme] == []


def test_an_ingress_refuses_requests_before_serve_lets_them_wait_untold(application: dict[str, Any]) -> None:
    (ingress,) = (one for one in application["deployments"] if one["name"] == "Ingress")
    assert application["args"]["most_requests_in_flight"] < ingress["max_ongoing_requests"]


def test_its_deployments_are_those_of_the_code(application: dict[str, Any]) -> None:
    ingress = build(Settings(device="cpu"))._bound_deployment
    bound = [one._bound_deployment for one in ingress.init_args if hasattr(one, "_bound_deployment")]
    in_code = [deployment.name for deployment in (ingress, *bound)]
    assert [deployment["name"] for deployment in application["deployments"]] == in_code


def test_every_synthesizer_has_a_gpu_of_its_own_and_known_admission(application: dict[str, Any]) -> None:
    (synthesizer,) = (one for one in application["deployments"] if one["name"] == "Synthesizer")
    admission = Admission.model_validate(synthesizer["user_config"])
    assert synthesizer["ray_actor_options"]["num_gpus"] == 1
    assert admission.segments <= synthesizer["max_ongoing_requests"]


def test_a_full_gpu_takes_more_segments_than_it_speaks_at_once(application: dict[str, Any]) -> None:
    (synthesizer,) = (one for one in application["deployments"] if one["name"] == "Synthesizer")
    assert synthesizer["max_ongoing_requests"] > MOST_ROWS_ON_A_GPU
    assert synthesizer["autoscaling_config"]["target_ongoing_requests"] < MOST_ROWS_ON_A_GPU
