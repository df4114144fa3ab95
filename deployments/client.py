"""Asks a running server over HTTP, for the commands: waits where it says so, and reads events as they come."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

DEFAULT_URL = "http://127.0.0.1:8000"
PATIENCE_SECONDS = 600.0  # with a server that is busy
API_KEY_VARIABLE = "VOICE_SERVE_API_KEY"
SILENCE_SECONDS = 120.0  # without a byte of events; a server that lives sends a comment every ten
ANSWER_SECONDS = 3600.0  # for an answer that comes when all of it is spoken
BUSY = (429, 503)  # the server asks to come again
SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0


class ServerError(Exception):
    """The server refused, or can't be reached: what it says, and when it may be asked again."""

    def __init__(self, message: str, *, status: int | None = None, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.status = status  # of HTTP; None: there was no answer
        self.wait_seconds = wait_seconds  # None: a repeat would fail the same way
        self.error: dict[str, Any] = {"message": message}  # OpenAI's envelope, where there was one


@dataclass(frozen=True)
class Server:
    """A server by its URL; a path in it is the prefix of a proxy."""

    url: str
    api_key: str | None = field(default=None, repr=False)

    @contextmanager
    def post(
        self, path: str, document: Mapping[str, Any], *, timeout_seconds: float = ANSWER_SECONDS
    ) -> Iterator[http.client.HTTPResponse]:
        """Post JSON; the answer can be read inside. Raises ServerError for anything but success."""
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServerError(f"{self.url}: no URL such as http://127.0.0.1:8000")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        try:
            connection = kind(parts.hostname, parts.port, timeout=timeout_seconds)
        except ValueError as error:
            raise ServerError(f"{self.url}: {error}") from error
        try:
            headers = {"Content-Type": "application/json"}
            if self.api_key:
                headers["Authorization"] = f"Bearer {self.api_key}"
            connection.request("POST", parts.path.rstrip("/") + path, json.dumps(document).encode(), headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise _refusal(answer)
            yield answer
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise ServerError(f"{self.url}: {reason}", wait_seconds=SHORTEST_WAIT_SECONDS) from error
        finally:
            connection.close()

    def events(self, path: str, document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the events of an answer as they come."""
        with self.post(path, document, timeout_seconds=SILENCE_SECONDS) as answer:
            for line in answer:
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Let a command be told which server it asks, and as whom."""
    parser.add_argument("--url", default=DEFAULT_URL, help=f"of the server (default: {DEFAULT_URL})")
    key_help = f"where the server asks for one; other users of this machine don't see it in {API_KEY_VARIABLE}"
    parser.add_argument("--api-key", default=os.environ.get(API_KEY_VARIABLE), metavar="KEY", help=key_help)
    patience_help = "with a server that is busy (default: %(default)g)"
    parser.add_argument("--patience", type=float, default=PATIENCE_SECONDS, metavar="SECONDS", help=patience_help)


class Patience:
    """Waits as long as a server asks, and not longer than so many seconds in all."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    def wait(self, error: ServerError) -> None:
        """Wait until the server may be asked again; raises the error if that is never, or too late."""
        if error.wait_seconds is None or time.monotonic() + error.wait_seconds > self._deadline:
            raise error
        time.sleep(error.wait_seconds)


def _refusal(answer: http.client.HTTPResponse) -> ServerError:
    body = answer.read()
    wait_seconds = None
    if answer.status in BUSY:
        asked = answer.headers.get("Retry-After", "")
        wanted_seconds = float(asked) if asked.isdecimal() else LONGEST_WAIT_SECONDS / 10
        wait_seconds = min(max(wanted_seconds, SHORTEST_WAIT_SECONDS), LONGEST_WAIT_SECONDS)
    try:
        envelope = json.loads(body)["error"]
        refusal = ServerError(envelope["message"], status=answer.status, wait_seconds=wait_seconds)
        refusal.error = envelope
    except (ValueError, KeyError, TypeError):
        told = body[:200].decode(errors="replace").strip()
        refusal = ServerError(
            f"{answer.status} {answer.reason} {told}", status=answer.status, wait_seconds=wait_seconds
        )
    return refusal
