"""Keeps bodies beyond every limit out of the proxy's memory.

Serve's proxy takes in whatever a client sends, as fast as it comes, while the ingress is still counting. Serve asks the
function named in RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH for middlewares around its proxy; the launcher names ours.
"""

from __future__ import annotations

import asyncio
import os

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.settings import Settings

CALLBACK_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
CALLBACK = "deployments.proxy:middlewares"
CEILING_VARIABLE = "VOICE_SERVE_LARGEST_BODY_BYTES"


def announce(settings: Settings) -> None:
    """Let proxies that this process starts keep the ceiling of these settings."""
    os.environ.setdefault(CALLBACK_VARIABLE, CALLBACK)  # an operator may have a callback of their own
    os.environ[CEILING_VARIABLE] = str(max(settings.largest_body_bytes, settings.largest_upload_bytes))


def middlewares() -> list[Middleware]:
    """Return what stands around the proxy."""
    ceiling = os.environ.get(CEILING_VARIABLE, Settings().largest_upload_bytes)
    return [Middleware(BodyCeiling, largest_bytes=int(ceiling))]


class BodyCeiling:
    """Stops reading from a client who sends more than `largest_bytes`; the refusal comes from the ingress."""

    def __init__(self, app: ASGIApp, largest_bytes: int) -> None:
        self._app = app
        self._largest_bytes = largest_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passed_bytes = 0

        async def receive_up_to_ceiling() -> Message:
            nonlocal passed_bytes
            if passed_bytes > self._largest_bytes:
                await asyncio.Event().wait()  # until the answer is out and the request is over
            message = await receive()
            passed_bytes += len(message.get("body", b""))
            return message

        await self._app(scope, receive_up_to_ceiling, send)
