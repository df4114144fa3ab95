"""Spans: off by default, and otherwise one tree over all processes."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
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
try:
    with traces.span("failing", told):
        raise ValueError("the secret of the user")
except ValueError:
    pass
"""


def spans(folder: Path, parent: str) -> dict[str, dict[str, Any]]:
    subprocess.run([sys.executable, "-c", PROGRAM, str(folder), parent], check=True)
    (file,) = folder.iterdir()
    return {span["name"]: span for span in map(json.loads, file.read_text().splitlines())}


def test_a_callers_trace_is_joined_and_goes_on_in_other_processes(tmp_path: Path) -> None:
    found = spans(tmp_path / "spans", PARENT)
    assert set(found) == {"request", "segment", "queue", "decode", "failing"}
    assert {span["context"]["trace_id"] for span in found.values()} == {"0x4bf92f3577b34da6a3ce929d0e0e4736"}
    assert found["request"]["parent_id"] == "0x00f067aa0ba902b7"
    assert found["segment"]["parent_id"] == found["request"]["context"]["span_id"]
    assert found["decode"]["parent_id"] == found["segment"]["context"]["span_id"]
    assert (found["decode"]["start_time"][17:23], found["decode"]["end_time"][17:23]) == ("01.500", "03.500")
    assert found["request"]["attributes"] == {"visit": "v"}
    assert found["failing"]["status"]["status_code"] == "ERROR"
    assert "ValueError" in found["failing"]["status"]["description"]
    assert "secret" not in json.dumps(found)


def test_what_is_no_traceparent_begins_a_trace(tmp_path: Path) -> None:
    assert spans(tmp_path, "00-zz")["request"]["parent_id"] is None


def test_off_is_nowhere_and_imports_nothing() -> None:
    program = "from deployments import traces; traces.set_up('off', 'x')\nwith traces.span('x'): pass\n"
    program += "import sys; sys.exit('opentelemetry.sdk.trace' in sys.modules or traces.traceparent() is not None)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.fixture
def collector() -> Iterator[tuple[str, list[TracesData]]]:
    """An address, and what is sent there."""
    received: list[TracesData] = []

    class Reader(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            received.append(TracesData.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Reader) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", received
        server.shutdown()


def test_a_collector_is_sent_the_spans_in_its_own_protocol(collector: tuple[str, list[TracesData]]) -> None:
    url, received = collector
    subprocess.run([sys.executable, "-c", PROGRAM, url, PARENT], check=True)
    (resource,) = (resource for sent in received for resource in sent.resource_spans)
    assert {"service.name": "voice-serve", "service.instance.id": "Ingress"}.items() <= {
        attribute.key: attribute.value.string_value for attribute in resource.resource.attributes
    }.items()
    spans = {span.name: span for scope in resource.scope_spans for span in scope.spans}
    assert set(spans) == {"request", "segment", "queue", "decode", "failing"}
    assert {span.trace_id.hex() for span in spans.values()} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert spans["segment"].parent_span_id == spans["request"].span_id
    assert spans["decode"].end_time_unix_nano == 3_500_000_000


def test_a_collector_needs_the_exporter_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingError, match="pip install"):
        traces.set_up("http://localhost:4318/v1/traces", "Ingress")


@pytest.mark.parametrize("where", ["spans", "on", ""])
def test_spans_go_to_a_place_that_is_the_same_for_every_process(where: str) -> None:
    with pytest.raises(ValidationError):
        Settings(traces=where)
