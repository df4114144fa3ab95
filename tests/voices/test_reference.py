"""Recordings as people send them: what is taken, and why the rest is not."""

from __future__ import annotations

import io
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile

from tests.voices.recordings import audio_file, hum, hum_of_16_bits
from voice_core.audio.formats import encode
from voice_core.audio.waveform import Waveform
from voice_core.errors import RequestError
from voice_core.speech import ReferenceLimits
from voice_core.voices.reference import content_hash, read_reference

LIMITS = ReferenceLimits()
FLAC_TOTAL_SAMPLES = slice(21, 26)  # bytes of a file: half a byte of rate and width, then 36 bits of count


def read(file: bytes, limits: ReferenceLimits = LIMITS) -> Waveform:
    return read_reference(file, limits, field="audio_sample")


def wav(channels: int, sample_rate: int, body: bytes) -> bytes:
    """A WAV file of 16 bits by hand, also one that no program would write."""
    description = struct.pack("<HHIIHH", 1, channels, sample_rate, sample_rate * channels * 2, channels * 2, 16)
    chunks = b"WAVEfmt " + struct.pack("<I", 16) + description + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


@pytest.mark.parametrize(
    ("container", "encoding"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "PCM_U8"),
        ("WAV", "PCM_24"),
        ("WAV", "FLOAT"),
        ("WAV", "ULAW"),
        ("FLAC", "PCM_16"),
        ("FLAC", "PCM_24"),
        ("MP3", "MPEG_LAYER_III"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("AIFF", "PCM_16"),
        ("CAF", "PCM_16"),
        ("AU", "PCM_16"),
    ],
)
def test_every_format_gives_the_same_recording(container: str, encoding: str) -> None:
    recording = read(audio_file(hum(), container=container, encoding=encoding))
    assert recording.sample_rate == 16000
    assert recording.seconds == pytest.approx(2.0, abs=0.1)
    loudness = float(np.sqrt(np.mean(np.square(recording.samples))))
    assert loudness == pytest.approx(float(np.sqrt(np.mean(np.square(hum())))), rel=0.1)


@pytest.mark.parametrize("sample_rate", [8000, 11025, 22050, 24000, 44100, 48000, 96000])
def test_every_usual_rate_is_taken(sample_rate: int) -> None:
    assert read(audio_file(hum(1.5, sample_rate), sample_rate)).sample_rate == sample_rate


@pytest.mark.parametrize(("sample_rate", "kept_rate"), [(65535, 65535), (65536, 65530), (88201, 88200), (95999, 95990)])
def test_a_rate_that_flac_cannot_hold_becomes_the_next_lower_one(sample_rate: int, kept_rate: int) -> None:
    recording = read(audio_file(hum(1.5, sample_rate), sample_rate))
    assert recording.sample_rate == kept_rate
    assert recording.seconds == pytest.approx(1.5, abs=0.001)
    assert soundfile.info(io.BytesIO(encode(recording, "flac"))).samplerate == kept_rate


def test_stereo_is_mixed() -> None:
    mono = hum()
    both = read(audio_file(np.stack([mono, mono / 2], axis=1), encoding="FLOAT"))
    np.testing.assert_allclose(both.samples, 0.75 * mono, atol=1 / 32768)


def test_the_same_samples_have_the_same_hash_in_any_container() -> None:
    as_wav, as_flac = (read(audio_file(hum_of_16_bits(), container=kind)) for kind in ("WAV", "FLAC"))
    assert content_hash(as_wav) == content_hash(as_flac) != content_hash(read(audio_file(hum(pitch=121))))


def test_a_float_file_beyond_full_scale_is_scaled_down() -> None:
    assert read(audio_file(4 * hum(), encoding="FLOAT")).peak == pytest.approx(1.0, abs=1 / 16384)


def test_the_limits_are_the_operators() -> None:
    tight = ReferenceLimits(shortest_seconds=3, longest_seconds=5)
    for seconds, reason in ((2.0, "too short"), (6.0, "too long")):
        with pytest.raises(RequestError, match=reason):
            read(audio_file(hum(seconds)), tight)
    assert read(audio_file(hum(5.0)), tight).seconds == 5.0


