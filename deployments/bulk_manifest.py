"""The manifest of `python -m deployments bulk`: a JSON object on every line, each a request and the file it becomes."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from deployments.commands import FORMAT_OF, CommandError
from voice_core.audio.endings import ENDINGS

DONE_FILE, ERRORS_FILE = ".done.jsonl", "errors.jsonl"
OWN_FIELDS = ("id", "output")  # of a line; the others are the request's
LONGEST_NAME_BYTES = 240  # file systems take 255, and a file that is being written has more in its name
NOT_ONE_FILE = ("stream_format", "captions", "manifest", "n")


class LineError(Exception):
    """What is wrong with a line of the manifest, or with what the server made of it."""

    def __init__(self, message: str, error: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.error = error or {"message": message}


@dataclass(frozen=True)
class Job:
    """A line of the manifest: what is asked of the server, and the file that it becomes."""

    line: int  # from 1
    id: str
    request: dict[str, Any]
    output: str  # in the folder

    @property
    def key(self) -> str:
        """Equal for lines that ask for the same, however they are written."""
        return hashlib.sha256(json.dumps(self.request, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class BadLine:
    """A line of the manifest that is none."""

    line: int  # from 1
    id: str | None
    error: LineError


def read_manifest(manifest: str, voice: str, format_name: str, model: str = "voice") -> list[Job | BadLine]:
    """Read every line that holds something; "-" is standard input. Raises CommandError for what is no text, OSError.

    `voice`, `format_name` and `model` are those of lines that name none.
    """
    content = sys.stdin.buffer.read() if manifest == "-" else Path(manifest).read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(f"{manifest}: is not UTF-8 (byte {error.start})") from error
    return list(_jobs(text, voice, format_name, model))


def _jobs(text: str, voice: str, format_name: str, model: str) -> Iterator[Job | BadLine]:
    outputs: dict[PurePosixPath, int] = {}
    folders: dict[PurePosixPath, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        row: Any = None
        try:
            row = _row(line)
            job = _job(number, row, voice, format_name, model)
            path = PurePosixPath(job.output)
            _check_free(path, outputs, folders)
            outputs[path] = number
            folders |= dict.fromkeys(path.parents, number)
            yield job
        except LineError as error:
            yield BadLine(number, str(row["id"]) if isinstance(row, dict) and "id" in row else None, error)


def _check_free(path: PurePosixPath, outputs: dict[PurePosixPath, int], folders: dict[PurePosixPath, int]) -> None:
    """Refuse a file that is another line's, a folder of another line's, or in a folder that is another line's file."""
    if path in outputs:
        raise LineError(f"output: {str(path)!r} is that of line {outputs[path]} too")
    if path in folders:
        raise LineError(f"output: {str(path)!r} is the folder of that of line {folders[path]}")
    for folder in path.parents:
        if folder in outputs:
            raise LineError(
                f"output: {str(path)!r} is in a folder {str(folder)!r}, which is the file of line {outputs[folder]}"
            )


def _row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LineError(f"is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise LineError("must be a JSON object")
    return row


def _format_of(output: str | None) -> str | None:
    """Return the format that a file's name asks for, if it does by an ending."""
    ending = PurePosixPath(output or "").suffix.lower()
    if ending and ending not in FORMAT_OF:
        raise LineError(f"output: {ending!r} is none of {', '.join(FORMAT_OF)}; 'response_format' names any other")
    return FORMAT_OF.get(ending)


def _job(number: int, row: dict[str, Any], voice: str, format_name: str, model: str) -> Job:
    for name in NOT_ONE_FILE:
        value = row.get(name)
        if not (value is None or value is False or (name == "n" and value == 1)):
            raise LineError(
                f"{name}: a line is one file here; write a line for each sample, ask the server for the rest"
            )
    request = {name: value for name, value in row.items() if name not in OWN_FIELDS and value is not None}
    request = {"model": model, "voice": voice, **request}
    output = row.get("output")
    if output is not None and not isinstance(output, str):
        raise LineError("output: must be the name of a file")
    if "response_format" not in request:
        request["response_format"] = _format_of(output) or format_name
    line_id = str(row.get("id", f"{number:06}"))
    ending = ENDINGS.get(str(request["response_format"]), str(request["response_format"]))
    field, name = ("output", output) if output else ("id", f"{line_id}.{ending}")
    path = PurePosixPath(name)
    hidden = not path.name or path.name.startswith(".")
    if path.is_absolute() or ".." in path.parts or hidden or name.endswith("/") or "\0" in name:
        raise LineError(f"{field}: {name!r} is no file name inside the folder")
    try:
        longest_bytes = max(len(part.encode()) for part in path.parts)
    except UnicodeEncodeError as error:
        raise LineError(f"{field}: {name!r} is no file name: half of a surrogate pair") from error
    if longest_bytes > LONGEST_NAME_BYTES:
        raise LineError(f"{field}: a name has {longest_bytes} bytes, at most {LONGEST_NAME_BYTES} may be")
    if path == PurePosixPath(ERRORS_FILE):
        raise LineError(f"output: {name!r} is where errors are written")
    return Job(number, line_id, request, str(path))
