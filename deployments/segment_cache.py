"""Keeps segments that were spoken, so that nobody pays twice for the same words in the same voice.

A segment's key is a hash of all that decides its sound, so what is found under it is what the decoder would say. Two
places to keep them: the memory of one ingress, or a folder (or a bucket) that all of them share.

    <place>/<first two letters of the key>/<key>.speech    a checksum, a line of facts, the samples

A cache may forget whatever it likes, and whatever goes wrong with it is logged and counts as "not there".
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import numpy as np
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from deployments.settings import MEMORY, OFF
from voice_core.speech import FinishReason, Segment, Speech
from voice_core.voices.cache import ByteBoundedCache

# Of a segment, what doesn't decide how one sample of it sounds: each seed has a key of its own, and whose request it is
# must not matter. Any other field counts, also one that is added later.
NOT_IN_THE_KEY = frozenset({"seeds", "request", "batch"})

FACTS_BYTES = 1024  # about what a speech takes beside its samples

READ_SECONDS = 2.0  # after which speaking is taken to be faster than waiting
WRITE_SECONDS = 30.0
REST_SECONDS = 30.0  # that a place that was so slow is left alone
THREADS = 8  # of their own: a place that hangs must not take those that join and encode sound
TELL_SECONDS = 60.0  # between two lines in the log about a place that fails

LISTING_SHARE = 1 / 16  # of the bound, that one writer adds between two looks at all files
KEPT_SHARE = 0.9  # of the bound, that is left when something had to go, so that not every look removes a file
ABANDONED_SECONDS = 3600.0  # after which nobody is still writing a file

Result = TypeVar("Result")

logger = logging.getLogger("ray.serve")  # Serve's own logger adds the request id to each line


class SegmentCache(Protocol):
    """Spoken segments by their keys; safe for many requests at once, and never a reason for one to fail."""

    async def get(self, key: str) -> Speech | None:
        """Return the speech exactly as it was kept, or None. Its samples are read-only."""

    async def put(self, key: str, speech: Speech) -> None:
        """Keep a speech, unless it was called off or is larger than all may be."""


def open_cache(place: str, largest_bytes: int) -> SegmentCache | None:
    """Return the cache at a place of the settings: "memory", "off" (None), a folder, or a URI that fsspec knows.

    Raises ValueError or ImportError for a URI that can't be used here.
    """
    if place == OFF:
        return None
    return MemoryCache(largest_bytes) if place == MEMORY else FolderCache(place, largest_bytes)


def segment_key(segment: Segment, model_fingerprint: str) -> tuple[str, ...]:
    """Return the keys of a segment's samples, one for each of its seeds: hashes of all that decides their sound.

    `model_fingerprint` is that of ModelFacts: weights, code, device and precision.
    """
    told = asdict(segment)
    decisive = {field.name: told[field.name] for field in fields(segment) if field.name not in NOT_IN_THE_KEY}
    content = json.dumps({"model": model_fingerprint, "segment": decisive}, sort_keys=True)  # floats to the bit
    return tuple(hashlib.sha256(f"{seed} {content}".encode()).hexdigest() for seed in segment.seeds)


class MemoryCache:
    """The segments that were asked for last, in the memory of this process."""

    def __init__(self, largest_bytes: int) -> None:
        self._kept: ByteBoundedCache[Speech] = ByteBoundedCache(largest_bytes)

    async def get(self, key: str) -> Speech | None:
        return self._kept.get(key)

    async def put(self, key: str, speech: Speech) -> None:
        if speech.finish_reason is FinishReason.CANCELLED:
            return
        # A copy: what a replica sent may be a view that keeps a whole block of the cluster's shared memory alive.
        samples = np.array(speech.samples, dtype=np.float32)
        samples.setflags(write=False)
        self._kept.put(key, replace(speech, samples=samples), samples.nbytes + FACTS_BYTES)


class FolderCache:
    """The segments that were asked for last, in a folder or a bucket that several processes and machines may share.

    A file appears whole, under a name that tells its content, so writers don't meet; its checksum is looked at with
    every reading, and a damaged file is removed. Every writer counts what it adds, and after LISTING_SHARE of
    `largest_bytes` it lists the place and removes what was used longest ago: so many writers may together be above the
    bound by as many such shares. A folder knows when a file was last read, a bucket only when it was written.
    """

    def __init__(self, place: str, largest_bytes: int) -> None:
        self._files, self._root = url_to_fs(place, use_listings_cache=False)
        self._is_folder = isinstance(self._files, LocalFileSystem)
        self._largest_bytes = largest_bytes
        self._unlisted_bytes = largest_bytes  # written since the last listing; at first, nobody knows
        self._counting = threading.Lock()
        self._sweeping = threading.Lock()  # one lists; nobody waits for it
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="segment-cache")
        self._rests_until = float("-inf")  # monotonic seconds
        self._told_at = float("-inf")  # monotonic seconds

    async def get(self, key: str) -> Speech | None:
        return await self._in_thread(lambda: self._read(key), READ_SECONDS)

    async def put(self, key: str, speech: Speech) -> None:
        if speech.finish_reason is FinishReason.CANCELLED:
            return
        if await self._in_thread(lambda: self._write(key, speech), WRITE_SECONDS):
            self._threads.submit(self._make_room)

    async def _in_thread(self, work: Callable[[], Result], longest_seconds: float) -> Result | None:
        if time.monotonic() < self._rests_until:
            return None
        try:
            async with asyncio.timeout(longest_seconds):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError:
            self._rests_until = time.monotonic() + REST_SECONDS
            self._tell(f"no answer within {longest_seconds:g} s; it is left alone for {REST_SECONDS:g} s")
        except Exception as error:  # stores raise their own; none of them may cost a request its speech
            self._tell(repr(error))
        return None

    def _tell(self, trouble: str) -> None:
        if time.monotonic() - self._told_at > TELL_SECONDS:
            self._told_at = time.monotonic()
            logger.warning("The segment cache at %s fails, and speech is made anew: %s", self._root, trouble)

    def _read(self, key: str) -> Speech | None:
        file = self._file(key)
        try:
            content: bytes = self._files.cat_file(file)
        except FileNotFoundError:
            return None
        try:
            speech = unpacked(key, content)
        except ValueError as error:
            logger.warning("%s is damaged and is removed: %s", file, error)
            self._remove(file)
            return None
        if self._is_folder:
            self._note_use(file)
        return speech

    def _write(self, key: str, speech: Speech) -> bool:
        """Write a speech; return whether it is time to look at all files."""
        content = packed(key, speech)
        if len(content) > self._largest_bytes:
            return False
        file = self._file(key)
        self._files.makedirs(file.rpartition("/")[0], exist_ok=True)
        if self._is_folder:
            self._replace(file, content)
        else:
            self._files.pipe_file(file, content)  # buckets let an object appear whole, and rename by copying
        with self._counting:
            self._unlisted_bytes += len(content)
            return self._unlisted_bytes > self._largest_bytes * LISTING_SHARE

    def _make_room(self) -> None:
        """Keep the bound, unless another thread is at it."""
        if not self._sweeping.acquire(blocking=False):
            return
        try:
            with self._counting:
                self._unlisted_bytes = 0
            self._sweep()
        except Exception as error:  # stores raise their own
            self._tell(repr(error))
        finally:
            self._sweeping.release()

    def _replace(self, file: str, content: bytes) -> None:
        """Let the file appear whole, in place of one that may be there. No fsync: a checksum is cheaper."""
        part = f"{file}.{secrets.token_hex(8)}.part"
        try:
            with open(part, "wb") as opened:
                opened.write(content)
            os.replace(part, file)
        except BaseException:
            self._remove(part)
            raise

    def _note_use(self, file: str) -> None:
        try:
            os.utime(file)
        except OSError as error:  # a folder of others, or the file went meanwhile
            logger.debug("When %s was read could not be noted: %s", file, error)

    def _sweep(self) -> None:
        """Remove what was used longest ago until the bound is kept, and what interrupted writers left."""
        found: Mapping[str, Mapping[str, Any]] = self._files.find(self._root, detail=True)
        speeches = {file: info for file, info in found.items() if file.endswith(".speech")}
        for file in found.keys() - speeches.keys():
            if file.endswith(".part") and time.time() - _used_at(found[file]) > ABANDONED_SECONDS:
                self._remove(file)
        total = sum(_size(info) for info in speeches.values())
        if total <= self._largest_bytes:
            return
        for file in sorted(speeches, key=lambda file: _used_at(speeches[file])):
            self._remove(file)
            total -= _size(speeches[file])
            if total <= self._largest_bytes * KEPT_SHARE:
                return

    def _remove(self, file: str) -> None:
        try:
            self._files.rm_file(file)
        except FileNotFoundError:
            logger.debug("%s was gone already", file)

    def _file(self, key: str) -> str:
        return f"{self._root}/{key[:2]}/{key}.speech"


def packed(key: str, speech: Speech) -> bytes:
    """Return a speech as it is kept: a checksum of the rest, a line of facts, and the samples as 32-bit floats."""
    facts = {field.name: getattr(speech, field.name) for field in fields(speech) if field.name != "samples"}
    rest = json.dumps({"key": key, **facts}).encode() + b"\n" + speech.samples.astype("<f4").tobytes()
    return hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def unpacked(key: str, content: bytes) -> Speech:
    """Return the speech that was packed under that key, bit for bit; ValueError if this isn't it, whole."""
    checksum, _, rest = content.partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode() != checksum:
        raise ValueError("its content has another checksum")
    line, _, samples = rest.partition(b"\n")
    facts = json.loads(line)
    if facts.pop("key") != key:
        raise ValueError("it belongs to another key")
    try:
        reason = FinishReason(facts.pop("finish_reason"))
        return Speech(
            samples=np.frombuffer(samples, "<f4").astype(np.float32, copy=False), finish_reason=reason, **facts
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"another version wrote it ({error})") from error


def _size(info: Mapping[str, Any]) -> int:
    return int(info.get("size") or 0)


def _used_at(info: Mapping[str, Any]) -> float:
    """Return when a file was last written or, in a folder, read: seconds since 1970; 0 where the store doesn't say."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        told = info.get(name)
        if isinstance(told, datetime):
            return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
        if isinstance(told, int | float):
            return float(told)
    return 0.0
