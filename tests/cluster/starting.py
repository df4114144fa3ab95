"""Clusters of several nodes on this machine."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

with warnings.catch_warnings():  # importing ray.cluster_utils warns of deprecations in Ray's own models
    warnings.simplefilter("ignore")
    from ray.cluster_utils import Cluster

TRIES = 3


def started_cluster(add_nodes: Callable[[Cluster], None]) -> Cluster:
    """Start a cluster and its nodes. Ray gives a node 30 s, which a busy machine may not have at first."""
    for _ in range(TRIES - 1):
        cluster = Cluster()
        try:
            add_nodes(cluster)
        except Exception:  # Ray has no name for it
            cluster.shutdown()
        else:
            return cluster
    cluster = Cluster()
    add_nodes(cluster)
    return cluster
