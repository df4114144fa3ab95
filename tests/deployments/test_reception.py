"""Around the HTTP interface: keys, deadlines, slow bodies, and what is told of a request afterwards."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayActorError, TaskCancelledError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from deployments import metrics
from deployments.errors import ApiError, error_response
from deployments.keys import new_key
from deployments.metrics import Tally
from deployments.reception import Reception, is_open
from deployments.settings import Settings
from deployments.visit import current_visit
from voice_core.errors import SynthesisError


async def speech(request: Request) -> Response:
    """Take as long as the body says, as the request lets itself."""
    try:
        wanted = json.loads(await request.body())
    except (ApiError, ClientDisconnect) as error:
        return error_response(request, error)
    visit = current_visit()
    visit.end_after(wanted.get("timeout_seconds"))
    await asyncio.sleep(wanted.get("seconds", 0))
    visit.audio_seconds += wanted.get("audio_seconds", 0)
    return JSONResponse({"visit": visit.id, "key": visit.key and visit.key.name})


async def stream(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.sleep(60)
        yield b"last"

    return StreamingResponse(pieces())


BROKEN = {"bug": ValueError("a bug"), "died": RayActorError(), "memory": SynthesisError("no memory left", True)}


async def broken(request: Request) -> Response:
    """Fail in mid-stream, as the query says."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        raise BROKEN[request.query_params["by"]]

    return StreamingResponse(pieces())


async def simple(request: Request) -> Response:
    return Response("ok")


