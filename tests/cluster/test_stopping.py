"""SIGTERM under load: whoever was let in is answered, whoever comes later is told so."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.cluster.load import Load, until
from tests.deploy.test_manifests import expressions

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

START_SECONDS, STOP_SECONDS = 120, 60
REFUSED_LATE = {503, "ConnectError", "ReadError", "RemoteProtocolError"}  # by the closed door, then by a closed port

# What dashboard and alarms ask for, and what a good day on a machine without a GPU has none of.
NEVER_HAPPENED = {
    "ray_node_gpus_utilization",
    "ray_node_gram_used",
    "ray_voice_audio_underrun_seconds_bucket",  # no stream is asked for here
    "ray_voice_audio_underrun_seconds_count",
    "ray_voice_audio_underrun_seconds_sum",
    "ray_voice_cache_hits_total",
    "ray_voice_rejected_total",
    "ray_voice_segment_retries_total",
}

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def names_not_exported(metrics_url: str) -> set[str]:
    """Return what dashboard and alarms ask for and Ray's agent doesn't tell."""
    told = set(re.findall(r"(?m)^(ray_\w+)", httpx.get(metrics_url, timeout=10).text))
    return {name for expression in expressions() for name in re.findall(r"\bray_\w+", expression)} - told


def small_config(folder: Path, port: int) -> Path:
    """Our own file with two ingresses, for a machine without a GPU."""
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    document["http_options"]["port"] = port
    (application,) = document["applications"]
    application["args"] |= {"model": "embedded", "device": "cpu", "voices": str(folder / "voices")}
    for deployment in application["deployments"]:
        if deployment["name"] == "Synthesizer":
            deployment["ray_actor_options"] = {"num_cpus": 1}
            deployment["autoscaling_config"]["max_replicas"] = 1
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def told_until(wanted: str | tuple[str, ...], lines: Iterable[str]) -> Iterator[str]:
    """Yield lines up to the wanted one, or to the end."""
    for line in lines:
        yield line
        if line.startswith(wanted):
            return


def told_of_change(launcher: subprocess.Popen[str], config: Path, old: str, new: str) -> str:
    """Let the launcher read a changed file, and return what it says; afterwards the file is as it was."""
    assert launcher.stdout is not None
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))
    launcher.send_signal(signal.SIGUSR1)
    (*_, told) = told_until(("Changed", "Not changed"), launcher.stdout)
    config.write_text(text)
    return told


def test_a_config_is_served_watched_and_changed_and_sigterm_under_load_cuts_nobody_off(tmp_path: Path) -> None:
    port = free_port()
    config = small_config(tmp_path, port)
    metrics_url = f"http://127.0.0.1:{free_port()}/metrics"
    ports = f"--metrics-port {httpx.URL(metrics_url).port}"
    command = f"-m deployments --config {config} {ports} --start-timeout {START_SECONDS}"
    launcher = subprocess.Popen(
        [sys.executable, *command.split()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    assert launcher.stdout is not None
    try:
        told = list(told_until("Ready on ", launcher.stdout))
        assert told[-1].startswith("Ready on "), "".join(told)
        assert told_of_change(launcher, config, "port: ", "prt: ").startswith("Not changed: ")
        assert told_of_change(launcher, config, "segments: 16", "segments: 8").startswith("Changed: ")
        with Load(f"http://127.0.0.1:{port}", 8, speech_seconds=10) as load:
            with contextlib.suppress(pytest.fail.Exception):
                until(lambda: names_not_exported(metrics_url) <= NEVER_HAPPENED, 40)
            assert names_not_exported(metrics_url) <= NEVER_HAPPENED
            asked_to_stop_at = time.monotonic()
            launcher.send_signal(signal.SIGTERM)
            out, _ = launcher.communicate(timeout=STOP_SECONDS)
    finally:
        launcher.terminate()  # Ray ends with it; a killed one would leave it behind
        launcher.wait(STOP_SECONDS)
    before = load.statuses_of_requests_before(asked_to_stop_at)
    after = load.statuses_of_requests_after(asked_to_stop_at)
    print(f"{out}\nasked before the signal: {dict(before)}; after it: {dict(after)}")
    assert launcher.returncode == 0
    assert set(before) == {200}
    assert before[200] > 8
    assert after[503] > 0
    assert set(after) <= REFUSED_LATE | {200}
