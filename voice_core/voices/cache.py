"""Keeps what was dear to compute, up to a number of bytes; what was used longest ago goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

BYTES_PER_CODE = 36  # a Python integer and its place in a tuple

Value = TypeVar("Value")


class ByteBoundedCache(Generic[Value]):
    """Values by key, each with its size; thread-safe."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, tuple[Value, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def kept_bytes(self) -> int:
        """The size of all values together."""
        return self._bytes

    def get(self, key: str) -> Value | None:
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: str, value: Value, size_bytes: int) -> None:
        """Keep a value, unless it alone is more than all may be."""
        with self._lock:
            self._drop(key)
            if size_bytes > self._most_bytes:
                return
            self._kept[key] = value, size_bytes
            self._bytes += size_bytes
            while self._bytes > self._most_bytes:
                self._drop(next(iter(self._kept)))

    def drop(self, key: str) -> None:
        with self._lock:
            self._drop(key)

    def _drop(self, key: str) -> None:
        _, size_bytes = self._kept.pop(key, (None, 0))
        self._bytes -= size_bytes
