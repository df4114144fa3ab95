"""Loudness and true peaks of signals whose values EBU Tech 3341 and arithmetic give."""

import math

import numpy as np
import pyloudnorm
import pytest
from numpy.typing import NDArray

from voice_core.audio.loudness import CEILING_DBTP, FILTERS, gain_to, loudness_lufs, true_peak
from voice_core.audio.waveform import Waveform

RATES = (16000, 24000, 44100, 48000)


def sine(seconds: float, dbfs: float, rate: int = 48000, hertz: float = 1000.0, phase: float = 0.0) -> Waveform:
    times = np.arange(round(seconds * rate)) / rate
    samples = 10 ** (dbfs / 20) * np.sin(2 * np.pi * hertz * times + phase)
    return Waveform(samples.astype(np.float32), rate)


def amplified(waveform: Waveform, factor: float) -> Waveform:
    return Waveform(waveform.samples * np.float32(factor), waveform.sample_rate)


def in_a_row(*waveforms: Waveform) -> Waveform:
    return Waveform(np.concatenate([waveform.samples for waveform in waveforms]), waveforms[0].sample_rate)


def speechlike(seconds: float, peak: float) -> Waveform:
    """Bursts of noise: peaks far above the loudness, as a voice's are."""
    noise: NDArray[np.float32] = np.random.default_rng(2).normal(0, 1, round(seconds * 16000)).astype(np.float32)
    noise *= (np.sin(2 * np.pi * 2 * np.arange(len(noise)) / 16000) > 0).astype(np.float32)
    return Waveform((noise * np.float32(peak) / np.abs(noise).max()).astype(np.float32), 16000)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("dbfs", [-20.0, -30.0])
def test_a_mono_sine_of_1_khz_is_3_lu_below_its_peak(dbfs: float, rate: int) -> None:
    """EBU Tech 3341, cases 1 and 2, of one channel instead of two: 3.01 dB less."""
    assert loudness_lufs(sine(20, dbfs, rate)) == pytest.approx(dbfs - 3.01, abs=0.1)


def test_quiet_parts_are_not_counted() -> None:
    """EBU Tech 3341, case 3: 10 s at -36, 60 s at -23, 10 s at -36 LUFS are -23 LUFS."""
    quiet = sine(10, -36 + 3.01)
    assert loudness_lufs(in_a_row(quiet, sine(60, -23 + 3.01), quiet)) == pytest.approx(-23, abs=0.1)


def test_quiet_and_very_quiet_parts_are_not_counted() -> None:
    """EBU Tech 3341, case 4: 10 s each at -72 and -36 LUFS before and after."""
    quiet, quieter = sine(10, -36 + 3.01), sine(10, -72 + 3.01)
    track = in_a_row(quieter, quiet, sine(60, -23 + 3.01), quiet, quieter)
    assert loudness_lufs(track) == pytest.approx(-23, abs=0.1)


@pytest.mark.parametrize("rate", [11025, 16000, 44100])
@pytest.mark.parametrize("seconds", [0.4, 59.97, 60.3, 60.42, 150.0])
def test_a_long_sound_measured_some_at_a_time_is_as_loud_as_measured_at_once(seconds: float, rate: int) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, round(seconds * rate))
    swell = np.sin(np.arange(len(noise)) / rate) ** 2
    waveform = Waveform((noise * swell).astype(np.float32), rate)
    at_once = pyloudnorm.Meter(rate, filter_class=FILTERS).integrated_loudness(waveform.samples)
    assert loudness_lufs(waveform) == pytest.approx(at_once, abs=0.01)


def test_minutes_of_silence_are_not_counted() -> None:
    silence = Waveform(np.zeros(16000 * 130, dtype=np.float32), 16000)
    cue = sine(5, -20, 16000)
    assert loudness_lufs(in_a_row(silence, cue, silence)) == pytest.approx(loudness_lufs(cue), abs=0.3)
    assert loudness_lufs(silence) is None


def test_silence_between_cues_does_not_make_a_track_quieter() -> None:
    cue, pause = sine(2, -20), Waveform(np.zeros(48000 * 20, dtype=np.float32), 48000)
    alone = loudness_lufs(in_a_row(cue, cue, cue))
    assert loudness_lufs(in_a_row(cue, pause, cue, pause, cue)) == pytest.approx(alone, abs=0.6)


@pytest.mark.parametrize(
    "waveform",
    [
        Waveform(np.zeros(48000, dtype=np.float32), 48000),
        Waveform(np.zeros(0, dtype=np.float32), 48000),
        sine(0.39, -20),
        sine(2, -90),
    ],
    ids=["silent", "empty", "short", "too quiet"],
)
def test_what_has_no_loudness_has_none_and_is_left_as_it_is(waveform: Waveform) -> None:
    assert loudness_lufs(waveform) is None
    gain = gain_to(waveform, -16)
    assert (gain.factor, gain.measured_lufs, gain.reached_lufs, gain.peak_limited) == (1.0, None, None, False)


def test_a_short_sound_that_is_too_loud_is_brought_below_the_ceiling() -> None:
    click = Waveform(np.array([0, 0, 2.0, 0, 0], dtype=np.float32), 16000)
    gain = gain_to(click, -16)
    assert gain.peak_limited
    assert true_peak(amplified(click, gain.factor)) <= 10 ** (CEILING_DBTP / 20) + 1e-6


@pytest.mark.parametrize("rate", RATES)
def test_a_peak_between_samples_is_found(rate: int) -> None:
    """EBU Tech 3341, case 16: a quarter of the rate, 45 degrees off; every sample is 3 dB below the sine's peak."""
    wave = sine(1, -6, rate, hertz=rate / 4, phase=math.pi / 4)
    faded = Waveform((wave.samples * np.hanning(len(wave.samples))).astype(np.float32), rate)
    assert 20 * math.log10(faded.peak) == pytest.approx(-9.01, abs=0.01)
    assert 20 * math.log10(true_peak(faded)) == pytest.approx(-6, abs=0.2)


def test_a_peak_is_found_in_the_last_of_many_pieces() -> None:
    long = sine(70, -40, 16000)
    samples = long.samples.copy()
    samples[-3] = 0.9
    assert true_peak(Waveform(samples, 16000)) >= np.float32(0.9)
    assert true_peak(long) == pytest.approx(0.01, rel=0.02)


def test_a_sound_comes_to_its_target() -> None:
    waveform = sine(5, -30)
    gain = gain_to(waveform, -23)
    assert not gain.peak_limited
    assert gain.reached_lufs == pytest.approx(-23)
    assert loudness_lufs(amplified(waveform, gain.factor)) == pytest.approx(-23, abs=0.05)
    assert gain.decibels == pytest.approx(10.01, abs=0.1)


@pytest.mark.parametrize("target_lufs", [-30.0, -23.0, -16.0, -5.0])
def test_nothing_clips_whatever_the_target(target_lufs: float) -> None:
    waveform = speechlike(6, peak=0.3)
    gain = gain_to(waveform, target_lufs)
    louder = amplified(waveform, gain.factor)
    assert true_peak(louder) <= 10 ** (CEILING_DBTP / 20) * 1.0001
    measured = loudness_lufs(louder)
    assert measured == pytest.approx(gain.reached_lufs, abs=0.05)
    assert gain.peak_limited == (measured is not None and measured < target_lufs - 0.1)


def test_the_samples_given_are_not_changed() -> None:
    waveform = sine(1, -20)
    before = waveform.samples.copy()
    waveform.samples.setflags(write=False)
    gain_to(waveform, -16)
    assert np.array_equal(waveform.samples, before)
