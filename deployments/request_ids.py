"""The name of a request in every log line about it, from the door to the decoder."""

from __future__ import annotations

import re
import secrets

REQUEST_ID_HEADER = "x-request-id"

# A UUID, a trace id, a number with a prefix: letters that are safe in a log line, and no longer than a line can bear.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)


def is_request_id(text: str) -> bool:
    """A client's id is taken over if it can stand in a log as it is."""
    return _REQUEST_ID.fullmatch(text) is not None


def new_request_id() -> str:
    return secrets.token_hex(16)