async def session(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(current_visit().id)
    await socket.receive_text()


def interface(settings: Settings) -> Starlette:
    return Starlette(
        routes=[
            Route("/v1/audio/speech", speech, methods=["POST"]),
            Route("/v1/audio/voices/{voice_id}", simple),
            Route("/stream", stream),
            Route("/broken", broken),
            *(Route(path, simple) for path in ("/", "/healthz", "/readyz", "/page/{name}", "/v1/models")),
            WebSocketRoute("/v1/audio/speech/stream", session),
        ],
        middleware=[Middleware(Reception, settings=settings)],
    )


@pytest.fixture
def tally() -> Iterator[Tally]:
    kept = Tally()
    metrics.use(kept)
    yield kept
    metrics.use(Tally())


@pytest.fixture
def client(tally: Tally) -> TestClient:
    return TestClient(interface(Settings(longest_request_seconds=0.3, longest_upload_seconds=0.2)))


@pytest.fixture
def key_and_client(tally: Tally, tmp_path: Path) -> tuple[str, TestClient]:
    key, line = new_key("ann")
    file = tmp_path / "keys"
    file.write_text(line)
    return key, TestClient(interface(Settings(api_keys=str(file))))


def error(answer: Any) -> dict[str, Any]:
    envelope: dict[str, Any] = answer.json()["error"]
    return envelope


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic Og=="},
        {"Authorization": "Bearer "},
        {"Authorization": b"Bearer \xe9\xff"},
    ],
)
def test_without_a_known_key_the_answer_is_401_in_openais_envelope(
    key_and_client: tuple[str, TestClient], headers: dict[str, str]
) -> None:
    _, client = key_and_client
    answer = client.post("/v1/audio/speech", json={}, headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    told = error(answer)
    assert (told["code"], told["type"], told["param"]) == ("invalid_api_key", "invalid_request_error", None)


def test_with_a_key_a_request_is_its_owners(key_and_client: tuple[str, TestClient]) -> None:
    key, client = key_and_client
    answer = client.post("/v1/audio/speech", json={}, headers={"Authorization": f"Bearer {key}"})
    assert answer.json()["key"] == "ann"


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/page/page.js"])
def test_probes_and_the_page_need_no_key(key_and_client: tuple[str, TestClient], path: str) -> None:
    assert key_and_client[1].get(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/models", "/docs", "/healthz/", "/page", "/nowhere", "/v1/audio/voices/x", "/readyz/x"]
)
def test_everything_else_does(key_and_client: tuple[str, TestClient], path: str) -> None:
    assert key_and_client[1].get(path, follow_redirects=False).status_code == 401


def test_a_websocket_without_a_key_is_refused_at_the_handshake(key_and_client: tuple[str, TestClient]) -> None:
    key, client = key_and_client
    with pytest.raises(WebSocketDisconnect) as refusal, client.websocket_connect("/v1/audio/speech/stream"):
        pass
    assert refusal.value.code == 1008
    headers = {"Authorization": f"Bearer {key}"}
    with client.websocket_connect("/v1/audio/speech/stream", headers=headers) as socket:
        assert socket.receive_text()
        socket.send_text("enough")


def test_the_servers_cap_ends_a_request_with_408(client: TestClient, tally: Tally) -> None:
    answer = client.post("/v1/audio/speech", json={"seconds": 5})
    assert (answer.status_code, error(answer)["code"]) == (408, "deadline_exceeded")
    assert answer.headers["x-should-retry"] == "false"
    assert tally["voice_rejected_total", "deadline"] == 1
    assert tally["voice_requests_total", "/v1/audio/speech", "408"] == 1


def test_a_request_may_shorten_its_time_and_not_lengthen_it(client: TestClient) -> None:
    begun = time.monotonic()
    assert client.post("/v1/audio/speech", json={"seconds": 5, "timeout_seconds": 0.05}).status_code == 408
    assert time.monotonic() - begun < 0.25
    assert client.post("/v1/audio/speech", json={"seconds": 0.5, "timeout_seconds": 60}).status_code == 408
    assert client.post("/v1/audio/speech", json={"seconds": 0.1, "timeout_seconds": 0.25}).status_code == 200


def test_an_answer_that_has_begun_is_cut_when_its_time_is_up(client: TestClient, tally: Tally) -> None:
    with pytest.raises(ApiError, match=r"0\.3 s"):
        client.get("/stream")
    assert tally["voice_requests_total", "/stream", "408"] == 1  # although it began with 200


@pytest.mark.parametrize(("by", "status"), [("bug", "500"), ("died", "503"), ("memory", "503")])
def test_an_answer_that_breaks_off_is_counted_by_what_broke_it(
    client: TestClient, tally: Tally, by: str, status: str
) -> None:
    with pytest.raises(type(BROKEN[by])):
        client.get("/broken", params={"by": by})
    assert tally["voice_requests_total", "/broken", status] == 1  # although it began with 200


def test_a_websocket_whose_time_is_up_is_closed(client: TestClient) -> None:
    with client.websocket_connect("/v1/audio/speech/stream") as socket:
        assert socket.receive_text()
        assert socket.receive_json()["error"]["code"] == "deadline_exceeded"
        with pytest.raises(WebSocketDisconnect) as end:
            socket.receive_text()
    assert end.value.code == 1008


def test_a_body_that_trickles_is_refused_with_408() -> None:
    sent: list[Message] = []

    async def scenario() -> None:
        async def client() -> Message:
            await asyncio.sleep(0.05)
            return {"type": "http.request", "body": b"{", "more_body": True}

        async def keep(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/audio/speech", "headers": [], "query_string": b""}
        await interface(Settings(longest_upload_seconds=0.2))(scope, client, keep)

    begun = time.monotonic()
    asyncio.run(scenario())
    assert time.monotonic() - begun < 2
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["error"]["code"] == "upload_timeout"


def test_a_proxy_that_has_let_go_of_its_client_is_a_client_who_left(tally: Tally) -> None:
    """Serve's proxy cancels the call by which we ask it for the body; that is no bug of ours."""

    async def proxy() -> Message:
        raise TaskCancelledError

    async def nobody(message: Message) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": "/v1/audio/speech", "headers": [], "query_string": b""}
    asyncio.run(interface(Settings())(scope, proxy, nobody))
    assert tally["voice_requests_total", "/v1/audio/speech", "499"] == 1


def test_a_client_who_leaves_in_the_middle_of_an_answer_is_counted_as_one_who_left(tally: Tally) -> None:
    async def run() -> None:
        begun = asyncio.Event()

        async def receive() -> Message:
            await begun.wait()
            await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            begun.set()

        scope = {"type": "http", "method": "GET", "path": "/stream", "headers": [], "query_string": b""}
        answering = asyncio.create_task(interface(Settings())(scope, receive, send))
        await begun.wait()
        answering.cancel()
        await asyncio.wait({answering})

    asyncio.run(run())
    assert tally["voice_requests_total", "/stream", "499"] == 1


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_a_response_that_hears_of_it_and_ends_is_counted_as_one_whose_client_left(
    tally: Tally, spec_version: str
) -> None:
    async def run() -> None:
        begun = asyncio.Event()

        async def receive() -> Message:
            await begun.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            begun.set()
            if spec_version == "2.4" and message["type"] == "http.response.body":
                raise OSError("the connection is closed")

        scope = {"type": "http", "method": "GET", "path": "/stream", "headers": [], "query_string": b""}
        with suppress(ClientDisconnect):
            await interface(Settings())(scope | {"asgi": {"spec_version": spec_version}}, receive, send)

    asyncio.run(run())
    assert tally["voice_requests_total", "/stream", "499"] == 1


def test_under_a_prefix_probes_stay_quiet_and_the_page_open(
    key_and_client: tuple[str, TestClient], caplog: pytest.LogCaptureFixture
) -> None:
    _, client = key_and_client
    prefixed = TestClient(client.app, root_path="/voice")
    with caplog.at_level(logging.INFO, "ray.serve"):
        assert prefixed.get("/voice/healthz").status_code == 200
    assert "healthz" not in caplog.text
    assert is_open("")


def test_a_good_request_id_is_kept_and_another_is_replaced(client: TestClient) -> None:
    def visit(sent: str) -> Any:
        return client.post("/v1/audio/speech", json={}, headers={"X-Request-ID": sent}).json()["visit"]

    assert visit("mine-1") == "mine-1"
    assert visit("not mine") != "not mine"


def test_routes_are_counted_by_their_templates(client: TestClient, tally: Tally) -> None:
    for path in ("/v1/audio/voices/ann", "/v1/audio/voices/bob", "/nowhere/1", "/nowhere/2"):
        client.get(path)
    client.post("/v1/models")
    assert tally["voice_requests_total", "/v1/audio/voices/{voice_id}", "200"] == 2
    assert tally["voice_requests_total", "unknown", "404"] == 2
    assert tally["voice_requests_total", "/v1/models", "405"] == 1


def test_a_request_for_speech_is_timed(client: TestClient, tally: Tally) -> None:
    client.post("/v1/audio/speech", json={"audio_seconds": 2})
    client.get("/healthz")
    assert dict(tally.observed) == {
        "voice_audio_ttfp_seconds": 1,
        "voice_audio_e2e_seconds": 1,
        "voice_audio_rtf": 1,
    }


def test_one_line_is_told_of_a_request_and_none_of_probes(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        client.post("/v1/audio/speech", json={}, headers={"X-Request-ID": "mine-1"})
        client.get("/healthz")
    (line,) = [record for record in caplog.records if record.name == "ray.serve"]
    assert line.getMessage() == "POST /v1/audio/speech 200"
    fields = line.ray_serve_extra_fields  # type: ignore[attr-defined]
    assert (fields["visit"], fields["status"]) == ("mine-1", 200)


EVIL = {"Origin": "https://evil.example"}
CROSS_SITE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}


@pytest.mark.parametrize(
    "headers",
    [
        EVIL,
        CROSS_SITE,
        {"Sec-Fetch-Site": "same-site", "Origin": "http://testserver:3000"},  # a page on another port
        {"Origin": "http://testserver:3000"},
        {"Origin": "null"},  # a page in a sandbox
        {"Origin": "null", "Host": ""},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Origin": "http://testserver"},  # a form
        EVIL | {"X-Forwarded-Host": "testserver, evil.example"},
    ],
)
def test_what_a_page_of_another_origin_sends_is_refused(
    client: TestClient, tally: Tally, headers: dict[str, str]
) -> None:
    answer = client.post("/v1/audio/speech", json={}, headers=headers)
    assert (answer.status_code, error(answer)["code"]) == (403, "origin_not_allowed")
    assert tally["voice_rejected_total", "origin"] == 1
    with (
        pytest.raises(WebSocketDisconnect) as refusal,
        client.websocket_connect("/v1/audio/speech/stream", headers=headers),
    ):
        pass
    assert refusal.value.code == 1008


@pytest.mark.parametrize(
    "headers",
    [
        {},  # no browser
        {"Origin": "http://testserver"},
        {"Origin": "https://TestServer", "Host": "testserver:443"},
        {"Origin": "https://voice.example", "X-Forwarded-Host": "voice.example, inner:8000"},  # a proxy changed Host
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://voice.example"},  # and kept nothing
        {"Sec-Fetch-Site": "none", "Origin": "chrome-extension://abc"},  # one that may ask us
    ],
)
def test_what_our_own_page_sends_and_who_is_no_page_is_let_in(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/v1/audio/speech", json={}, headers=headers).status_code == 200
    with client.websocket_connect("/v1/audio/speech/stream", headers=headers) as socket:
        assert socket.receive_text()
        socket.send_text("enough")


def test_a_link_from_another_page_leads_to_ours(client: TestClient) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200
    assert client.get("/", headers=CROSS_SITE).status_code == 403


def test_a_key_lets_in_from_wherever_it_is_sent(key_and_client: tuple[str, TestClient]) -> None:
    key, client = key_and_client
    assert client.post("/v1/audio/speech", json={}, headers=EVIL).status_code == 401
    sent = EVIL | {"Authorization": f"Bearer {key}"}
    assert client.post("/v1/audio/speech", json={}, headers=sent).status_code == 200
