"""Gives an Ogg stream a fixed serial number, so that equal sounds become equal bytes.

libsndfile draws the serial number of a stream at random. A stream that is alone in its file may have any (RFC
3533, section 4); every page carries it, and a checksum over the page.
"""

from __future__ import annotations

import struct
import zlib

SERIAL_NUMBER = 0
PAGE_MARK = b"OggS"
SERIAL_OFFSET, CHECKSUM_OFFSET, TABLE_LENGTH_OFFSET, TABLE_OFFSET = 14, 22, 26, 27  # bytes into a page
MIRRORED_BYTES = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
ALL_ONES = 0xFFFFFFFF


def with_fixed_serial_number(stream: bytes) -> bytes:
    """Return the Ogg stream with SERIAL_NUMBER and right checksums in all pages."""
    rewritten = bytearray(stream)
    start = 0
    while start < len(stream):
        assert stream[start : start + len(PAGE_MARK)] == PAGE_MARK, f"no Ogg page at byte {start}"
        table_length = stream[start + TABLE_LENGTH_OFFSET]
        body = start + TABLE_OFFSET + table_length
        end = body + sum(stream[start + TABLE_OFFSET : body])
        struct.pack_into("<I", rewritten, start + SERIAL_OFFSET, SERIAL_NUMBER)
        struct.pack_into("<I", rewritten, start + CHECKSUM_OFFSET, 0)  # counts as 0 in its own sum
        struct.pack_into("<I", rewritten, start + CHECKSUM_OFFSET, checksum(bytes(rewritten[start:end])))
        start = end
    return bytes(rewritten)


def checksum(page: bytes) -> int:
    """Return Ogg's CRC-32: zlib's polynomial, but highest bit first, and all ones at neither end."""
    mirrored = zlib.crc32(page.translate(MIRRORED_BYTES), ALL_ONES) ^ ALL_ONES
    return int(f"{mirrored:032b}"[::-1], 2)
