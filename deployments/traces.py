"""Traces: how long which part of a request took, in OpenTelemetry's terms, across processes.

Off by default, and then nothing of OpenTelemetry is imported. A caller's `traceparent` (W3C) is joined; from the
ingress it travels with every call. Serve's own `tracing_config` tells of proxies and handles and knows nothing of rows;
ours stands beside it and needs neither it nor Ray's dashboard.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.logs import told
from voice_core.errors import SettingError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

OFF = "off"
SERVICE = "voice-serve"
TRACEPARENT = "traceparent"

_tracer: Tracer | None = None  # of this process; one process is one replica


def set_up(where: str, deployment: str) -> None:
    """Send the spans of this process to a folder or a collector; "off" is nowhere. Raises SettingError."""
    global _tracer  # noqa: PLW0603
    if where == OFF:
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": SERVICE, "service.instance.id": deployment}))
    provider.add_span_processor(BatchSpanProcessor(_exporter(where, deployment)))
    _tracer = provider.get_tracer(SERVICE)


@contextmanager
def span(name: str, parent: str | None = None, **attributes: str | float) -> Iterator[None]:
    """Time what happens inside. `parent` is a traceparent of another process; else it is the span that is open here."""
    if _tracer is None:
        yield
        return
    from opentelemetry.trace import Status, StatusCode

    # By itself a span keeps what an error says, and that may quote a request.
    with _tracer.start_as_current_span(
        name,
        context=_context(parent),
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as opened:
        try:
            yield
        except Exception as error:
            opened.set_status(Status(StatusCode.ERROR, told(error)))
            raise


def phases(timed: Mapping[str, tuple[float, float]]) -> None:
    """Tell parts of the open span that were timed elsewhere, by time.time's clock."""
    if _tracer is None:
        return
    for name, (start, end) in timed.items():
        _tracer.start_span(name, start_time=_nanoseconds(start)).end(_nanoseconds(end))


def traceparent() -> str | None:
    """Return the open span as another process takes it; None where nothing is traced."""
    if _tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(TRACEPARENT)


def _context(parent: str | None) -> Context | None:
    if parent is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({TRACEPARENT: parent})  # what is no traceparent begins a trace


def _exporter(where: str, deployment: str) -> SpanExporter:
    if where.startswith(("http://", "https://")):
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError:
            reason = f"traces: {where} needs opentelemetry-exporter-otlp-proto-http; pip install 'voice-serve[traces]'"
            raise SettingError(reason) from None
        exporter: Any = OTLPSpanExporter(endpoint=where)
        return exporter  # type: ignore[no-any-return]
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    folder = Path(where).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / f"{deployment}-{os.getpid()}.jsonl").open("a", encoding="utf-8")
    except OSError as error:
        raise SettingError(f"traces: {folder} can't be written to: {error}") from error
    return ConsoleSpanExporter(out=file, formatter=lambda span: span.to_json(indent=None) + "\n")


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
