"""Logs: one line for each request and each segment, with its id; no user's text in any, unless it is switched on."""

from __future__ import annotations

import logging
import os
import socket
import traceback
from typing import Any

from ray.exceptions import RayError, RayTaskError

from voice_core.errors import CheckpointError, SettingError, SynthesisError

LOGGER = "ray.serve"  # Serve's own: it writes JSON or text, and adds the request id that it knows
OURS = ("ray.serve", "voice_core", "asyncio")
EXTRA_FIELDS = "ray_serve_extra_fields"  # Serve's formatter puts them beside the message

# Errors whose messages are known to quote nobody. What a library says of a text may quote it.
QUOTES_NOBODY = (
    CheckpointError,
    SettingError,
    SynthesisError,
    RayError,
    MemoryError,
    TimeoutError,
    ConnectionError,
    socket.gaierror,
)
MOST_CAUSES = 8  # of one error, in a log line

_logger = logging.getLogger(LOGGER)


def set_up(*, texts: bool) -> None:
    """Let all lines of this process go where Serve's go; without `texts`, no error's message may quote a request."""
    serve = logging.getLogger(LOGGER)
    for name in OURS:
        logger = logging.getLogger(name)
        if logger is not serve and serve.handlers:
            logger.handlers, logger.propagate = [ToServe()], False
            logger.setLevel(max(serve.level, logging.INFO))
        if not texts and not any(isinstance(one, NoTexts) for one in logger.filters):
            logger.addFilter(NoTexts())


def tell(message: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write a line with fields of its own; a field that is None is left out."""
    known = {name: value for name, value in fields.items() if value is not None}
    _logger.log(level, message, extra={EXTRA_FIELDS: known})


class ToServe(logging.Handler):
    """Hands records to Serve's logger, filters included: a logger's own don't see what comes from those below it."""

    def emit(self, record: logging.LogRecord) -> None:
        _logger.handle(record)


class NoTexts(logging.Filter):
    """Leaves out the messages of errors that may quote a request, in tracebacks and in lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(told(one) if isinstance(one, BaseException) else one for one in record.args)
        if isinstance(record.msg, BaseException):
            record.msg = told(record.msg)
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = harmless_traceback(record.exc_info[1])  # a formatter takes it as it is
        return True


def told(error: BaseException) -> str:
    """Return what an error is, and what it says if that can quote nobody."""
    kind = type(error).__name__
    if isinstance(error, RayTaskError):  # its message holds the whole traceback of the other process
        return f"{kind} of {told(error.cause)}" if isinstance(error.cause, BaseException) else kind
    if isinstance(error, QUOTES_NOBODY):
        return f"{kind}: {error}"
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.strerror == os.strerror(error.errno):
        return f"{kind}: {error.strerror}"  # the system's own words; a path may be named after what somebody sent
    return f"{kind} (what it says may quote a request)"


def harmless_traceback(error: BaseException) -> str:
    """Return the frames of an error and of its causes, with no message that may quote a request."""
    parts: list[str] = []
    one: BaseException | None = error
    while one is not None and len(parts) < MOST_CAUSES:
        frames = "".join(traceback.format_tb(one.__traceback__))
        parts.insert(0, f"Traceback (most recent call last):\n{frames}{told(one)}")
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "\n\nwhich led to\n\n".join(parts)
