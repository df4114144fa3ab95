"""Callers who ask again as soon as they are answered, and remember every answer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx
import pytest


@dataclass(frozen=True)
class Answer:
    """What became of one request."""

    status: int | str  # of HTTP, or the name of the exception
    asked_at: float  # on time.monotonic's clock
    seconds: float


class Load:
    """So many callers at once, for as long as the `with` block lasts; every request is waited for."""

    def __init__(self, url: str, callers: int, *, speech_seconds: float) -> None:
        self._url = f"{url}/v1/audio/speech"
        self._request = {
            "model": "voice",
            "voice": "default",
            "input": "One more sentence for the load.",
            "response_format": "wav",
            "seconds": speech_seconds,
        }
        self._callers = ThreadPoolExecutor(callers)
        self._count = callers
        self._ended = threading.Event()
        self.answers: list[Answer] = []

    def __enter__(self) -> Self:
        for _ in range(self._count):
            self._callers.submit(self._call)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._callers.shutdown()

    @property
    def statuses(self) -> Counter[int | str]:
        return Counter(answer.status for answer in self.answers)

    def statuses_of_requests_before(self, moment: float) -> Counter[int | str]:
        """Count the answers to requests that were sent before a moment on time.monotonic's clock."""
        return Counter(answer.status for answer in self.answers if answer.asked_at < moment)

    def statuses_of_requests_after(self, moment: float) -> Counter[int | str]:
        return self.statuses - self.statuses_of_requests_before(moment)

    @property
    def slowest_seconds(self) -> float:
        return max(answer.seconds for answer in self.answers)

    def _call(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._ended.is_set():
                start = time.monotonic()
                status: int | str
                try:
                    status = client.post(self._url, json=self._request).status_code
                except httpx.HTTPError as error:
                    status = type(error).__name__
                self.answers.append(Answer(status, start, time.monotonic() - start))
                if status != 200:
                    self._ended.wait(0.1)  # a refusal takes no time


def until(reached: Callable[[], bool], seconds: float) -> float:
    """Return after how many seconds something is so; fail if it never is."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        if reached():
            return time.monotonic() - start
        time.sleep(0.2)
    pytest.fail(f"not so after {seconds:g} s")
