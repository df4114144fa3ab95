"""The service as somebody else would use it: started as a program, spoken to over HTTP."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import soundfile
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[1]
START_TIMEOUT_SECONDS = 300
STOP_TIMEOUT_SECONDS = 60
REQUEST_TIMEOUT_SECONDS = 120


class Service:
    """`python -m deployments` on a free port, from entering the `with` statement to leaving it."""

    def __init__(self, model: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "deployments", "--model", model, "--port", str(port)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, cwd=REPOSITORY, stdout=sys.stderr)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._stop()
                raise RuntimeError("the service didn't start")
            time.sleep(0.5)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def speak(self, text: str, seed: int) -> tuple[NDArray[np.float32], tuple[bool, ...]]:
        """Return the samples of a text, and for each of its segments whether it ended by itself."""
        body = {"model": "voice", "voice": "default", "input": text, "response_format": "wav", "seed": seed}
        request = urllib.request.Request(
            f"{self._url}/v1/audio/speech", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS) as answer:
            samples, _ = soundfile.read(io.BytesIO(answer.read()), dtype="float32")
            reasons = answer.headers["X-Finish-Reasons"].split(",")
        return samples, tuple(reason == "stop" for reason in reasons)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/readyz", timeout=5):
                return True
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
