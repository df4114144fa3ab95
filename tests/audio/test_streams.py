"""Files that are sent while they grow: the same sound as the whole file, however it was cut."""

import io
import struct

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.audio.ffmpeg import heard_by_ffmpeg
from voice_core.audio.formats import FORMATS, MP3_RATES, encode, resample
from voice_core.audio.ogg import PAGE_MARK
from voice_core.audio.streams import open_stream
from voice_core.audio.waveform import Waveform
from voice_core.errors import RequestError, SynthesisError

RATES = (16000, 44100)
AAC_DELAY_SAMPLES = 1024
MP3_DELAY_SAMPLES = 1105  # 576 of LAME's own, 529 of any decoder
FLAC_TOTAL_OFFSET = 22  # bytes into a file: the lower 32 bits of how many samples there are; 0 means unknown
WITHIN_ONE_STEP = 1e-6  # a decoder that has one frame fewer before it rounds another way
SOUNDFILE_FORMATS = [name for name in FORMATS if name not in ("pcm", "aac")]


def speechlike(seconds: float, rate: int) -> NDArray[np.float32]:
    """Syllables of a voice with some breath, now and then louder than full scale."""
    times = np.arange(round(seconds * rate)) / rate
    swell = 0.55 + 0.55 * np.sin(2 * np.pi * 3 * times)
    breath = np.random.default_rng(5).normal(0, 0.02, len(times))
    return (swell * np.sin(2 * np.pi * 220 * times) + breath).astype(np.float32)


def streamed(samples: NDArray[np.float32], format_name: str, rate: int, *pieces: int) -> list[bytes]:
    """The bytes of every write, and those of the end; the last piece is repeated."""
    stream = open_stream(format_name, rate)
    parts, start = [], 0
    while start < len(samples):
        length = pieces[min(len(parts), len(pieces) - 1)]
        parts.append(stream.write(samples[start : start + length]))
        start += length
    return [*parts, stream.close()]


def decoded(file: bytes, samples: int | None = None) -> NDArray[np.float32]:
    """What soundfile hears; soundfile must be told how many `samples` a flac of unknown length has."""
    if file.startswith(b"fLaC") and samples is not None:
        file = file[:FLAC_TOTAL_OFFSET] + struct.pack(">I", samples) + file[FLAC_TOTAL_OFFSET + 4 :]
    heard: NDArray[np.float32] = soundfile.read(io.BytesIO(file), dtype="float32")[0]
    return heard


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("format_name", FORMATS)
def test_how_the_sound_is_cut_changes_no_byte(format_name: str, rate: int) -> None:
    samples = speechlike(2.3, rate)
    in_one = b"".join(streamed(samples, format_name, rate, len(samples)))
    assert b"".join(streamed(samples, format_name, rate, 1, 2, 5000, 1, 333)) == in_one
    assert b"".join(streamed(samples, format_name, rate, rate)) == in_one


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("format_name", ["wav", "wav_float32", "flac", "opus"])
def test_a_stream_holds_the_samples_of_the_whole_file_to_the_bit(format_name: str, rate: int) -> None:
    samples = speechlike(2.3, rate)
    whole = encode(Waveform(samples, rate), format_name)
    stream = b"".join(streamed(samples, format_name, rate, 777))
    assert np.array_equal(decoded(stream, len(samples)), decoded(whole))


def test_a_flac_stream_differs_from_the_whole_file_in_what_nobody_knew_at_its_beginning() -> None:
    samples = speechlike(2.3, 16000)
    stream, whole = b"".join(streamed(samples, "flac", 16000, 777)), encode(Waveform(samples, 16000), "flac")
    assert len(stream) == len(whole)
    different = [place for place, (one, other) in enumerate(zip(stream, whole, strict=True)) if one != other]
    assert min(different) >= 12  # behind the mark, and the sizes of blocks: sizes of frames, total, and checksum
    assert max(different) < 42
    assert stream[FLAC_TOTAL_OFFSET : FLAC_TOTAL_OFFSET + 4] == bytes(4)
    assert struct.unpack_from(">I", whole, FLAC_TOTAL_OFFSET) == (len(samples),)


@pytest.mark.parametrize("format_name", [name for name in ("pcm", "opus", "aac") if name in FORMATS])
def test_a_format_without_a_head_of_its_length_is_the_whole_file(format_name: str) -> None:
    samples = speechlike(2.3, 44100)
    whole = encode(Waveform(samples, 44100), format_name)
    assert b"".join(streamed(samples, format_name, 44100, 4000)) == whole