def half(file: bytes) -> bytes:
    return file[: len(file) // 2]


def clipped() -> bytes:
    return audio_file(np.clip(20 * hum(), -1, 1))


def with_nan() -> bytes:
    samples = hum()
    samples[1000] = np.nan
    return audio_file(samples, encoding="FLOAT")


MALFORMED = {
    "empty": (b"", "is empty"),
    "zeros": (bytes(1000), "is not audio"),
    "text": (b"RIFX hello" * 100, "is not audio"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(1000), "is not audio"),
    "mp3 magic alone": (b"\xff\xfb\x90\x00" * 10, "is not audio"),
    "id3 alone": (b"ID3" + bytes(1000), "is not audio"),
    "wav header alone": (audio_file(hum())[:44], "is cut short"),
    "half a wav": (half(audio_file(hum())), "is cut short"),
    "half a flac": (half(audio_file(hum(), container="FLAC")), "is not audio"),
    "half an mp3": (half(audio_file(hum(4), container="MP3", encoding="MPEG_LAYER_III")), "is cut short"),
    "ogg header alone": (audio_file(hum(), container="OGG", encoding="VORBIS")[:60], "is cut short"),
    "no channels": (wav(0, 16000, bytes(64000)), "is not audio"),
    "eight channels": (wav(8, 16000, bytes(64000)), "has 8 channels"),
    "thousands of channels": (wav(9999, 16000, bytes(64000)), "is not audio"),
    "no rate": (wav(1, 0, bytes(64000)), "is not audio"),
    "1 Hz": (wav(1, 1, bytes(64)), "has 1 samples a second"),
    "192 kHz": (audio_file(hum(2.0, 192_000), 192_000), "has 192000 samples a second"),
    "no samples": (wav(1, 16000, b""), "too short"),
    "half a second": (audio_file(hum(0.5)), "too short: 0.50 s"),
    "31 seconds": (audio_file(hum(31)), "too long: at most 30 s"),
    "silence": (audio_file(np.zeros(32000, dtype=np.float32)), "is silent"),
    "whispering noise floor": (audio_file(hum() / 500), "is silent"),
    "clipped": (clipped(), "is clipped beyond use"),
    "not numbers": (with_nan(), "aren't finite"),
    "infinity": (audio_file(np.full(32000, np.inf, dtype=np.float32), encoding="FLOAT"), "aren't finite"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_holds_no_voice_is_refused_with_the_reason(name: str) -> None:
    file, reason = MALFORMED[name]
    with pytest.raises(RequestError, match=reason) as refusal:
        read(file)
    assert refusal.value.field == "audio_sample"


CONTAINERS = {
    "WAV": None,
    "RF64": None,
    "W64": None,
    "AIFF": None,
    "AU": None,
    "CAF": None,
    "FLAC": None,
    "OGG": "VORBIS",
    "MP3": "MPEG_LAYER_III",
}


@pytest.mark.parametrize("missing_bytes", [1, 100, 1000, 3000])
@pytest.mark.parametrize("container", [*CONTAINERS, "OPUS"])
def test_a_file_that_misses_its_end_is_refused(container: str, missing_bytes: int) -> None:
    kind = ("OGG", "OPUS") if container == "OPUS" else (container, CONTAINERS[container])
    file = audio_file(hum(4.0), 16000, *kind)
    assert read(file).seconds == pytest.approx(4.0, abs=0.1)
    with pytest.raises(RequestError, match=r"is cut short|is not audio"):
        read(file[:-missing_bytes])


@pytest.mark.parametrize("container", ["VOC", "NIST", "SVX", "PAF"])
def test_a_format_whose_end_cannot_be_told_is_refused(container: str) -> None:
    with pytest.raises(RequestError, match="nobody could tell if it is all there"):
        read(audio_file(hum(), container=container))


def mp3(mode: str = "CONSTANT", sample_rate: int = 44100) -> bytes:
    """Four seconds, half of them noise, so that the bit rate varies where it may."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * sample_rate).astype(np.float32)
    with soundfile.SoundFile(
        file, "w", sample_rate, 1, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode=mode, compression_level=0.5
    ) as sound:
        sound.write(np.concatenate([hum(2.0, sample_rate), noise]))
    return file.getvalue()


def without_length(file: bytes) -> bytes:
    """An mp3 without its first frame, which tells how many there are."""
    return file[file.index(file[:2], 4) :]


def test_an_mp3_of_constant_bit_rate_needs_no_header() -> None:
    assert read(without_length(mp3())).seconds == pytest.approx(4.0, abs=0.1)


def test_tags_around_an_mp3_are_passed_over() -> None:
    assert read(b"ID3\4\0\0\0\0\1\0" + bytes(128) + mp3() + b"TAG" + bytes(125)).seconds == 4.0


@pytest.mark.parametrize(
    "file", [without_length(mp3("VARIABLE")), mp3() + mp3()], ids=["variable rate, no length", "two files in one"]
)
def test_an_mp3_of_which_only_the_beginning_would_be_heard_is_refused(file: bytes) -> None:
    with pytest.raises(RequestError, match="save it anew"):
        read(file)


def test_a_stream_whose_header_knows_no_length_is_read_to_its_end() -> None:
    flac = bytearray(audio_file(hum(3.0), container="FLAC"))
    first, *_ = flac[FLAC_TOTAL_SAMPLES]
    flac[FLAC_TOTAL_SAMPLES] = bytes([first & 0xF0, 0, 0, 0, 0])
    assert read(bytes(flac)).seconds == 3.0
    for size in (0, 0xFFFFFFFF):
        stream = bytearray(audio_file(hum(3.0)))
        stream[4:8] = stream[40:44] = struct.pack("<I", size)
        assert read(bytes(stream)).seconds == 3.0


def telling_too_little(container: str) -> bytes:
    """Five seconds, of which the header tells the first two."""
    file = bytearray(audio_file(hum(5.0), container=container))
    if container == "FLAC":
        first, *_ = file[FLAC_TOTAL_SAMPLES]
        file[FLAC_TOTAL_SAMPLES] = bytes([first & 0xF0, *(2 * 16000).to_bytes(4)])
    elif container == "AU":
        file[8:12] = struct.pack(">I", 2 * 32000)
    elif container == "AIFF":
        at = file.index(b"SSND") + 4
        file[at : at + 4] = struct.pack(">I", 2 * 32000 + 8)
    else:
        file[40:44] = struct.pack("<I", 2 * 32000)
    return bytes(file)


@pytest.mark.parametrize("container", ["FLAC", "WAV", "AIFF", "AU"])
def test_a_file_that_goes_on_beyond_what_its_header_tells_is_refused(container: str) -> None:
    with pytest.raises(RequestError, match="its header says"):
        read(telling_too_little(container))


@pytest.mark.parametrize("container", ["WAV", "AIFF", "AU", "FLAC"])
def test_two_files_in_one_are_refused(container: str) -> None:
    two = audio_file(hum(2.0), container=container) + audio_file(hum(3.0), container=container)
    with pytest.raises(RequestError, match=r"its header says|is not audio"):
        read(two)


@pytest.mark.parametrize("order", ["WAV", "AIFF"])
def test_what_follows_the_samples_may_be_chunks_tags_and_padding(order: str) -> None:
    file = audio_file(hum(2.0), container=order)
    size = struct.pack("<I" if order == "WAV" else ">I", 6)
    for rest in (b"LIST" + size + b"INFO12", b"id3 " + size + b"ID3\4\0\0", b"TAG" + bytes(125), bytes(7)):
        assert read(file + rest).seconds == 2.0
    assert read(file + b"LIST" + size + b"INFO12" + bytes(3) + b"TAG" + bytes(125)).seconds == 2.0


def test_a_tag_before_a_file_hides_nothing_from_the_checks() -> None:
    tag = b"ID3\4\0\0\0\0\1\0" + bytes(128)
    for container in ("WAV", "FLAC"):
        file = tag + audio_file(hum(5.0), container=container)
        assert read(file).seconds == 5.0
        with pytest.raises(RequestError, match=r"is cut short|is not audio"):
            read(file[: len(file) // 2])


def test_a_picture_in_an_mp3_is_not_taken_for_sound() -> None:
    picture_bytes = 600_000
    size = bytes(picture_bytes >> shift & 0x7F for shift in (21, 14, 7, 0))
    tag = b"ID3\4\0\0" + size + bytes(picture_bytes)
    assert read(tag + without_length(mp3())).seconds == pytest.approx(4.0, abs=0.1)


def test_a_click_beside_a_quiet_voice_is_not_clipping() -> None:
    for click in ([1.0], [1.0, 0.8, 0.5, 0.2]):
        quiet = hum(4.0) * np.float32(0.09 / np.abs(hum(4.0)).max())
        quiet[8000 : 8000 + len(click)] = click
        assert read(audio_file(quiet)).seconds == 4.0


def test_channels_that_cancel_each_other_out_are_told_from_silence() -> None:
    with pytest.raises(RequestError, match="one is upside down"):
        read(audio_file(np.stack([hum(), -hum()], axis=1)))


@pytest.mark.parametrize("count_known", [True, False])
def test_two_hours_of_silence_cost_no_memory(count_known: bool) -> None:
    bomb = bytearray(audio_file(np.zeros(16000 * 7200, dtype=np.float32), container="FLAC"))
    assert len(bomb) < 500_000
    if not count_known:  # as a program writes it that doesn't know how much will come
        first, *_ = bomb[FLAC_TOTAL_SAMPLES]
        bomb[FLAC_TOTAL_SAMPLES] = bytes([first & 0xF0, 0, 0, 0, 0])
    tracemalloc.start()
    with pytest.raises(RequestError, match="too long"):
        read(bytes(bomb))
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 10_000_000
