"""Reads the body of a request without letting it grow beyond the limit: JSON, or a form with files."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TypeVar

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header
from starlette.requests import Request

from deployments.errors import ApiError
from voice_core.errors import RequestError

JSON = "application/json"
FORM = "multipart/form-data"
MOST_FIELDS = 32
LONGEST_TOLD_NAME = 100  # characters of a field's name in an error

Content = TypeVar("Content")


@dataclass(frozen=True)
class Form:
    """The fields of a multipart body: texts, and the contents of files."""

    texts: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def put(self, kept: dict[str, Content], name: str, content: Content) -> None:
        """Keep a field, text or file; each name may come once."""
        if name in self.texts or name in self.files:
            raise RequestError(name[:LONGEST_TOLD_NAME], "is given twice")
        if len(self.texts) + len(self.files) == MOST_FIELDS:
            raise RequestError("body", f"has more than {MOST_FIELDS} fields")
        kept[name] = content


def accepted_types(request: Request) -> set[str]:
    """Return the types of an answer that the request's Accept names, without those that it excludes (q=0)."""
    accepted = set()
    for one in request.headers.get("accept", "").lower().split(","):
        kind, *parameters = (part.strip() for part in one.split(";"))
        if not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters):
            accepted.add(kind)
    return accepted


def content_type(request: Request) -> str:
    """Return what the body is said to be; JSON where nothing is said."""
    return request.headers.get("content-type", JSON).partition(";")[0].strip().lower()


def require_content_type(request: Request, *accepted: str) -> None:
    """Refuse a body that is said to be something else."""
    if content_type(request) not in accepted:
        message = f"content type {content_type(request)[:100]!r} is not read here; send {' or '.join(accepted)}"
        raise ApiError(415, message, code="unsupported_media_type")


async def read_body(request: Request, *, largest_bytes: int) -> bytes:
    """Return the body if it is small enough, by its header and by what really comes."""
    announced_bytes = request.headers.get("content-length", "0")
    if announced_bytes.isdecimal() and int(announced_bytes) > largest_bytes:
        raise too_large(largest_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > largest_bytes:
            raise too_large(largest_bytes)
    return bytes(body)


async def read_form(request: Request, *, largest_bytes: int) -> Form:
    """Return the fields of a multipart body; a RequestError for one that can't be taken apart."""
    body = await read_body(request, largest_bytes=largest_bytes)
    return await asyncio.to_thread(parse_form, request.headers.get("content-type", ""), body)


def parse_form(content_type: str, body: bytes) -> Form:
    """Take a multipart body apart, in memory: no file is written."""
    form = Form()
    complete = False

    def take_text(text: Field) -> None:
        form.put(form.texts, _decoded(text.field_name), _decoded(text.value))

    def take_file(file: File) -> None:
        file.file_object.seek(0)
        form.put(form.files, _decoded(file.field_name), file.file_object.read())

    def end() -> None:
        nonlocal complete
        complete = True

    _, options = parse_options_header(content_type)
    try:
        config = {"MAX_MEMORY_FILE_SIZE": len(body) + 1}
        parser = FormParser(FORM, take_text, take_file, end, options.get(b"boundary"), config=config)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RequestError("body", f"is no multipart form: {error}") from error
    if not complete:
        raise RequestError("body", "is no whole multipart form: its last boundary is missing")
    return form


def too_large(largest_bytes: int) -> ApiError:
    return ApiError(413, f"the body is larger than {largest_bytes} bytes", code="request_too_large")


def _decoded(text: bytes | None) -> str:
    try:
        return (text or b"").decode()
    except UnicodeDecodeError as error:
        raise RequestError("body", "is no multipart form in UTF-8") from error