@pytest.mark.parametrize("rate", MP3_RATES)
def test_an_mp3_stream_is_the_whole_file_without_the_info_frame(rate: int) -> None:
    samples = speechlike(2.3, rate)
    whole = encode(Waveform(samples, rate), "mp3")
    stream = b"".join(streamed(samples, "mp3", rate, 4000))
    assert whole.endswith(stream)
    info = whole[: len(whole) - len(stream)]
    assert b"Info" in info
    assert b"LAME" in info
    heard, expected = decoded(stream), decoded(whole)
    assert len(expected) == len(samples)
    sound = heard[MP3_DELAY_SAMPLES : MP3_DELAY_SAMPLES + len(samples)]
    assert np.abs(sound - expected).max() < WITHIN_ONE_STEP
    assert np.abs(heard[:500]).max() < 0.01  # the delay before the sound is silent


@pytest.mark.parametrize(
    ("format_name", "delay_samples"), [("flac", 0), ("mp3", MP3_DELAY_SAMPLES), ("opus", 0), ("aac", AAC_DELAY_SAMPLES)]
)
def test_ffmpeg_hears_all_of_a_stream(format_name: str, delay_samples: int) -> None:
    """Most players are FFmpeg, and it needs no length that the head could tell."""
    pytest.importorskip("av", reason="PyAV is an optional extra")
    samples = speechlike(2.3, 16000)
    heard, rate = heard_by_ffmpeg(b"".join(streamed(samples, format_name, 16000, 4000)))
    assert rate == (48000 if format_name == "opus" else 16000)
    sound = resample(Waveform(heard, rate), 16000).samples[delay_samples:][: len(samples)]
    assert len(sound) == len(samples)
    assert np.corrcoef(sound, samples.clip(-1, 1))[0, 1] > (0.9999 if format_name == "flac" else 0.99)
    assert np.corrcoef(sound[-1600:], samples[-1600:].clip(-1, 1))[0, 1] > 0.98


def test_aac_is_adts_of_one_encoder_and_comes_out_soon() -> None:
    pytest.importorskip("av", reason="PyAV is an optional extra")
    samples = speechlike(3.0, 24000)
    stream = open_stream("aac", 24000)
    assert (stream.media_type, stream.sample_rate) == ("audio/aac", 24000)
    sent = b""
    for second in range(1, 4):
        sent += stream.write(samples[24000 * (second - 1) : 24000 * second])
        heard, _ = heard_by_ffmpeg(sent)
        assert len(heard) / 24000 >= second - 0.2
    sent += stream.close()
    assert sent[:2] == b"\xff\xf1"  # the mark of a frame of MPEG-4, without checksum
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)).astype(np.float32)
    steady, _ = heard_by_ffmpeg(b"".join(streamed(tone, "aac", 16000, 3200)))
    loudness = np.abs(steady[4800:-4800][:20800]).reshape(-1, 160).max(axis=1)
    assert loudness.min() > 0.9 * loudness.max()


def test_the_tail_of_an_opus_stream_is_heard_whole() -> None:
    """A click just before the end must be there: 80 ms of state that nobody flushes were lost elsewhere."""
    samples = np.zeros(16000 * 2 + 123, dtype=np.float32)
    samples[-80:] = 0.9 * np.sin(np.arange(80))
    heard = decoded(b"".join(streamed(samples, "opus", 16000, 1600)))
    assert len(heard) == len(samples)
    assert np.abs(heard[-100:]).max() > 0.3
    assert np.abs(heard[:-400]).max() < 0.05


