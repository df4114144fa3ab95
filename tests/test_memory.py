from pathlib import Path

import pytest

from voice_core.memory import FREE_BYTES_WHERE_UNKNOWN, free_host_bytes


def place(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:       4000 kB\nMemFree:        10 kB\nMemAvailable:   3000 kB\n"}


def test_what_caches_hold_counts_as_free(tmp_path: Path) -> None:
    assert free_host_bytes(place(tmp_path, MEMINFO)) == 3000 * 1024


def test_a_container_has_what_its_limit_leaves(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/pod/box"
    files = MEMINFO | {
        "proc/self/cgroup": "0::/pod/box\n",
        f"{group}/memory.max": "1000000\n",
        f"{group}/memory.current": "700000\n",
        f"{group}/memory.stat": "anon 500000\ninactive_file 150000\n",
    }
    assert free_host_bytes(place(tmp_path, files)) == 450_000


def test_the_tightest_group_decides(tmp_path: Path) -> None:
    files = MEMINFO | {
        "proc/self/cgroup": "0::/pod/box\n",
        "sys/fs/cgroup/pod/box/memory.max": "max\n",
        "sys/fs/cgroup/pod/box/memory.current": "700000\n",
        "sys/fs/cgroup/pod/memory.max": "900000\n",
        "sys/fs/cgroup/pod/memory.current": "800000\n",
    }
    assert free_host_bytes(place(tmp_path, files)) == 100_000


def test_a_group_of_the_older_kind_limits_too(tmp_path: Path) -> None:
    files = MEMINFO | {
        "proc/self/cgroup": "3:cpu,cpuacct:/box\n2:memory:/box\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "500000",
    }
    assert free_host_bytes(place(tmp_path, files)) == 1_500_000


def test_a_full_container_has_nothing_left(tmp_path: Path) -> None:
    files = MEMINFO | {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "1000",
        "sys/fs/cgroup/memory.current": "2000",
    }
    assert free_host_bytes(place(tmp_path, files)) == 0


def test_a_system_that_tells_nothing_gets_a_modest_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> int:
        raise ValueError(f"unrecognized configuration name {name}")

    monkeypatch.setattr("os.sysconf", unknown)
    assert free_host_bytes(tmp_path) == FREE_BYTES_WHERE_UNKNOWN


def test_this_machine_has_some_memory() -> None:
    assert free_host_bytes() > 0
