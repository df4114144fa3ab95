"""Tells whether an audio file is all there: libsndfile reads what is left of a cut one without a word."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

# What libsndfile calls the containers that are taken: of each it can be told here, or by reading it, where it ends.
WHOLE_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"})

SIZE_UNKNOWN = 0x7FFFF000  # and above, of 32 bits: written by programs that can't go back to the header
W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
OGG_FIRST, OGG_LAST = 2, 4  # flags of a page
ID3_HEADER_BYTES = 10
ID3_FOOTER = 0x10  # a flag
MP3_TAILS = (b"APETAGEX", b"LYRICSBEGIN", b"LYRICS3")
ID3V1_BYTES = 128
MP3_MPEG1_KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
MP3_MPEG2_KBPS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
MP3_MPEG1_RATES = (44100, 48000, 32000)  # Hz; half of it in MPEG-2, a quarter in MPEG-2.5


class Mp3Frame(NamedTuple):
    """One frame of layer III, by its header."""

    size_bytes: int
    samples: int


def why_not_whole(file: bytes) -> str | None:
    """Return what is wrong with a file that ends before it should, or isn't one recording; None for any other."""
    checks: dict[bytes, Callable[[bytes], str | None]] = {
        b"RIFF": lambda file: _chunks_cut(file, "<"),
        b"RIFX": lambda file: _chunks_cut(file, ">"),
        b"FORM": lambda file: _smaller_than(file, _unless_unknown(_number(file, ">I", 4), 8)),
        b"RF64": lambda file: _smaller_than(file, _number(file, "<Q", 20) + 8),
        b".snd": lambda file: _smaller_than(file, _au_bytes(file, ">")),
        b"dns.": lambda file: _smaller_than(file, _au_bytes(file, "<")),
        b"caff": _caf_cut,
        b"OggS": _ogg_cut,
    }
    if file.startswith(W64_RIFF):
        return _smaller_than(file, _number(file, "<Q", 16))
    check = checks.get(file[:4])
    return check(file) if check else None


def with_length_told(file: bytes) -> bytes:
    """Return a WAV file whose header tells how much there is, where the program that wrote it left a zero."""
    if file[:4] != b"RIFF":
        return file
    data = _data_chunk(file, "<")
    if data is None or _number(file, "<I", data + 4) or data + 8 == len(file):
        return file
    sizes = struct.pack("<I", len(file) - 8), struct.pack("<I", len(file) - data - 8)
    return b"RIFF" + sizes[0] + file[8 : data + 4] + sizes[1] + file[data + 8 :]


def mp3_samples(file: bytes) -> int | None:
    """Return how many samples the frames of an mp3 hold; None if one of them is cut, or something else is between."""
    position, samples = 0, 0
    while position < len(file):
        if tag_bytes := _tag_bytes(file, position):
            position += tag_bytes
        elif frame := _mp3_frame(file[position : position + 4]):
            position += frame.size_bytes
            samples += frame.samples
        elif samples and (file.startswith(MP3_TAILS, position) or not any(file[position:])):
            return samples
        else:
            return None
    return samples if position == len(file) else None


def mp3_tells_its_length(file: bytes) -> bool:
    """Whether the first frame of an mp3 holds the number of frames instead of sound."""
    position = 0
    while position < len(file) and (tag_bytes := _tag_bytes(file, position)):
        position += tag_bytes
    frame = _mp3_frame(file[position : position + 4])
    first = file[position : position + frame.size_bytes] if frame else b""
    return any(mark in first for mark in (b"Xing", b"Info", b"VBRI"))


def _smaller_than(file: bytes, declared_bytes: int) -> str | None:
    return "is cut short: the file is smaller than its header says" if len(file) < declared_bytes else None


def _number(file: bytes, kind: str, position: int) -> int:
    """Return one number of the header; more than any file has bytes if the header itself is cut."""
    if position + struct.calcsize(kind) > len(file):
        return 2**63
    number: int = struct.unpack_from(kind, file, position)[0]
    return number


def _unless_unknown(size: int, header_bytes: int) -> int:
    return size + header_bytes if size < SIZE_UNKNOWN or size >= 2**32 else 0


def _data_chunk(file: bytes, order: str) -> int | None:
    """Return where the chunk with the samples begins."""
    position = 12
    while position + 8 <= len(file):
        if file[position : position + 4] == b"data":
            return position
        size = _number(file, f"{order}I", position + 4)
        position += 8 + size + size % 2
    return None


def _chunks_cut(file: bytes, order: str) -> str | None:
    declared = _unless_unknown(_number(file, f"{order}I", 4), 8)
    if file[8:12] != b"WAVE":
        return None  # something else, or nothing
    data = _data_chunk(file, order)
    if data is not None:
        declared = max(declared, _unless_unknown(_number(file, f"{order}I", data + 4), data + 8))
    return _smaller_than(file, declared)


def _au_bytes(file: bytes, order: str) -> int:
    return _unless_unknown(_number(file, f"{order}I", 8), _number(file, f"{order}I", 4))


def _caf_cut(file: bytes) -> str | None:
    position = 8
    while position < len(file):
        size = _number(file, ">q", position + 4)
        if size < 0:  # unknown: up to the end of the file
            return None
        position += 12 + size
    return _smaller_than(file, position)


def _ogg_cut(file: bytes) -> str | None:
    """An Ogg stream says on its last page that it is the last."""
    position, flags, streams = 0, 0, 0
    while position < len(file):
        page = file[position : position + 27]
        if len(page) < 27 or not page.startswith(b"OggS"):
            return "is cut short, or holds something else beside its pages of Ogg"
        flags = page[5]
        streams += bool(flags & OGG_FIRST)
        segments = file[position + 27 : position + 27 + page[26]]
        position += 27 + page[26] + sum(segments)
    if position > len(file) or not flags & OGG_LAST:
        return "is cut short: its last page doesn't end the stream"
    return "holds several streams; send a file with one" if streams > 1 else None


def _tag_bytes(file: bytes, position: int) -> int:
    """Return the size of the ID3 tag that begins at a position, 0 if none does."""
    if file.startswith(b"TAG", position):
        return ID3V1_BYTES
    header = file[position : position + ID3_HEADER_BYTES]
    if len(header) < ID3_HEADER_BYTES or not header.startswith(b"ID3"):
        return 0
    size = 0
    for byte in header[6:]:  # 7 bits each
        size = size << 7 | byte & 0x7F
    return ID3_HEADER_BYTES * (2 if header[5] & ID3_FOOTER else 1) + size


def _mp3_frame(header: bytes) -> Mp3Frame | None:
    """Return what a header says; None if it is none of layer III, or doesn't tell the frame's size."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, kbps_index, rate_index = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or kbps_index in (0, 15) or rate_index == 3:
        return None
    mpeg1 = version == 3
    kbps = (MP3_MPEG1_KBPS if mpeg1 else MP3_MPEG2_KBPS)[kbps_index]
    rate = MP3_MPEG1_RATES[rate_index] // {3: 1, 2: 2, 0: 4}[version]
    samples = 1152 if mpeg1 else 576
    padding = header[2] >> 1 & 1
    return Mp3Frame(samples // 8 * kbps * 1000 // rate + padding, samples)
