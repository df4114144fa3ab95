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
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import numpy as np
import soundfile
from numpy.typing import NDArray

from voice_core.synthesizer import EMBEDDED

REPOSITORY = Path(__file__).resolve().parents[1]
START_TIMEOUT_SECONDS = 300
STOP_TIMEOUT_SECONDS = 60
REQUEST_TIMEOUT_SECONDS = 600  # a busy machine is slow, not broken


@dataclass(frozen=True)
class Answer:
    """A text as the service spoke it; the lists have an item for each segment."""

    samples: NDArray[np.float32]
    finish_reasons: tuple[str, ...]  # "stop": it ended by itself
    asked_seconds: tuple[float, ...]
    got_seconds: tuple[float, ...]


class Service:
    """`python -m deployments` on a free port, from entering the `with` statement to leaving it."""

    def __init__(self, model: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        self._voices = TemporaryDirectory()  # nobody's voices but the checkpoint's own are there
        options = ("--model", _told_anywhere(model), "--port", str(port), "--voices", self._voices.name)
        self._command = [sys.executable, "-m", "deployments", *options]

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

    def speak(self, text: str, seed: int, *, speed: float, voice: str) -> Answer:
        """Return what the service makes of a text."""
        body: dict[str, object] = {"model": "voice", "voice": voice, "input": text, "seed": seed, "speed": speed}
        # What doesn't end is to be counted, not to be spoken again.
        body |= {"response_format": "wav", "on_bad_segment": "keep"}
        request = urllib.request.Request(
            f"{self._url}/v1/audio/speech", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS) as answer:
            samples, _ = soundfile.read(io.BytesIO(answer.read()), dtype="float32")
            reasons, asked, got = (
                answer.headers[name].split(",") for name in ("X-Finish-Reasons", "X-Asked-Seconds", "X-Got-Seconds")
            )
        return Answer(samples, tuple(reasons), tuple(map(float, asked)), tuple(map(float, got)))

    def voices(self) -> list[str]:
        """Return the names of all voices, the model's own first."""
        with urllib.request.urlopen(f"{self._url}/v1/audio/voices", timeout=REQUEST_TIMEOUT_SECONDS) as answer:
            return [voice["name"] for voice in json.load(answer)["data"]]

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
        self._voices.cleanup()


def _told_anywhere(model: str) -> str:
    """Return a model's name as it is understood in the repository's root, where the service runs."""
    return str(Path(model).resolve()) if model != EMBEDDED and Path(model).is_dir() else model