def test_no_border_between_pieces_is_heard_in_lossy_formats() -> None:
    """A steady tone stays steady: an encoder begun anew for each piece would dip at every border."""
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)).astype(np.float32)
    for format_name in ("mp3", "opus"):
        heard = decoded(b"".join(streamed(tone, format_name, 16000, 3200)))[3200:-3200]
        loudness = np.abs(heard[: len(heard) // 160 * 160]).reshape(-1, 160).max(axis=1)
        assert loudness.min() > 0.9 * loudness.max()


@pytest.mark.parametrize(
    ("format_name", "rate", "held_back_seconds"),
    [
        ("wav", 16000, 0.0),
        ("wav", 44100, 0.0),
        ("wav_float32", 16000, 0.0),
        ("pcm", 24000, 0.0),
        ("pcm", 16000, 0.1),
        ("pcm", 44100, 0.1),
        ("flac", 16000, 0.26),
        ("flac", 44100, 0.1),
        ("mp3", 16000, 0.15),
        ("mp3", 44100, 0.1),
        ("opus", 16000, 0.15),
        ("opus", 44100, 0.2),
    ],
)
def test_what_was_written_comes_out_soon(format_name: str, rate: int, held_back_seconds: float) -> None:
    """A second after every second: from what has come out so far, all but the last moment can be heard."""
    samples = speechlike(4.0, rate)
    stream = open_stream(format_name, rate)
    sent = b""
    for second in range(1, 5):
        sent += stream.write(samples[rate * (second - 1) : rate * second])
        if format_name == "pcm":
            seconds = len(sent) / 2 / stream.sample_rate
        elif format_name == "mp3":  # of a constant bitrate
            seconds = len(sent) * 8 / (64000 if rate < 32000 else 128000)
        elif format_name == "opus":
            seconds = _last_granule(sent) / 48000
        else:
            due = round((second - held_back_seconds) * rate)
            seconds = len(decoded(sent, due)) / rate
        assert seconds >= second - held_back_seconds
    assert stream.close() or held_back_seconds == 0


def _last_granule(stream: bytes) -> int:
    """Return how many samples at 48 kHz an Ogg stream of Opus has so far."""
    (samples,) = struct.unpack_from("<q", stream, stream.rindex(PAGE_MARK) + 6)
    return int(samples)


def test_a_wav_stream_says_that_its_length_is_unknown_and_the_whole_file_says_its_length() -> None:
    samples = speechlike(1.0, 16000)
    stream = streamed(samples, "wav", 16000, 8000)
    assert struct.unpack_from("<I", stream[0], 4) == struct.unpack_from("<I", stream[0], 40) == (0xFFFFFFFF,)
    whole = encode(Waveform(samples, 16000), "wav")
    assert struct.unpack_from("<I", whole, 4) == (len(whole) - 8,)
    assert struct.unpack_from("<I", whole, 40) == (32000,)
    assert b"".join(stream)[44:] == whole[44:]


def test_there_is_one_head_however_many_pieces() -> None:
    for format_name, mark in (("wav", b"RIFF"), ("flac", b"fLaC"), ("opus", b"OpusHead")):
        assert b"".join(streamed(speechlike(2.0, 16000), format_name, 16000, 3000)).count(mark) == 1


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_stream_tells_the_type_and_rate_of_its_file(format_name: str) -> None:
    stream = open_stream(format_name, 44100)
    assert stream.media_type == FORMATS[format_name].media_type
    assert stream.sample_rate == FORMATS[format_name].rate_for(44100)


@pytest.mark.parametrize("format_name", SOUNDFILE_FORMATS)
def test_a_single_sample_is_a_stream(format_name: str) -> None:
    file = b"".join(streamed(np.array([0.5], dtype=np.float32), format_name, 16000, 1))
    assert len(decoded(file, 1)) >= 1


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_empty_piece_writes_nothing_and_a_stream_of_none_is_an_error(format_name: str) -> None:
    stream = open_stream(format_name, 16000)
    assert stream.write(np.zeros(0, dtype=np.float32)) == b""
    with pytest.raises(SynthesisError, match="the sound has no samples"):
        stream.close()


def test_a_piece_with_a_sample_that_is_no_number_is_an_error() -> None:
    stream = open_stream("wav", 16000)
    stream.write(speechlike(0.1, 16000))
    with pytest.raises(SynthesisError, match="1 of 2 samples"):
        stream.write(np.array([0, np.nan], dtype=np.float32))


def test_an_unknown_format_cannot_be_streamed() -> None:
    with pytest.raises(RequestError, match="'ogg' is not one of"):
        open_stream("ogg", 16000)


def test_a_long_stream_keeps_only_its_beginning_in_memory() -> None:
    stream = open_stream("flac", 16000)
    piece = speechlike(10.0, 16000)
    sent = sum(len(stream.write(piece)) for _ in range(12))
    sink = stream._writer._sink  # type: ignore[attr-defined]
    assert sent > 500_000
    assert len(sink._beginning) + len(sink._ready) < 10_000
