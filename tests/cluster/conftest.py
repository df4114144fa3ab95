"""A cluster of several nodes on this machine, with GPUs that exist only in Ray's books."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

with warnings.catch_warnings():  # importing ray.serve warns of deprecations in Ray's own models
    warnings.simplefilter("ignore")
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

GPUS = (2, 1)  # of the two nodes beside the head
STORE_BYTES = 100_000_000
TRIES = 3


def started_cluster() -> Cluster:
    """Ray gives a node 30 s to start, which a busy machine may not have at first."""
    for _ in range(TRIES - 1):
        cluster = Cluster()
        try:
            return add_nodes(cluster)
        except Exception:  # Ray has no name for it
            cluster.shutdown()
    return add_nodes(Cluster())


def add_nodes(cluster: Cluster) -> Cluster:
    cluster.add_node(num_cpus=8, num_gpus=0, include_dashboard=False, object_store_memory=STORE_BYTES)
    for gpus in GPUS:
        cluster.add_node(num_cpus=4, num_gpus=gpus, object_store_memory=STORE_BYTES)
    return cluster


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """Where a proxy listens, on the head, before two nodes with three GPUs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cluster = started_cluster()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()
