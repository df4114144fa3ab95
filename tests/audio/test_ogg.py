import io
import struct

import numpy as np
import pytest
import soundfile

from voice_core.audio.ogg import checksum, with_fixed_serial_number


def stream(seconds: float = 2.0) -> bytes:
    noise = np.random.default_rng(3).normal(0, 0.1, round(16000 * seconds)).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, noise, 16000, format="OGG", subtype="OPUS")
    return file.getvalue()


def test_the_checksum_is_the_one_that_libogg_writes() -> None:
    original = stream()
    table_length = original[26]
    first_page = bytearray(original[: 27 + table_length + sum(original[27 : 27 + table_length])])
    (written,) = struct.unpack_from("<I", first_page, 22)
    struct.pack_into("<I", first_page, 22, 0)
    assert checksum(bytes(first_page)) == written


def test_equal_sounds_become_equal_bytes_that_still_decode() -> None:
    one, other = stream(), stream()
    fixed = with_fixed_serial_number(one)
    assert with_fixed_serial_number(other) == fixed
    assert len(fixed) == len(one)
    samples, _ = soundfile.read(io.BytesIO(fixed))
    expected, _ = soundfile.read(io.BytesIO(one))
    assert np.array_equal(samples, expected)


def test_what_is_no_ogg_stream_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="no Ogg page at byte 0"):
        with_fixed_serial_number(b"RIFF and so on")
