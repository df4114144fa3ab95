"""Around the proxy: what a client sends beyond the ceiling isn't taken from the network, nor are orders to Serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import ray
from ray import serve
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from test_service import free_port

from deployments.proxy import (
    CALLBACK_VARIABLE,
    CEILING_VARIABLE,
    BodyCeiling,
    announce,
    harmless,
    largest_session_bytes,
    middlewares,
)
from deployments.settings import Settings

# Ray leaves sockets and subprocesses to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

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


def test_a_session_is_read_up_to_twice_the_ceiling_in_texts_and_bytes_together() -> None:
    sent = 0

    async def client() -> dict[str, Any]:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0)
        content = {"text": "\u00e9" * (CHUNK_BYTES // 2)} if sent % 2 else {"bytes": bytes(CHUNK_BYTES), "text": None}
        return {"type": "websocket.receive", **content}

    async def greedy(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            await receive()

    async def scenario() -> None:
        async with asyncio.timeout(0.1):
            await BodyCeiling(greedy, largest_bytes=5 * CHUNK_BYTES)({"type": "websocket"}, client, nobody_listens)

    with pytest.raises(TimeoutError):
        asyncio.run(scenario())
    assert sent == 11
    settings = Settings(largest_upload_bytes=5 * CHUNK_BYTES, largest_body_bytes=CHUNK_BYTES)
    assert largest_session_bytes(settings) == 10 * CHUNK_BYTES


def test_the_ceiling_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (CALLBACK_VARIABLE, CEILING_VARIABLE):
        monkeypatch.setenv(variable, "")  # put back after the test
    announce(Settings(largest_upload_bytes=5_000_000))
    assert {"largest_bytes": 5_000_000} in [middleware.kwargs for middleware in middlewares()]


@pytest.mark.parametrize(
    "ids",
    [["good", "good"], ["two words"], ["x" * 129], [""], ["caf\u00e9"]],
    ids=["twice", "two words", "too long", "empty", "not ASCII"],
)
def test_a_request_id_that_no_log_should_hold_is_taken_out(ids: list[str]) -> None:
    headers = [(b"x-request-id", value.encode("latin-1")) for value in ids]
    assert harmless([*headers, (b"accept", b"audio/wav")]) == [(b"accept", b"audio/wav")]


def test_a_good_request_id_stays() -> None:
    headers = [(b"x-request-id", b"4bf92f35-77b3:4da6")]
    assert harmless(headers) == headers


@pytest.mark.parametrize("name", [b"serve_multiplexed_model_id", b"Serve-Multiplexed-Model-Id", b"x_session_id"])
def test_a_header_that_steers_is_taken_out_however_it_is_spelt(name: bytes) -> None:
    assert harmless([(name, b"1")]) == []


TIMEOUT_SECONDS = 1.0  # of the proxy under test


def echo() -> serve.Application:
    """An application that tells what reached it, takes as long as it is told to, and counts what was cancelled."""

    @serve.deployment(ray_actor_options={"num_cpus": 0.1})
    class Echo:
        def __init__(self) -> None:
            self.cancelled = 0

        async def __call__(self, request: Request) -> dict[str, Any]:
            if request.url.path == "/cancelled":
                return {"cancelled": self.cancelled}
            try:
                await asyncio.sleep(float(request.query_params.get("seconds", 0)))
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            return {"headers": sorted(request.headers.keys()), "model_id": serve.get_multiplexed_model_id()}

    return Echo.bind()  # type: ignore[attr-defined, no-any-return]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A real proxy with our middlewares around it, and with a timeout that a client would like to lift."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in (CALLBACK_VARIABLE, CEILING_VARIABLE):
            patch.setenv(variable, "")
            patch.delenv(variable)
        announce(Settings())
        ray.init(
            address="local", num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False
        )
        port = free_port()
        serve.start(http_options={"host": "127.0.0.1", "port": port, "request_timeout_s": TIMEOUT_SECONDS})
        serve.run(echo(), name="echo")
        yield f"http://127.0.0.1:{port}"
        serve.shutdown()
        ray.shutdown()


def test_a_client_cant_lift_the_proxys_timeout(url: str) -> None:
    headers = {"x-request-timeout-seconds": "0"}
    answer = httpx.get(url, params={"seconds": 3 * TIMEOUT_SECONDS}, headers=headers, timeout=30)
    assert answer.status_code == 408


def test_a_client_cant_keep_a_request_alive_that_it_has_left(url: str) -> None:
    before = httpx.get(f"{url}/cancelled").json()["cancelled"]
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(url, params={"seconds": 60}, headers={"x-request-disconnect-disabled": "?1"}, timeout=0.3)
    deadline = time.monotonic() + 0.6 * TIMEOUT_SECONDS  # sooner than the proxy's own timeout would end it
    while httpx.get(f"{url}/cancelled").json()["cancelled"] == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_client_cant_choose_the_replica(url: str) -> None:
    steering = {"serve_multiplexed_model_id": "m", "x-session-id": "\u00e9".encode("latin-1")}  # no UTF-8: was a 500
    answer = httpx.get(url, headers=steering)
    told = answer.json()
    assert told["model_id"] == ""
    assert {"serve_multiplexed_model_id", "x-session-id"}.isdisjoint(told["headers"])


def test_a_good_request_id_comes_back_once_and_another_is_replaced(url: str) -> None:
    assert httpx.get(url, headers={"X-Request-ID": "mine-1"}).headers.get_list("x-request-id") == ["mine-1"]
    (replaced,) = httpx.get(url, headers={"X-Request-ID": "not mine"}).headers.get_list("x-request-id")
    assert replaced not in ("", "not mine")
