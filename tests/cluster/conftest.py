"""A cluster of several nodes on this machine, with GPUs that exist only in Ray's books."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Iterator

import pytest

from tests.cluster.starting import started_cluster

with warnings.catch_warnings():  # importing ray.serve warns of deprecations in Ray's own models
    warnings.simplefilter("ignore")
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

GPUS = (2, 1)  # of the two nodes beside the head
STORE_BYTES = 100_000_000


def add_nodes(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=8, num_gpus=0, include_dashboard=False, object_store_memory=STORE_BYTES)
    for gpus in GPUS:
        cluster.add_node(num_cpus=4, num_gpus=gpus, object_store_memory=STORE_BYTES)


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """Where a proxy listens, on the head, before two nodes with three GPUs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cluster = started_cluster(add_nodes)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()
