"""Figures of several nodes in one answer."""

from __future__ import annotations

from deployments.figures import merged

HERE = """# HELP ray_voice_rows_active Rows that are being spoken
# TYPE ray_voice_rows_active gauge
ray_voice_rows_active{replica="a"} 3.0
# HELP ray_serve_num_router_requests Somebody else's
# TYPE ray_serve_num_router_requests counter
ray_serve_num_router_requests{deployment="Ingress"} 1.0
"""
THERE = HERE.replace('"a"} 3.0', '"b"} 4.0')


def test_families_of_ours_are_told_once_with_the_samples_of_all_nodes() -> None:
    assert merged([HERE, THERE]).splitlines() == [
        "# HELP ray_voice_rows_active Rows that are being spoken",
        "# TYPE ray_voice_rows_active gauge",
        'ray_voice_rows_active{replica="a"} 3.0',
        'ray_voice_rows_active{replica="b"} 4.0',
    ]


def test_without_a_node_there_are_no_figures() -> None:
    assert merged([]) == ""
