"""Importing ray.serve warns of deprecations in Ray's own models, and here warnings are errors."""

from __future__ import annotations

import os
import warnings

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray.serve  # noqa: F401

from deployments import fan_out


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a decoder fails, don't give Serve time to notice it."""
    monkeypatch.setattr(fan_out, "REST_SECONDS", tuple(0.0 for _ in fan_out.REST_SECONDS))
