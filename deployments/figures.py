"""`GET /metrics`: our figures of all replicas on all nodes, as Ray's agents have them.

Prometheus may as well ask each node's agent itself (`ray start --metrics-export-port`), and gets Ray's own figures too;
the names are the same. This is for whoever reaches nothing but the HTTP port.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import ray

from deployments.direct import direct
from deployments.metrics import METRICS

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ANSWER_SECONDS = 2.0  # of a node's agent
AT_ONCE = 16  # nodes
RAYS_PREFIX = "ray_"


def figures() -> str:
    """Return our figures in Prometheus' text format. Blocks, so it is called in a thread."""
    with ThreadPoolExecutor(AT_ONCE) as askers:
        return merged(filter(None, askers.map(_asked, _agents())))


def merged(exports: Iterable[str]) -> str:
    """Return the families of ours in several exports, each told once."""
    families: dict[str, list[str]] = {}
    for export in exports:
        family = ""
        for line in export.splitlines():
            if line.startswith("# HELP "):
                family = line.split(" ", 3)[2]
            if family.removeprefix(RAYS_PREFIX) in METRICS:
                lines = families.setdefault(family, [])
                if not line.startswith("#") or line not in lines[:2]:
                    lines.append(line)
    return "".join(f"{line}\n" for lines in families.values() for line in lines)


def _agents() -> list[str]:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in nodes if node["Alive"]
    ]


def _asked(url: str) -> str | None:
    """Return a node's export; None from one that is going."""
    try:
        with direct.open(url, timeout=ANSWER_SECONDS) as answer:
            return str(answer.read().decode())
    except (OSError, http.client.HTTPException):
        return None
