import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.audio.ffmpeg import heard_by_ffmpeg
from voice_core.audio.endings import ENDINGS
from voice_core.audio.formats import FORMATS, PCM_RATES, encode, format_named, pcm16, resample, resampled_length
from voice_core.audio.waveform import Waveform
from voice_core.errors import RequestError, SynthesisError

LOSSLESS_STEP = 1 / 32768
RATES = (16000, 44100)


def speechlike(seconds: float = 1.3, rate: int = 16000) -> Waveform:
    times = np.arange(round(seconds * rate)) / rate
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * times)
    return Waveform((0.4 * swell * np.sin(2 * np.pi * 220 * times)).astype(np.float32), rate)


def decoded(file: bytes, format_name: str) -> tuple[NDArray[np.float32], int]:
    if format_name == "pcm":
        return np.frombuffer(file, dtype="<i2") / np.float32(32768), PCM_RATES[0]
    if format_name == "aac":
        return heard_by_ffmpeg(file)
    samples, rate = soundfile.read(io.BytesIO(file), dtype="float32")
    return samples, rate


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_is_heard_as_long_and_as_loud_as_the_sound(format_name: str, rate: int) -> None:
    waveform = speechlike(rate=rate)
    samples, decoded_rate = decoded(encode(waveform, format_name), format_name)
    assert len(samples) / decoded_rate == pytest.approx(waveform.seconds, abs=0.15)
    assert np.abs(samples).max() == pytest.approx(waveform.peak, rel=0.15)


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_same_sound_gives_the_same_bytes(format_name: str) -> None:
    assert encode(speechlike(), format_name) == encode(speechlike(), format_name)


@pytest.mark.parametrize("format_name", ["wav", "flac"])
def test_16_bit_files_keep_the_sound_to_half_a_step(format_name: str) -> None:
    samples, rate = decoded(encode(speechlike(), format_name), format_name)
    assert rate == 16000
    assert np.abs(samples - speechlike().samples).max() <= LOSSLESS_STEP / 2


def test_wav_float32_keeps_every_bit_and_what_is_too_loud() -> None:
    loud = Waveform(speechlike().samples * 4, 16000)
    file = encode(loud, "wav_float32")
    samples, rate = decoded(file, "wav_float32")
    assert np.array_equal(samples, loud.samples)
    assert rate == 16000
    with soundfile.SoundFile(io.BytesIO(file)) as opened:
        assert (opened.format, opened.subtype, opened.channels) == ("WAV", "FLOAT", 1)


def test_wav_is_16_bit_mono() -> None:
    with soundfile.SoundFile(io.BytesIO(encode(speechlike(), "wav"))) as opened:
        assert (opened.format, opened.subtype, opened.channels) == ("WAV", "PCM_16", 1)


@pytest.mark.parametrize("format_name", ["wav", "flac", "pcm", "mp3", "opus"])
def test_what_is_too_loud_is_clipped_and_does_not_wrap_round(format_name: str) -> None:
    loud = Waveform(speechlike(rate=24000).samples * 6, 24000)
    samples, _ = decoded(encode(loud, format_name), format_name)
    clipped = loud.samples.clip(-1, 1)
    assert np.corrcoef(samples[: len(clipped)], clipped)[0, 1] > 0.99


def test_16_bit_samples_are_rounded_and_clipped() -> None:
    steps = np.array([0.4, 0.6, -0.6, 32767, 32768, 40000, -32768, -40000], dtype=np.float32)
    rounded = pcm16(Waveform(steps / np.float32(32768), RATES[0]))
    assert rounded.tolist() == [0, 1, -1, 32767, 32767, 32767, -32768, -32768]


@pytest.mark.parametrize(
    ("format_name", "rate", "written"),
    [("opus", 44100, 48000), ("opus", 16000, 16000), ("mp3", 44100, 44100), ("mp3", 96000, 48000)],
)
def test_a_rate_that_the_format_cannot_hold_is_changed(format_name: str, rate: int, written: int) -> None:
    assert soundfile.info(io.BytesIO(encode(speechlike(rate=rate), format_name))).samplerate == written


def test_pcm_is_24_khz_16_bit_little_endian_without_a_header() -> None:
    assert len(encode(speechlike(1.0), "pcm")) == 24000 * 2


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_single_sample_is_a_sound(format_name: str) -> None:
    click = Waveform(np.array([0.5], dtype=np.float32), 16000)
    samples, _ = decoded(encode(click, format_name), format_name)
    assert len(samples) >= 1


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_sound_without_samples_is_no_file(format_name: str) -> None:
    with pytest.raises(SynthesisError, match=f"nothing to write as {format_name}"):
        encode(Waveform(np.zeros(0, dtype=np.float32), 16000), format_name)


def test_an_unknown_format_is_refused_with_those_there_are() -> None:
    with pytest.raises(RequestError, match="'ogg' is not one of mp3, opus, flac, wav, wav_float32, pcm") as raised:
        format_named("ogg")
    assert raised.value.field == "response_format"


def test_aac_is_refused_where_it_cannot_be_written_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(FORMATS, "aac", raising=False)
    with pytest.raises(RequestError, match=r"pip install 'voice-serve\[aac\]'; or choose one of mp3, opus") as raised:
        format_named("aac")
    assert raised.value.field == "response_format"


def test_the_other_formats_need_no_pyav() -> None:
    code = "import sys; sys.modules['av'] = None; from voice_core.audio.formats import FORMATS; print(*FORMATS)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["mp3", "opus", "flac", "wav", "wav_float32", "pcm"]


def test_a_tone_keeps_its_pitch_and_place_through_a_change_of_rate() -> None:
    low, high = speechlike(rate=16000), speechlike(rate=48000)
    resampled = resample(low, 48000)
    assert resampled.sample_rate == 48000
    assert resampled.samples.shape == high.samples.shape
    assert np.abs(resampled.samples - high.samples)[480:-480].max() < 1e-3


def test_the_same_rate_is_the_same_waveform() -> None:
    waveform = speechlike()
    assert resample(waveform, 16000) is waveform


@pytest.mark.parametrize("samples", [999, 1001, 1003, 12345])
@pytest.mark.parametrize(("rate", "other_rate"), [(16000, 24000), (44100, 24000), (44100, 48000)])
def test_the_length_at_another_rate_is_known_beforehand(samples: int, rate: int, other_rate: int) -> None:
    """Half a sample is a whole one, where `round` would take every other one away."""
    resampled = resample(Waveform(np.zeros(samples, dtype=np.float32), rate), other_rate)
    assert len(resampled.samples) == resampled_length(samples, rate, other_rate)


def test_every_format_has_an_ending() -> None:
    assert set(FORMATS) | {"aac"} == set(ENDINGS)
