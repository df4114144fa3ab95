"""Which device the application is built for, and what that takes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from deployments import app
from deployments.__main__ import read_options
from deployments.app import NoGpuError, build, choose_device
from deployments.settings import Settings


def options(application: Any) -> dict[str, dict[str, Any]]:
    """The resources of each deployment of a bound application, by name."""
    ingress = application._bound_deployment
    arguments = [argument for argument in ingress.init_args if hasattr(argument, "_bound_deployment")]
    deployments = [ingress, *(argument._bound_deployment for argument in arguments)]
    return {deployment.name: deployment.ray_actor_options for deployment in deployments}


def test_the_application_is_an_ingress_over_the_other_deployments() -> None:
    usual = ["Ingress", "Synthesizer", "Composer", "VoiceEncoder"]
    assert list(options(build(Settings(device="cpu")))) == usual
    assert list(options(build(Settings(device="cpu", whisper_model="somewhere")))) == [*usual, "Transcriber"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"voices": "voices"},
        {"voices": "./voices"},
        {"longest_reference_seconds": 31},
        {"longest_reference_seconds": 0.5},
        {"longest_segment_seconds": 1},
        {"longest_segment_seconds": "long"},
    ],
)
def test_a_setting_that_cannot_work_is_refused_at_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Settings(**wrong)


def test_every_setting_is_an_option_of_the_launcher() -> None:
    wanted = Settings(
        model="somewhere",
        device="cpu",
        precision="float32",
        wait_for_gpu=True,
        cpu_threads=2,
        max_rows=3,
        longest_segment_seconds=18,
        in_flight=False,
        largest_share=0.25,
        deterministic=True,
        cuda_graphs="off",
        longest_text_characters=4,
        longest_speech_seconds=5,
        most_requests_in_flight=6,
        most_seconds_in_flight=7,
        largest_body_bytes=8,
        largest_upload_bytes=9,
        voices="/voices",
        most_voices=10,
        shortest_reference_seconds=11,
        longest_reference_seconds=12,
        codec="somewhere",
        whisper_model="elsewhere",
        segment_cache="/spoken",
        segment_cache_bytes=13,
        traces="/spans",
        longest_dub_seconds=14,
        longest_wait_seconds=15,
        longest_request_seconds=16,
        longest_upload_seconds=17,
        log_texts=True,
        api_keys="/keys",
    )
    options: list[str] = []
    for name, value in wanted:
        assert value != getattr(Settings(), name), f"{name} is to differ from its default"
        option = name.replace("_", "-")
        options.append(f"--{'' if value else 'no-'}{option}" if isinstance(value, bool) else f"--{option}={value}")
    assert read_options(options)[0] == wanted
    assert read_options([])[0] == Settings()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--largest-share", "2"], "--largest-share: "),
        (["--max-rows", "many"], "--max-rows: "),
        (["--longest-segment-seconds", "1"], "--longest-segment-seconds: "),
        (["--longest-reference-seconds", "0.5"], "shortest_reference_seconds is above"),
    ],
)
def test_an_option_that_cannot_work_is_told_by_its_name(
    wrong: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read_options(wrong)
    assert told in capsys.readouterr().err


def test_on_gpus_every_synthesizer_has_one_and_the_others_see_none() -> None:
    resources = options(build(Settings(device="cuda", wait_for_gpu=True)))
    assert resources["Synthesizer"]["num_gpus"] == 1
    for name in ("Ingress", "Composer", "VoiceEncoder"):
        assert resources[name]["runtime_env"]["env_vars"] == {"CUDA_VISIBLE_DEVICES": ""}


def test_on_a_cpu_beside_a_gpu_nobody_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "gpu_exists", lambda: True)
    resources = options(build(Settings(device="cpu")))
    for name in ("Ingress", "Synthesizer", "Composer", "VoiceEncoder"):
        assert resources[name]["runtime_env"]["env_vars"] == {"CUDA_VISIBLE_DEVICES": ""}


def test_the_service_listens_on_this_machine_only_unless_told_otherwise() -> None:
    assert read_options([])[1].host == "127.0.0.1"
    assert read_options(["--host", "0.0.0.0"])[1].host == "0.0.0.0"


def test_on_a_cpu_no_gpu_is_asked_for() -> None:
    resources = options(build(Settings(device="cpu", cpu_threads=3)))
    assert resources["Synthesizer"] == {"num_cpus": 3, "num_gpus": 0}
    assert not resources["Ingress"].get("runtime_env")


@pytest.mark.parametrize(("gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_the_gpu_if_there_is_one(gpu: bool, device: str) -> None:
    assert choose_device(Settings(), lambda: gpu) == device


def test_a_macs_own_chip_is_refused_with_what_works_instead() -> None:
    with pytest.raises(ValidationError, match="Input should be 'auto', 'cuda' or 'cpu'"):
        Settings.model_validate({"device": "mps"})


def test_cuda_without_a_gpu_fails_with_what_to_do() -> None:
    with pytest.raises(NoGpuError, match=r"no GPU: add a GPU node.*wait_for_gpu"):
        choose_device(Settings(device="cuda"), lambda: False)
    assert choose_device(Settings(device="cuda", wait_for_gpu=True), lambda: False) == "cuda"


def test_an_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="modle"):
        Settings.model_validate({"modle": "embedded"})


def test_no_deployment_but_a_synthesizers_replica_imports_torch() -> None:
    modules = "app, ingress, composer, synthesizer, voice_encoder, transcriber, launcher"
    program = f"from deployments import {modules}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
