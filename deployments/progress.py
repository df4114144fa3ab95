"""Tells a person how far a command is: one line that grows on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

BAR_CHARACTERS = 24
REDRAW_SECONDS = 0.1  # on a terminal
TELL_SECONDS = 10.0  # elsewhere


class Progress:
    """Counts up to a total; a total that isn't known yet is told when it comes."""

    def __init__(self, stream: TextIO, noun: str) -> None:
        self._stream = stream
        self._noun = noun
        self._on_terminal = stream.isatty()
        self._began = self._told = time.monotonic()
        self._began_at = 0
        self._drawn = False

    def start(self, done: int) -> None:
        """So much was done before: it says nothing about how fast the rest will go."""
        self._began, self._began_at = time.monotonic(), done

    def tell(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self._told < (REDRAW_SECONDS if self._on_terminal else TELL_SECONDS) and done < total:
            return
        self._told = now
        left = self._seconds_left(done, total, now)
        told = f"{done} of {total} {self._noun}{note}" + (f", {_clock(left)} left" if left else "")
        if not self._on_terminal:
            print(told, file=self._stream, flush=True)
            return
        filled = BAR_CHARACTERS * done // max(1, total)
        line = f"[{'#' * filled}{'.' * (BAR_CHARACTERS - filled)}] {told}"
        print(f"\r{line[: shutil.get_terminal_size().columns - 1]}\033[K", end="", file=self._stream, flush=True)
        self._drawn = True

    def close(self) -> None:
        """Leave the line to what is told next."""
        if self._drawn:
            print(file=self._stream, flush=True)
            self._drawn = False

    def _seconds_left(self, done: int, total: int, now: float) -> float:
        fresh = done - self._began_at
        return (now - self._began) / fresh * (total - done) if fresh > 0 else 0.0


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
