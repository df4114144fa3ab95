"""Tells whether an audio file is all there, and no more: libsndfile reads what it finds without a word."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

# What libsndfile calls the containers that are taken: of each it can be told here, or by reading it, where it ends.
WHOLE_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"})

HOLDS_MORE = "holds more than its header says, which would be left out; save it anew"
FLAC = b"fLaC"
FLAC_FRAMES_END = 26  # bytes; the last 36 bits before are the number of frames
FLAC_MOST_FRAMES = 2**36 - 1
SIZE_UNKNOWN = 0x7FFFF000  # and above, of 32 bits: written by programs that can't go back to the header
W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
OGG_FIRST, OGG_LAST = 2, 4  # flags of a page
PADDING = re.compile(rb"\0+")
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
    """Return what is wrong with a file that ends too early or goes on too long, or isn't one recording; else None."""
    check = _check_of(file)
    return check(file) if check else None


def without_leading_tags(file: bytes) -> bytes:
    """Return a file without the ID3 tags that some programs put before any format; an mp3 keeps its own."""
    position = 0
    while tag_bytes := _tag_bytes(file, position):
        position += tag_bytes
    rest = file[position:]
    return rest if rest.startswith(FLAC) or _check_of(rest) else file


def told_flac_frames(file: bytes) -> int:
    """Return how many frames the header of a flac promises; 0 if it is none, or doesn't know."""
    if not file.startswith(FLAC) or len(file) < FLAC_FRAMES_END:
        return 0
    return int.from_bytes(file[FLAC_FRAMES_END - 5 : FLAC_FRAMES_END]) & FLAC_MOST_FRAMES


def with_length_told(file: bytes) -> bytes:
    """Return a file whose header lets all of it be read.

    A WAV's tells how much there is, where the program that wrote it left a zero. A FLAC's promises nothing any more:
    what is beyond the promise would be left out without a word.
    """
    if told := told_flac_frames(file):
        field = int.from_bytes(file[FLAC_FRAMES_END - 5 : FLAC_FRAMES_END]) - told
        return file[: FLAC_FRAMES_END - 5] + field.to_bytes(5) + file[FLAC_FRAMES_END:]
    if file[:4] != b"RIFF":
        return file
    data = _chunk(file, b"data", "<")
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


def _check_of(file: bytes) -> Callable[[bytes], str | None] | None:
    """Return what tells if a file of its kind is whole; None for kinds that tell it only while they are read."""
    if file.startswith(W64_RIFF):
        return lambda file: _smaller_than(file, _number(file, "<Q", 16))
    checks: dict[bytes, Callable[[bytes], str | None]] = {
        b"RIFF": lambda file: _riff_wrong(file, "<"),
        b"RIFX": lambda file: _riff_wrong(file, ">"),
        b"FORM": _form_wrong,
        b"RF64": lambda file: _smaller_than(file, _number(file, "<Q", 20) + 8),
        b".snd": lambda file: _au_wrong(file, ">"),
        b"dns.": lambda file: _au_wrong(file, "<"),
        b"caff": _caf_wrong,
        b"OggS": _ogg_wrong,
    }
    return checks.get(file[:4])


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


def _chunk(file: bytes, name: bytes, order: str) -> int | None:
    """Return where the first chunk of a name begins."""
    position = 12
    while position + 8 <= len(file):
        if file[position : position + 4] == name:
            return position
        size = _number(file, f"{order}I", position + 4)
        position += 8 + size + size % 2
    return None


def _riff_wrong(file: bytes, order: str) -> str | None:
    declared = _unless_unknown(_number(file, f"{order}I", 4), 8)
    if file[8:12] != b"WAVE":
        return None  # something else, or nothing
    data = _chunk(file, b"data", order)
    if data is None:
        return _smaller_than(file, declared)
    size = _number(file, f"{order}I", data + 4)
    end = _unless_unknown(size, data + 8)
    if (reason := _smaller_than(file, max(declared, end))) is not None:
        return reason
    return _more_than_chunks(file, end, order) if size and end else None  # an unknown size goes up to the end


def _form_wrong(file: bytes) -> str | None:
    if (reason := _smaller_than(file, _unless_unknown(_number(file, ">I", 4), 8))) is not None:
        return reason
    sound = _chunk(file, b"SSND", ">")
    if file[8:12] not in (b"AIFF", b"AIFC") or sound is None:
        return None
    end = _unless_unknown(_number(file, ">I", sound + 4), sound + 8)
    return _more_than_chunks(file, end, ">") if end else None


def _more_than_chunks(file: bytes, position: int, order: str) -> str | None:
    """Refuse what follows the chunk with the samples if it is no chunk, tag or padding: samples, most likely."""
    end = len(file.rstrip(b"\0"))
    while position < end:
        if zeros := PADDING.match(file, position):  # after a chunk of odd size, which not every program pads
            position = zeros.end()
        elif tag_bytes := _tag_bytes(file, position):
            position += tag_bytes
        else:
            name, size = file[position : position + 4], _number(file, f"{order}I", position + 4)
            if not all(0x20 <= byte < 0x7F for byte in name) or size > len(file) - position - 8:
                return HOLDS_MORE
            position += 8 + size
    return None


def _au_wrong(file: bytes, order: str) -> str | None:
    declared = _unless_unknown(_number(file, f"{order}I", 8), _number(file, f"{order}I", 4))
    if declared and any(file[declared:]):
        return HOLDS_MORE
    return _smaller_than(file, declared)


def _caf_wrong(file: bytes) -> str | None:
    position = 8
    while position < len(file):
        size = _number(file, ">q", position + 4)
        if size == -1 and file.startswith(b"data", position):  # unknown: up to the end of the file
            return None
        if size < 0:
            return HOLDS_MORE
        position += 12 + size
    return _smaller_than(file, position)


def _ogg_wrong(file: bytes) -> str | None:
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
