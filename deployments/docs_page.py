"""The API's description for people: one page without scripts or outside resources, and the document it is made of."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from deployments.openapi import PATH, document
from deployments.settings import Settings

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#ddd, #444); --quiet: light-dark(#555, #aaa); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); }
h3 code { font-size: 1.1em; } h3 { margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; display: block; overflow-x: auto; }
td, th { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); }
td:first-child, .kind { white-space: nowrap; } .kind { color: var(--quiet); font-size: .9em; white-space: normal; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
nav { columns: 16rem; } nav div { break-inside: avoid; }
"""


class Docs:
    """Serves the description, in JSON and as a page; it is made once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: dict[str, Any] | None = None
        self._page = ""

    async def document(self, request: Request) -> Response:
        return JSONResponse(self._document(request))

    async def page(self, request: Request) -> Response:
        self._page = self._page or page(self._document(request))
        return HTMLResponse(self._page, headers={"Content-Security-Policy": POLICY})

    def _document(self, request: Request) -> dict[str, Any]:
        self._made = self._made or document(request.app.routes, self._settings)
        return self._made


def page(description: dict[str, Any]) -> str:
    """Return the page. Its links are relative, so it works behind any prefix."""
    return "\n".join(_lines(description))


def _lines(description: dict[str, Any]) -> Iterator[str]:
    info = description["info"]
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{_text(info['title'])} API</title><style>{STYLE}</style></head><body>"
    yield f"<h1>{_text(info['title'])} {_text(info['version'])}</h1>{_paragraphs(info['description'])}"
    yield f'<p><a href="{PATH.lstrip("/")}">This description in OpenAPI {description["openapi"]}</a></p><nav>'
    operations = [
        (method.upper(), path, operation)
        for path, of_path in description["paths"].items()
        for method, operation in of_path.items()
    ]
    for method, path, operation in operations:
        yield f'<div><a href="#{operation["operationId"]}"><code>{method} {_text(path)}</code></a></div>'
    yield "</nav>"
    for tag in dict.fromkeys(operation["tags"][0] for _, _, operation in operations):
        yield f"<h2>{_text(tag.capitalize())}</h2>"
        for method, path, operation in operations:
            if operation["tags"][0] == tag:
                yield f'<h3 id="{operation["operationId"]}"><code>{method} {_text(path)}</code></h3>'
                yield from _operation(operation, description["components"])
    yield "<h2>Objects</h2>"
    for name, schema in description["components"]["schemas"].items():
        yield f'<h3 id="{name}"><code>{name}</code></h3>{_paragraphs(schema.get("description", ""))}'
        yield from _fields(schema)
    yield "</body></html>"


def _operation(operation: dict[str, Any], components: dict[str, Any]) -> Iterator[str]:
    yield f"<p>{_rich(operation['summary'])}.</p>{_paragraphs(operation.get('description', ''))}"
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        named = f": {_kind(content['schema'])}" if "$ref" in content["schema"] else ""
        yield f"<p>Body, <code>{media_type}</code>{named}</p>"
        yield from _fields(content["schema"])
    yield "<table><tr><th>Status</th><th>Answer</th></tr>"
    for status, answer in operation["responses"].items():
        if "$ref" in answer:
            known = components["responses"][answer["$ref"].rpartition("/")[2]]
            yield f"<tr><td>{status}</td><td>{_rich(known['description'])}{_headers(known)}</td></tr>"
            continue
        for media_type, content in answer["content"].items():
            about = _rich(content["schema"].get("description", "")) or _kind(content["schema"])
            yield f"<tr><td>{status}</td><td><code>{media_type}</code> {about}</td></tr>"
        if "headers" in answer:
            yield f"<tr><td>{status}</td><td>Headers{_headers(answer)}</td></tr>"
    yield "</table>"


def _headers(answer: dict[str, Any]) -> str:
    headers = [
        f"<br><code>{name}</code> {_rich(header['description'])}" for name, header in answer.get("headers", {}).items()
    ]
    return "".join(headers)


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    if not schema.get("properties"):
        return
    yield "<table><tr><th>Field</th><th>Kind</th><th>Default</th><th>Meaning</th></tr>"
    for name, of_field in schema["properties"].items():
        default = "required" if name in schema.get("required", []) else _default(of_field)
        meaning = _rich(of_field.get("description", ""))
        yield f'<tr><td><code>{name}</code></td><td class="kind">{_kind(of_field)}</td>'
        yield f"<td>{default}</td><td>{meaning}</td></tr>"
    yield "</table>"


def _default(schema: dict[str, Any]) -> str:
    return f"<code>{_text(json.dumps(schema['default']))}</code>" if schema.get("default") is not None else "none"


def _kind(schema: dict[str, Any]) -> str:
    """Return what values a schema takes, in few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{name}">{name}</a>'
    if choices := schema.get("anyOf"):
        return " or ".join(_kind(choice) for choice in choices if choice.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return ", ".join(f"<code>{_text(str(value))}</code>" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    kind = schema.get("contentEncoding") or ("file" if "contentMediaType" in schema else schema.get("type", "bytes"))
    return " ".join([_text(kind), *_limits(schema)])


def _limits(schema: dict[str, Any]) -> Iterator[str]:
    signs = {"minimum": "≥", "exclusiveMinimum": "&gt;", "maximum": "≤", "exclusiveMaximum": "&lt;"}
    yield from (f"{sign}&nbsp;{schema[key]:,}" for key, sign in signs.items() if key in schema)
    if "maxLength" in schema:
        yield f"≤&nbsp;{schema['maxLength']} characters"


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_rich(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph)


def _rich(text: str) -> str:
    """Return a text with what stands in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))


def _text(text: str) -> str:
    return html.escape(text)
