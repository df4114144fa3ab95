"""Around the whole HTTP interface: who comes, with which key, for how long; and what is told of it afterwards."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path

from ray.exceptions import RayError
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from deployments import metrics, traces
from deployments.errors import CLIENT_LEFT, ApiError, api_error, close_code, deadline_exceeded
from deployments.keys import KeyRing
from deployments.logs import tell
from deployments.request_ids import REQUEST_ID_HEADER, is_request_id, new_request_id
from deployments.settings import Settings
from deployments.visit import Visit, enter

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz"})  # no key is asked for: probes have none, and the page asks for it
OPEN_FOLDER = "/page/"  # the page's own files
QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds: told to who wants to know
SPEECH = "/v1/audio/speech"
UNKNOWN_ROUTE = "unknown"
OWN_SITES = ("same-origin", "none")  # of Sec-Fetch-Site; none: a person's own doing, or a browser's extension's
DEFAULT_PORTS = {"http": ":80", "https": ":443"}  # which an Origin leaves out, and a Host may spell out

REJECTIONS = {  # by the code in the envelope: the reason under which a refusal is counted
    "overloaded": "overload",
    "rate_limit_exceeded": "key_limit",
    "invalid_api_key": "key",
    "priority_not_allowed": "key",
    "origin_not_allowed": "origin",
    "deadline_exceeded": "deadline",
    "upload_timeout": "upload",
    "request_too_large": "size",
    "not_ready": "not_ready",
}


class Reception:
    """An ASGI middleware: each request is a visit, with a key where keys are asked for, and ends in time."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._keys = KeyRing(Path(settings.api_keys).expanduser()) if settings.api_keys else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        sent_id = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        visit = Visit(id=sent_id if is_request_id(sent_id) else new_request_id())
        enter(visit)
        answer = Answer(scope, send)
        try:
            await self._host(visit, scope, receive, answer)
            if scope["type"] == "http" and answer.broken_off and visit.error_status is None:
                answer.status = CLIENT_LEFT  # a response ends by itself when it hears of that
        except (asyncio.CancelledError, ClientDisconnect, WebSocketDisconnect):
            if not answer.complete:
                answer.status = CLIENT_LEFT
            raise
        except Exception as error:
            if answer.broken_off and visit.error_status is None:
                api_error(HTTPConnection(scope), error).note()
            raise
        finally:
            self._tell(visit, scope, answer)

    async def _host(self, visit: Visit, scope: Scope, receive: Receive, answer: Answer) -> None:
        """Let the request in; whatever ends it before its answer has begun is told in OpenAI's envelope."""
        longest_seconds = self._settings.longest_request_seconds
        try:
            self._check_key(visit, scope)
            if self._keys is None:  # or else no page has one that its visitor didn't give it
                check_origin(scope)
            async with asyncio.timeout(None) as visit.timeout:
                visit.end_after(longest_seconds)
                incoming = Incoming(scope, receive)
                upload = Upload(incoming, self._settings.longest_upload_seconds)
                with traces.span("request", Headers(scope=scope).get(traces.TRACEPARENT), visit=visit.id):
                    await self._app(scope, upload if scope["type"] == "http" else incoming, answer)
        except ApiError as error:
            await answer.refuse(error, receive)
        except TimeoutError:
            if visit.timeout is None or not visit.timeout.expired():
                raise
            await answer.refuse(deadline_exceeded(visit.until - visit.arrived), receive)

    def _check_key(self, visit: Visit, scope: Scope) -> None:
        if self._keys is None or (scope["type"] == "http" and is_open(_path(scope))):
            return
        scheme, _, sent = Headers(scope=scope).get("authorization", "").partition(" ")
        visit.key = self._keys.find(sent.strip()) if scheme.lower() == "bearer" else None
        if visit.key is None:
            reason = "this API key is not known here" if sent else "an API key is needed: Authorization: Bearer <key>"
            raise ApiError(401, reason, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _tell(self, visit: Visit, scope: Scope, answer: Answer) -> None:
        seconds = time.monotonic() - visit.arrived
        route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)  # a template: ids in paths are no labels
        status = visit.error_status or answer.status or 500  # a stream that breaks off had begun with 200
        method = scope.get("method", "WS")
        metrics.count("voice_requests_total", route=route, status=str(status))
        if (reason := REJECTIONS.get(visit.code or "")) is not None:
            metrics.count("voice_rejected_total", reason=reason)
        first = answer.first_byte_at and answer.first_byte_at - visit.arrived
        if route.startswith(SPEECH) and status == 200 and first is not None and visit.audio_seconds:
            metrics.observe("voice_audio_ttfp_seconds", first, route=route)
            metrics.observe("voice_audio_e2e_seconds", seconds, route=route)
            metrics.observe("voice_audio_rtf", seconds / visit.audio_seconds, route=route)
        tell(
            f"{method} {route} {status}",
            logging.DEBUG if _path(scope) in QUIET_PATHS else logging.INFO,
            visit=visit.id,
            route=route,
            status=status,
            seconds=round(seconds, 4),
            first_byte_seconds=first and round(first, 4),
            audio_seconds=round(visit.audio_seconds, 3) or None,
            key=visit.key and visit.key.name,
            code=visit.code,
        )


