"""Importing ray.serve warns of deprecations in Ray's own models, and here warnings are errors."""

from __future__ import annotations

import os
import warnings

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray.serve  # noqa: F401
