"""`GET /status`: the service at a glance, a page for people and the same as JSON for programs."""

from __future__ import annotations

import html
import importlib.metadata
import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from deployments.body import JSON, accepted_types
from deployments.door import Door

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="10">
<title>voice-serve: {title}</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }}
  th {{ text-align: left; font-weight: 600; padding-right: 2rem; vertical-align: top; }}
  table {{ border-collapse: collapse; margin-bottom: 2rem; }}
  @media (prefers-color-scheme: dark) {{ body {{ background: #111; color: #eee; }} }}
</style>
<h1>{title}</h1>
{tables}
</html>
"""


def version() -> str:
    """Return the package's; a checkout that isn't installed has none."""
    try:
        return importlib.metadata.version("voice-serve")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def ingress_status(door: Door, started_at: float) -> dict[str, Any]:
    """Return what one ingress knows of itself; `started_at` is on time.time's clock."""
    return {
        "uptime_seconds": round(time.time() - started_at),
        "requests_in_flight": door.requests_inside,
        "speech_seconds_in_flight": round(door.seconds_in_flight, 1),
        "rows_in_flight": door.rows_inside,
        "rows": door.capacity.rows,
        "capacity_seconds_per_second": round(door.capacity.seconds_per_second, 2),
    }


def status_answer(request: Request, document: Mapping[str, Any]) -> Response:
    """Return the page, or JSON to whoever accepts that and no HTML."""
    accepted = accepted_types(request)
    if JSON in accepted and "text/html" not in accepted:
        return JSONResponse(document)
    title = "ready" if document["ready"] else f"not ready: {document['reason']}"
    tables = "\n".join(_table(name, part) for name, part in document.items() if isinstance(part, Mapping))
    return HTMLResponse(PAGE.format(title=html.escape(title), tables=tables))


def _table(name: str, part: Mapping[str, Any]) -> str:
    rows = "\n".join(f"<tr><th>{_words(key)}</th><td>{_shown(value)}</td></tr>" for key, value in part.items())
    return f"<h2>{_words(name)}</h2>\n<table>\n{rows}\n</table>"


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(str(key))}: {_shown(one)}" for key, one in value.items())
    return html.escape(str(value))


def _words(name: str) -> str:
    return html.escape(name.replace("_", " "))
