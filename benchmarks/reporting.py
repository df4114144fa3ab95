"""Tables into results files, and the JSON line that ends every benchmark."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).resolve().parent / "results"
REPOSITORY = RESULTS.parents[1]


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; floats keep three significant digits."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def commit() -> str:
    """Return the commit of this code, and whether files differ from it; a word for it where git can't tell."""
    # the repository's own folder: a copy that lies in another repository has none of its commits
    git = ["git", "--no-optional-locks", f"--git-dir={REPOSITORY / '.git'}", f"--work-tree={REPOSITORY}"]
    head = ["rev-parse", "--short", "HEAD"]
    changes = ["status", "--porcelain", "--", str(REPOSITORY), f":(exclude){RESULTS}"]
    try:
        number, changed = (
            subprocess.run([*git, *asked], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()
            for asked in (head, changes)
        )
    except (OSError, subprocess.CalledProcessError):
        return "of no known commit"
    return f"commit {number}, dirty" if changed else f"commit {number}"


COMMIT = commit()  # when the program starts: files may change while it measures


def report(
    name: str,
    title: str,
    body: str,
    summary: Mapping[str, Any],
    *,
    keep: bool,
    device: str = "cpu",
    threads: int | None = None,
) -> None:
    """Print everything, the summary as one JSON object last; write `results/<name>.md` unless `keep` is false.

    `device` is what computed, `threads` those of a CPU that were told to; None where a server's parts have their own.
    """
    program = Path(sys.argv[0]).resolve().relative_to(REPOSITORY).as_posix()
    command = " ".join(["python", program, *sys.argv[1:]])
    head = f"# {title}\n\n{datetime.now(UTC):%Y-%m-%d}, {machine(device, threads)}, {COMMIT}: `{command}`\n\n"
    print(body)
    if keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.md").write_text(head + body + f"\n```json\n{json.dumps(summary)}\n```\n", encoding="utf-8")
    print(json.dumps(summary), flush=True)


def machine(device: str, threads: int | None) -> str:
    """Return what the figures were measured on."""
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    used = "" if threads is None else f"{threads} thread(s) on "
    return f"{_processor()}, {used}{_usable_cores()} usable core(s), torch {torch.__version__}"


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cell(value: object) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )
