"""The application: Ingress asks the other deployments. `serve run` and the launcher both build it here."""

# No `from __future__ import annotations` here: Serve needs the class of build's parameter to check `args:`.

import logging
import shutil
import subprocess
from collections.abc import Callable
from typing import Any, cast

import ray
from ray.serve import Application, Deployment

from deployments.composer import Composer
from deployments.ingress import Ingress
from deployments.settings import Device, Settings
from deployments.synthesizer import Synthesizer
from deployments.transcriber import Transcriber
from deployments.voice_encoder import VoiceEncoder

# Shares of a CPU for Ray's bookkeeping: with one decoder thread the whole application fits into two.
INGRESS_CPUS = 0.4
COMPOSER_CPUS = 0.4
VOICE_ENCODER_CPUS = 0.1  # busy for a moment when a voice is learned
TRANSCRIBER_CPUS = 0.1  # likewise

# A GPU node's other deployments must not open a CUDA context; num_gpus=0 alone no longer hides the GPUs.
NO_GPU_ENVIRONMENT = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}

logger = logging.getLogger("ray.serve")


class NoGpuError(RuntimeError):
    """`device: cuda` was asked for where there is no GPU."""


def build(settings: Settings) -> Application:
    """Compose the application for the device that the settings and the cluster agree on."""
    device = choose_device(settings)
    on_gpu = device == "cuda"
    # Where there is none, nothing needs to be hidden, and an environment of its own makes a replica start later.
    hidden_gpu: dict[str, Any] = {"runtime_env": NO_GPU_ENVIRONMENT} if on_gpu or gpu_exists() else {}
    synthesizer_resources: dict[str, Any] = {"num_cpus": settings.cpu_threads, "num_gpus": int(on_gpu)}
    if not on_gpu:
        synthesizer_resources |= hidden_gpu
    synthesizer = _with_resources(Synthesizer, synthesizer_resources).bind(
        settings.model_copy(update={"device": device})
    )
    composer = _with_resources(Composer, {"num_cpus": COMPOSER_CPUS, **hidden_gpu}).bind(settings)
    voice_encoder = _with_resources(VoiceEncoder, {"num_cpus": VOICE_ENCODER_CPUS, **hidden_gpu}).bind(settings)
    transcriber = None
    if settings.whisper_model is not None:
        transcriber = _with_resources(Transcriber, {"num_cpus": TRANSCRIBER_CPUS, **hidden_gpu}).bind(settings)
    ingress = _with_resources(Ingress, {"num_cpus": INGRESS_CPUS, **hidden_gpu})
    return ingress.bind(settings, synthesizer, composer, voice_encoder, transcriber)


def cpus_needed(settings: Settings) -> float:
    """Return the CPUs that one replica of everything takes in Ray's books."""
    transcriber = TRANSCRIBER_CPUS if settings.whisper_model is not None else 0
    return settings.cpu_threads + INGRESS_CPUS + COMPOSER_CPUS + VOICE_ENCODER_CPUS + transcriber


def gpu_exists() -> bool:
    """Ask the cluster, or the driver before Ray runs (`serve run module:app` builds first). No torch here."""
    if ray.is_initialized():
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return resources.get("GPU", 0) > 0
    nvidia_smi = shutil.which("nvidia-smi")
    if nvidia_smi is None:
        return False
    listed = subprocess.run([nvidia_smi, "-L"], capture_output=True, text=True, check=False)
    return listed.returncode == 0 and listed.stdout.startswith("GPU")


def choose_device(settings: Settings, gpu_exists: Callable[[], bool] = gpu_exists) -> Device:
    """Answer `auto`, and refuse `cuda` where nothing could ever run on it."""
    if settings.device == "cuda":
        if not settings.wait_for_gpu and not gpu_exists():
            raise NoGpuError(
                "device is 'cuda', but this cluster has no GPU: add a GPU node, set device to 'auto' or "
                "'cpu', or set wait_for_gpu to true if an autoscaler brings GPU nodes later"
            )
        return "cuda"
    if settings.device != "auto":
        return settings.device
    device: Device = "cuda" if gpu_exists() else "cpu"
    logger.info("Device auto: the model runs on %s.", device)
    return device


def _with_resources(deployment: type, ray_actor_options: dict[str, Any]) -> Deployment:
    # Ray types a deployment as the class it was made from.
    return cast(Deployment, deployment).options(ray_actor_options=ray_actor_options)
