"""What a server's processes hold, read from /proc: memory, files, threads. Linux only."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Holdings:
    """Of one process at one moment."""

    pid: int
    name: str  # its title, where Ray sets one: ray::ServeReplica:voice:Ingress
    memory_mb: float  # anonymous and resident: its own, without what it shares through the object store
    files: int
    threads: int


def tree(root_pid: int) -> list[Holdings]:
    """Return what a process and all its descendants hold."""
    children = defaultdict(list)
    for pid in _pids():
        if (status := _status(pid)) is not None:
            children[int(status["PPid"])].append(pid)
    found, waiting = [], [root_pid]
    while waiting:
        pid = waiting.pop()
        waiting += children[pid]
        if (held := holdings(pid)) is not None:
            found.append(held)
    return found


def holdings(pid: int) -> Holdings | None:
    """Return what a process holds; None if it has ended meanwhile."""
    status = _status(pid)
    if status is None:
        return None
    try:
        title = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        files = len(os.listdir(PROC / str(pid) / "fd"))
    except OSError:
        return None
    memory_kb = int(re.sub(r"\D", "", status.get("RssAnon", "0")))
    return Holdings(pid, title, memory_kb / 1000, files, int(status["Threads"]))


def replicas(deployment: str) -> list[int]:
    """Return the processes of a deployment's replicas on this machine, whatever started them."""
    named = [held for pid in _pids() if (held := holdings(pid)) is not None]
    return [held.pid for held in named if re.match(rf"ray::ServeReplica:\w+:{deployment}\b", held.name)]


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal())


def _status(pid: int) -> dict[str, str] | None:
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return None
    return dict(re.split(r":\s+", line, maxsplit=1) for line in lines if re.search(r":\s", line))
