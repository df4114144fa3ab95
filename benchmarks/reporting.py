"""Tables into results files, and the JSON line that ends every benchmark."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).resolve().parent / "results"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; floats keep three significant digits."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def report(name: str, title: str, body: str, summary: Mapping[str, Any], *, keep: bool) -> None:
    """Print everything, the summary as one JSON object last; write `results/<name>.md` unless `keep` is false."""
    program = Path(sys.argv[0]).resolve().relative_to(RESULTS.parents[1]).as_posix()
    command = " ".join(["python", program, *sys.argv[1:]])
    head = f"# {title}\n\n{datetime.now(UTC):%Y-%m-%d}, {machine()}: `{command}`\n\n"
    print(body)
    if keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.md").write_text(head + body + f"\n```json\n{json.dumps(summary)}\n```\n", encoding="utf-8")
    print(json.dumps(summary), flush=True)


def machine() -> str:
    """Return what the figures were measured on."""
    threads = f"{torch.get_num_threads()} thread(s)"
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{_processor()}, {threads}, torch {torch.__version__}"


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
