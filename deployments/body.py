"""Reads the body of a request without letting it grow beyond the limit."""

from __future__ import annotations

from starlette.requests import Request

from deployments.errors import ApiError


async def read_json_body(request: Request, *, largest_bytes: int) -> bytes:
    """Return the body if it is said to be JSON and small enough, by its header and by what really comes."""
    content_type = request.headers.get("content-type", "application/json")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        message = f"content type {content_type[:100]!r} is not read here; send application/json"
        raise ApiError(415, message, code="unsupported_media_type")
    announced_bytes = request.headers.get("content-length", "0")
    if announced_bytes.isdecimal() and int(announced_bytes) > largest_bytes:
        raise _too_large(largest_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > largest_bytes:
            raise _too_large(largest_bytes)
    return bytes(body)


def _too_large(largest_bytes: int) -> ApiError:
    return ApiError(413, f"the body is larger than {largest_bytes} bytes", code="request_too_large")
