"""The proxy's memory: what a client sends beyond the ceiling isn't taken from the network."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from deployments.proxy import CALLBACK_VARIABLE, CEILING_VARIABLE, BodyCeiling, announce, middlewares
from deployments.settings import Settings

CHUNK_BYTES = 1000


async def nobody_listens(message: Any) -> None:
    raise AssertionError(message)


def test_a_body_is_read_up_to_the_ceiling() -> None:
    sent_bytes = 0

    async def client() -> dict[str, Any]:
        nonlocal sent_bytes
        sent_bytes += CHUNK_BYTES
        return {"type": "http.request", "body": bytes(CHUNK_BYTES), "more_body": True}

    async def greedy(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            await receive()

    async def scenario() -> None:
        async with asyncio.timeout(0.1):
            await BodyCeiling(greedy, largest_bytes=5 * CHUNK_BYTES)({"type": "http"}, client, nobody_listens)

    with pytest.raises(TimeoutError):
        asyncio.run(scenario())
    assert sent_bytes == 6 * CHUNK_BYTES  # one more than allowed, by which the ingress knows


def test_the_ceiling_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (CALLBACK_VARIABLE, CEILING_VARIABLE):
        monkeypatch.setenv(variable, "")  # put back after the test
    announce(Settings(largest_upload_bytes=5_000_000))
    (middleware,) = middlewares()
    assert middleware.kwargs == {"largest_bytes": 5_000_000}
