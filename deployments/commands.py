"""What the commands that ask a running server share: their errors, exit codes and files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from voice_core.audio.endings import ENDINGS

INTERRUPTED_EXIT_CODE = 130  # what shells use for Ctrl-C
FORMAT_OF = {f".{ending}": name for name, ending in ENDINGS.items() if name == ending} | {".ogg": "opus"}


class CommandError(Exception):
    """Why the command can't do it: a sentence for a person."""


@contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that takes its name when it is whole; what was there before stays until then."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
