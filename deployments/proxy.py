"""Stands around Serve's proxy: keeps bodies beyond every limit out of its memory, and orders to Serve out of its ears.

Serve's proxy takes in whatever a client sends, bodies and sessions' messages, as fast as it comes, while the ingress is
still counting; and it lets a client's headers lift its timeout, keep a request alive that nobody waits for, and choose
the replica. Serve asks the function named in RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH for middlewares around its
proxy; the launcher names ours.
"""

from __future__ import annotations

import asyncio
import os

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.request_ids import REQUEST_ID_HEADER, is_request_id
from deployments.settings import Settings

CALLBACK_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
CALLBACK = "deployments.proxy:middlewares"
CEILING_VARIABLE = "VOICE_SERVE_LARGEST_BODY_BYTES"
SESSION_BODIES = 2  # that all messages of a session make up at most: one with a recording in it, and the text
SESSION_HEADER_VARIABLE = "RAY_SERVE_SESSION_ID_HEADER_KEY"  # Serve's: an operator may rename its header

# What Serve would obey; it takes - and _ for the same in the last two. A model id, once in, goes along to every
# deployment behind, and the synthesizer's batches fall apart by it.
STEERING_HEADERS = frozenset(
    {
        "x-request-timeout-seconds",
        "x-request-disconnect-disabled",
        "serve-multiplexed-model-id",
        os.environ.get(SESSION_HEADER_VARIABLE, "x-session-id").lower().replace("_", "-"),
    }
)


def announce(settings: Settings) -> None:
    """Let proxies that this process starts keep the ceiling of these settings."""
    os.environ.setdefault(CALLBACK_VARIABLE, CALLBACK)  # an operator may have a callback of their own
    os.environ[CEILING_VARIABLE] = str(_largest_bytes(settings))


def largest_session_bytes(settings: Settings) -> int:
    """Return how much a client may send in one session; the ingress counts too, for it is who tells the client."""
    return SESSION_BODIES * _largest_bytes(settings)


def _largest_bytes(settings: Settings) -> int:
    return max(settings.largest_body_bytes, settings.largest_upload_bytes)


def middlewares() -> list[Middleware]:
    """Return what stands around the proxy."""
    ceiling = os.environ.get(CEILING_VARIABLE, Settings().largest_upload_bytes)
    return [Middleware(BodyCeiling, largest_bytes=int(ceiling)), Middleware(NoSteering)]


class NoSteering:
    """Takes out the headers by which a client would steer Serve, and request ids that no log should hold."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "headers" in scope:
            scope = {**scope, "headers": harmless(scope["headers"])}
        await self._app(scope, receive, send)


def harmless(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers without those that steer; a request id stays if it is one and good, else Serve makes one."""
    ids = [value for name, value in headers if _plain(name) == REQUEST_ID_HEADER]
    keep_id = len(ids) == 1 and is_request_id(ids[0].decode("latin-1"))
    dropped = STEERING_HEADERS if keep_id else STEERING_HEADERS | {REQUEST_ID_HEADER}
    return [(name, value) for name, value in headers if _plain(name) not in dropped]


def _plain(name: bytes) -> str:
    return name.decode("latin-1").lower().replace("_", "-")


class BodyCeiling:
    """Stops reading from a client who sends more than `largest_bytes`; the refusal comes from the ingress."""

    def __init__(self, app: ASGIApp, largest_bytes: int) -> None:
        self._app = app
        self._largest_bytes = largest_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        largest_bytes = self._largest_bytes * (1 if scope["type"] == "http" else SESSION_BODIES)
        passed_bytes = 0

        async def receive_up_to_ceiling() -> Message:
            nonlocal passed_bytes
            if passed_bytes > largest_bytes:
                await asyncio.Event().wait()  # until the answer is out and the request is over
            message = await receive()
            passed_bytes += size_bytes(message)
            return message

        await self._app(scope, receive_up_to_ceiling, send)


def size_bytes(message: Message) -> int:
    """Return the size of what came: a piece of a body, or a message of a session."""
    content = message.get("body") or message.get("bytes") or message.get("text") or b""
    return len(content.encode(errors="replace") if isinstance(content, str) else content)
