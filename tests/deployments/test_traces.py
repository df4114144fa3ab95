"""Spans: off by default, and otherwise one tree over all processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from deployments import traces
from deployments.settings import Settings
from voice_core.errors import SettingError

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

# One process is one replica, and traces for good, so it is one of its own.
PROGRAM = """
import sys
from deployments import traces

traces.set_up(sys.argv[1], "Ingress")
with traces.span("request", sys.argv[2], visit="v"):
    told = traces.traceparent()
with traces.span("segment", told, index=0):
    traces.phases({"queue": (1.0, 1.5), "decode": (1.5, 3.5)})
"""


def spans(folder: Path, parent: str) -> dict[str, dict[str, Any]]:
    subprocess.run([sys.executable, "-c", PROGRAM, str(folder), parent], check=True)
    (file,) = folder.iterdir()
    return {span["name"]: span for span in map(json.loads, file.read_text().splitlines())}


def test_a_callers_trace_is_joined_and_goes_on_in_other_processes(tmp_path: Path) -> None:
    found = spans(tmp_path / "spans", PARENT)
    assert set(found) == {"request", "segment", "queue", "decode"}
    assert {span["context"]["trace_id"] for span in found.values()} == {"0x4bf92f3577b34da6a3ce929d0e0e4736"}
    assert found["request"]["parent_id"] == "0x00f067aa0ba902b7"
    assert found["segment"]["parent_id"] == found["request"]["context"]["span_id"]
    assert found["decode"]["parent_id"] == found["segment"]["context"]["span_id"]
    assert (found["decode"]["start_time"][17:23], found["decode"]["end_time"][17:23]) == ("01.500", "03.500")
    assert found["request"]["attributes"] == {"visit": "v"}


def test_what_is_no_traceparent_begins_a_trace(tmp_path: Path) -> None:
    assert spans(tmp_path, "00-zz")["request"]["parent_id"] is None


def test_off_is_nowhere_and_imports_nothing() -> None:
    program = "from deployments import traces; traces.set_up('off', 'x')\nwith traces.span('x'): pass\n"
    program += "import sys; sys.exit('opentelemetry.sdk.trace' in sys.modules or traces.traceparent() is not None)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_collector_needs_the_exporter_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingError, match="pip install"):
        traces.set_up("http://localhost:4318/v1/traces", "Ingress")


@pytest.mark.parametrize("where", ["spans", "on", ""])
def test_spans_go_to_a_place_that_is_the_same_for_every_process(where: str) -> None:
    with pytest.raises(ValidationError):
        Settings(traces=where)