class Answer:
    """What is sent back: passes it on, and remembers how it went."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self.status: int | None = None
        self.complete = False
        self.first_byte_at: float | None = None

    @property
    def broken_off(self) -> bool:
        return self.status is not None and not self.complete

    async def __call__(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start":
                self.status = message["status"]
            case "http.response.body" if self.first_byte_at is None and message.get("body"):
                self.first_byte_at = time.monotonic()
            case "websocket.accept":
                self.status = 101
            case "websocket.close" if self.status is None:
                self.status = 403
        await self._send(message)
        self.complete = message["type"] == "websocket.close" or (
            message["type"] == "http.response.body" and not message.get("more_body", False)
        )

    async def refuse(self, error: ApiError, receive: Receive) -> None:
        """Answer with an error; after an answer has begun, all that is left is to cut it short."""
        if self._scope["type"] == "websocket":
            told = {"type": "error", **error.envelope()}
            if self.status == 101:
                await self._send({"type": "websocket.send", "text": json.dumps(told)})
            reason = error.message[:100]
            await self._send({"type": "websocket.close", "code": close_code(error.status), "reason": reason})
            self.status = self.status or error.status
        elif self.status is not None:
            error.note()
            raise error
        else:
            await error.response()(self._scope, receive, self)


class Incoming:
    """What a client sends, through Serve's proxy; a proxy that lets go of a client has cancelled our question."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._disconnect = {"type": f"{scope['type']}.disconnect"}
        self._receive = receive

    async def __call__(self) -> Message:
        try:
            return await self._receive()
        except RayError:  # Serve tells us that way, some of the times
            return dict(self._disconnect)


class Upload:
    """What a client sends, as long as it comes in time: a body that trickles would hold a place for hours."""

    def __init__(self, receive: Receive, longest_seconds: float) -> None:
        self._receive = receive
        self._longest_seconds = longest_seconds
        self._until = time.monotonic() + longest_seconds
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout(self._until - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            reason = f"the body was not there after {self._longest_seconds:g} s"
            # the rest of it may still be on its way, so the connection can't be used again
            raise ApiError(408, reason, code="upload_timeout", headers={"Connection": "close"}) from None
        self._complete = not message.get("more_body", False)
        return message


def check_origin(scope: Scope) -> None:
    """Refuse what a web page of another origin sends: any page that a person visits could use a server of theirs.

    Browsers tell where a request comes from, whatever the page wants: by Sec-Fetch-Site to https and to this machine,
    by Origin with all but plain GETs. Following a link is the person's own doing. Who isn't a browser tells neither.
    """
    headers = Headers(scope=scope)
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    follows_link = scope.get("method") in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
    is_ours = site in OWN_SITES if site is not None else origin is None or _is_ours(origin, headers)
    if not follows_link and not is_ours:
        reason = f"a web page of another origin sent this ({origin or site})"
        remedy = "without API keys only pages of this service's own host and port may"
        raise ApiError(403, f"{reason}; {remedy}", code="origin_not_allowed")


def _is_ours(origin: str, headers: Headers) -> bool:
    """Tell whether an Origin is where the request went: by its Host, or by what a proxy that changed it has kept.

    A page can send neither: X-Forwarded-Host takes a preflight, which is refused.
    """
    scheme, _, place = origin.lower().partition("://")
    forwarded = headers.get("x-forwarded-host", "").partition(",")[0]  # the first proxy's, where there are several
    hosts = [
        host.strip().lower().removesuffix(DEFAULT_PORTS.get(scheme, ""))
        for host in (forwarded, headers.get("host", ""))
    ]
    return bool(place) and place in hosts


def is_open(path: str) -> bool:
    """Tell whether a path may be asked without a key; that without a slash leads to the page."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER) or not path


def _path(scope: Scope) -> str:
    """Return the same string that the router goes by."""
    return str(scope["path"].removeprefix(scope.get("root_path", "")))
