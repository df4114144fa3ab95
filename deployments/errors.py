"""Everything that is not an answer: OpenAI's error envelope, and which failure gets which status."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

from ray.exceptions import ObjectLostError, RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import JSONResponse, Response

from deployments.shapes import ErrorEnvelope, ErrorObject
from deployments.visit import current_visit
from voice_core.errors import RequestError, SynthesisError

# How a WebSocket is closed: RFC 6455's codes, and IANA's for "come later".
REFUSED, TOO_LARGE, OUR_FAULT, COME_LATER = 1008, 1009, 1011, 1013
CLIENT_LEFT = 499  # nginx's number for a client who left while still sending; only the access log sees it
RETRY_AFTER_SECONDS = 5  # a replica that died is back, or a queue is shorter, after about this long

# A repeat would fail the same way, so OpenAI's clients are told not to try three times.
_NO_RETRY = {"x-should-retry": "false"}
_RETRY_LATER = {"Retry-After": str(RETRY_AFTER_SECONDS)}
_CODES = {404: "not_found", 405: "method_not_allowed"}

logger = logging.getLogger("ray.serve")  # Serve's own logger adds the request id to each line


@dataclass(eq=False)  # an exception is itself, and must stay hashable
class ApiError(Exception):
    """A request that gets no speech: the status and what OpenAI's envelope says about it."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def type(self) -> str:
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"

    def note(self) -> None:
        """Let what is told of the request know how it failed."""
        visit = current_visit()
        visit.code, visit.error_status = self.code, self.status

    def envelope(self) -> ErrorEnvelope:
        """Return the error as it goes out; what is told of the request afterwards knows of it from here."""
        self.note()
        error: ErrorObject = {
            "message": _sendable(self.message),
            "type": self.type,
            "param": self.param and _sendable(self.param),
            "code": self.code,
        }
        return {"error": error}

    def response(self) -> JSONResponse:
        return JSONResponse(self.envelope(), self.status, self.headers)


def not_ready(reason: str) -> ApiError:
    return ApiError(503, f"the model can't be asked right now: {reason}", code="not_ready", headers=_RETRY_LATER)


def overloaded(reason: str, retry_after_seconds: float = RETRY_AFTER_SECONDS) -> ApiError:
    """Return the refusal of what there is no room for now, with the time after which there will be."""
    headers = {"Retry-After": whole_seconds(retry_after_seconds)}
    return ApiError(429, f"too much is being spoken already: {reason}", code="overloaded", headers=headers)


def whole_seconds(seconds: float) -> str:
    """Return a time for Retry-After, which takes integers: rounded up, and one at least."""
    return str(max(1, math.ceil(round(seconds, 3))))


def deadline_exceeded(seconds: float) -> ApiError:
    """Return the answer to a request whose time is up: 408, as Serve's proxy says it, and a repeat takes as long."""
    message = f"not all was spoken within the {seconds:g} s that there were for it"
    return ApiError(408, message, code="deadline_exceeded", headers=dict(_NO_RETRY))


def close_code(status: int) -> int:
    """Return the code with which an error of this status closes a WebSocket."""
    if status in (429, 503):
        return COME_LATER
    if status == 413:
        return TOO_LARGE
    return OUR_FAULT if status >= 500 else REFUSED


def error_response(request: HTTPConnection, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=CLIENT_LEFT)
    return api_error(request, error).response()


def api_error(request: HTTPConnection, error: Exception) -> ApiError:
    """The one place where an exception becomes a status."""
    cause = error.cause if isinstance(error, RayTaskError) else error  # what another deployment raised
    match cause:
        case ApiError():
            return cause
        case RequestError():
            return ApiError(400, str(cause), param=cause.field, code="invalid_value")
        case HTTPException():  # no such path, or not with this method
            message = f"{request.scope.get('method', 'WebSocket')} {request.url.path}: {cause.detail}"
            code = _CODES.get(cause.status_code)
            return ApiError(cause.status_code, message, code=code, headers=dict(cause.headers or {}))
        case BackPressureError():
            return overloaded("too many requests are waiting")
        case (
            RayActorError()
            | ObjectLostError()
            | DeploymentUnavailableError()
            | ReplicaUnavailableError()
            | TimeoutError()
        ):
            logger.warning("No replica could answer: %s", error)
            return not_ready("no replica could take the request")
        case SynthesisError() if cause.may_succeed_later:
            logger.warning("A segment could not be spoken this time: %s", cause)
            message = f"could not be spoken this time: {cause}"
            return ApiError(503, message, code="synthesis_failed", headers=_RETRY_LATER)
        case SynthesisError():
            logger.exception("A segment could not be spoken", exc_info=error)
            message = f"could not be spoken: {cause}"
            return ApiError(500, message, code="synthesis_failed", headers=_NO_RETRY)
        case _:
            request_id = request.headers.get("x-request-id", "none")  # Serve gives every request one
            logger.exception("A bug, met by request %s", request_id, exc_info=error)
            message = f"a bug on our side; the log has it under request id {request_id}"
            return ApiError(500, message, code="internal_error", headers=_NO_RETRY)


def _sendable(message: str) -> str:
    """A message may quote what was sent, also half of a surrogate pair, which UTF-8 can't say."""
    return message.encode(errors="backslashreplace").decode()
