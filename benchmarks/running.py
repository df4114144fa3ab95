"""A service for a benchmark: one that is started for it, or one that runs already."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 300.0
DRAIN_SECONDS = 180.0
REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Service:
    """Where a service listens, and the process that started it."""

    host: str
    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextmanager
def service(*settings: str, port: int = 0) -> Iterator[Service]:
    """Start a service with the embedded voice, at that port or at any, and let it end in its own way afterwards."""
    port = port or free_port()
    with tempfile.TemporaryDirectory() as voices:
        command = [sys.executable, "-m", "deployments", "--port", str(port), "--device", "cpu", "--voices", voices]
        command += ["--start-timeout", str(START_SECONDS), *settings]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ, cwd=REPOSITORY)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", file=sys.stderr)
                if line.startswith("Ready on"):
                    break
            else:
                raise RuntimeError(f"the service ended with {process.wait()} before it was ready")
            yield Service("127.0.0.1", port, process)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=DRAIN_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
