"""How much memory this process may still take: what the machine has, within the limits of its container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

FREE_BYTES_WHERE_UNKNOWN = 2_000_000_000  # on systems that don't tell; every machine that we run on has as much
KIB = 1024


def free_host_bytes(root: Path = Path("/")) -> int:
    """Return the bytes that can be taken without swapping; never raises. `root` is where /proc and /sys lie."""
    return max(0, min([_machine_bytes(root), *_container_bytes(root)]))


def _machine_bytes(root: Path) -> int:
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, amount = line.partition(":")
        if name == "MemAvailable" and (number := _integer(amount.removesuffix("kB"))) is not None:
            return number * KIB
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not Linux
        return FREE_BYTES_WHERE_UNKNOWN


def _container_bytes(root: Path) -> Iterator[int]:
    """Yield what is left in each control group around this process that has a limit, of either version."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, controllers_and_path = line.partition(":")
        controllers, _, path = controllers_and_path.partition(":")
        if not controllers:
            top, limit, used, reclaimable = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit, used = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            reclaimable = "total_inactive_file"
        else:
            continue
        own = PurePosixPath(path.lstrip("/"))
        for group in (own, *own.parents):
            folder = root / top / group
            most, taken = _integer(_text(folder / limit)), _integer(_text(folder / used))
            if most is not None and taken is not None:
                yield most - taken + _statistic(folder / "memory.stat", reclaimable)


def _statistic(file: Path, name: str) -> int:
    for line in _text(file).splitlines():
        key, _, amount = line.partition(" ")
        if key == name:
            return _integer(amount) or 0
    return 0


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _integer(text: str) -> int | None:
    """Return a whole number; None for what is none, such as the "max" of a group without a limit."""
    return int(text) if (text := text.strip()).isdecimal() else None
