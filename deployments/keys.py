"""API keys: a file of hashes, one JSON object a line, read again when it changes.

    python -m deployments key new ann      # prints a new key, once, and the line for the file
    {"name": "ann", "salt": "…", "sha256": "…", "most_requests_in_flight": 20, "priorities": ["batch"]}

A key is 32 random bytes, so one round of SHA-256 protects it as well as a slow hash would; the salt keeps equal keys of
two files from being seen as such.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from voice_core.errors import SettingError

Priority = Literal["interactive", "batch"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)

PREFIX = "vs-"  # by which a leaked key is recognised
KEY_BYTES = 32
LONGEST_KEY_CHARACTERS = 512  # of what is hashed for whoever sends it
LOOK_AGAIN_SECONDS = 1.0

logger = logging.getLogger("ray.serve")


class Key(BaseModel):
    """One line of the file: whose key it is, what it is recognised by, and what its owner may ask for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64, pattern=r"^[\w.@-]+$")  # stands in logs
    salt: str = Field(pattern=r"^[0-9a-f]{16,}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")  # of the salt's bytes and the key
    most_requests_in_flight: int | None = Field(default=None, ge=1)  # at each ingress, as everything here
    most_seconds_in_flight: float | None = Field(default=None, gt=0)  # of speech
    seconds_per_minute: float | None = Field(default=None, gt=0)  # of speech, on the average
    priorities: tuple[Priority, ...] = Field(default=PRIORITIES, min_length=1)

    def fits(self, key: str) -> bool:
        return hmac.compare_digest(_hash(bytes.fromhex(self.salt), key), self.sha256)


class KeyRing:
    """The keys of a file, as it is now."""

    def __init__(self, path: Path) -> None:
        """Read the file; a SettingError if it can't be read."""
        self._path = path
        self._keys = read_keys(path)
        self._version = _version(path)
        self._looked_at = time.monotonic()

    def find(self, sent: str) -> Key | None:
        """Return the key that was sent, if it is one. Takes as long for a wrong one as for any right one."""
        self._look_again()
        found = None
        if len(sent) > LONGEST_KEY_CHARACTERS:
            return None
        for key in self._keys:  # all of them: time must not tell which one was nearly right
            if key.fits(sent):
                found = key
        return found

    def _look_again(self) -> None:
        if time.monotonic() - self._looked_at < LOOK_AGAIN_SECONDS:
            return
        self._looked_at = time.monotonic()
        version = _version(self._path)
        if version == self._version:
            return
        self._version = version
        try:
            self._keys = read_keys(self._path)
            logger.info("Read %d API keys from %s", len(self._keys), self._path)
        except SettingError as error:  # whoever edits it will see; nobody is locked out meanwhile
            logger.error("The API keys stay as they were: %s", error)


def read_keys(path: Path) -> tuple[Key, ...]:
    """Return the keys of a file: one JSON object a line, empty lines and those that begin with # left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"api_keys: {path} can't be read: {error}") from error
    keys: dict[str, Key] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            key = Key.model_validate_json(line)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(map(str, wrong["loc"])) or "line"
            raise SettingError(f"api_keys: {path}, line {number}: {field}: {wrong['msg']}") from None
        if key.name in keys:
            raise SettingError(f"api_keys: {path}, line {number}: the name {key.name!r} is there twice")
        keys[key.name] = key
    return tuple(keys.values())


def new_key(name: str) -> tuple[str, str]:
    """Return a new key and the line that lets it in."""
    key, salt = PREFIX + secrets.token_urlsafe(KEY_BYTES), secrets.token_bytes(16)
    entry = Key(name=name, salt=salt.hex(), sha256=_hash(salt, key))
    return key, json.dumps(entry.model_dump(include={"name", "salt", "sha256"}))


def _hash(salt: bytes, key: str) -> str:
    return hashlib.sha256(salt + key.encode(errors="surrogateescape")).hexdigest()


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)
