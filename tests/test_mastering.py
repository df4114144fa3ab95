"""Tracks as files: as loud as wished, the same however long their stretches are."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.audio.ffmpeg import heard_by_ffmpeg
from voice_core import mastering
from voice_core.audio.formats import FORMATS
from voice_core.audio.loudness import loudness_lufs, true_peak
from voice_core.audio.waveform import Waveform
from voice_core.errors import RequestError
from voice_core.mastering import CEILING, write_track
from voice_core.subtitles import Cue
from voice_core.timeline import Timeline

RATE = 16_000  # Hz
STEP = 2.0**-15  # of 16 bits


def track(*heights: float, clicks: float = 0.0) -> Timeline:
    """Noise of two seconds at each of these heights, ten seconds apart, with some clicks that are higher."""
    rng = np.random.default_rng(3)
    timeline = Timeline([Cue(10.0 * place, 10.0 * place + 2, "Hello.") for place in range(len(heights))], RATE)
    for place, height in enumerate(heights):
        samples = rng.uniform(-height, height, 2 * RATE).astype(np.float32)
        samples[:: RATE // 4] += clicks
        timeline.put(place, Waveform(samples, RATE))
    return timeline


def written(timeline: Timeline, target_lufs: float | None) -> tuple[NDArray[np.float32], float | None]:
    file = io.BytesIO()
    reached_lufs = write_track(timeline, file, "wav", target_lufs)
    samples, rate = soundfile.read(file, dtype="float32")
    assert rate == RATE
    return samples, reached_lufs


def test_what_a_format_puts_before_the_sound_is_taken_from_the_silence_there() -> None:
    if "aac" not in FORMATS:
        pytest.skip("PyAV is an optional extra")
    tone = (0.5 * np.sin(np.arange(RATE) * 0.3)).astype(np.float32)
    timeline = Timeline([Cue(1.0, 2.0, "Hello.")], RATE)
    timeline.put(0, Waveform(tone, RATE))
    file = io.BytesIO()
    write_track(timeline, file, "aac", None)
    heard, _ = heard_by_ffmpeg(file.getvalue())
    expected = timeline.stretch(0, timeline.samples)
    assert len(heard) == pytest.approx(timeline.samples, abs=1024)
    assert np.corrcoef(heard[: len(expected)][:30_000], expected[:30_000])[0, 1] > 0.99


def test_without_a_target_the_track_is_written_as_it_is() -> None:
    timeline = track(0.3, 0.1)
    samples, reached_lufs = written(timeline, None)
    assert reached_lufs is None
    assert np.abs(samples - timeline.stretch(0, timeline.samples)).max() <= STEP


@pytest.mark.parametrize("target_lufs", [-30.0, -16.0])
def test_a_track_gets_the_loudness_that_is_asked_for(target_lufs: float) -> None:
    samples, reached_lufs = written(track(0.3, 0.1), target_lufs)
    assert reached_lufs == pytest.approx(target_lufs, abs=0.05)
    assert loudness_lufs(Waveform(samples, RATE)) == pytest.approx(target_lufs, abs=0.1)


def test_a_few_high_peaks_are_lowered_and_the_track_is_as_loud_all_the_same() -> None:
    samples, reached_lufs = written(track(0.1, 0.1, clicks=0.8), -20.0)
    assert reached_lufs == pytest.approx(-20.0, abs=0.3)
    assert np.abs(samples).max() <= CEILING + STEP


def test_a_track_whose_peaks_allow_no_more_tells_what_it_got() -> None:
    samples, reached_lufs = written(track(0.05, clicks=0.9), -10.0)
    assert reached_lufs is not None
    assert reached_lufs < -11
    assert loudness_lufs(Waveform(samples, RATE)) == pytest.approx(reached_lufs, abs=0.2)
    assert np.abs(samples).max() <= CEILING + STEP


def test_nothing_rises_above_the_ceiling_between_the_samples_either() -> None:
    samples, _ = written(track(0.3), -6.0)  # of noise, the worst there is
    assert true_peak(Waveform(samples, RATE)) <= CEILING * 1.012


def test_the_file_is_the_same_however_long_its_stretches_are(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = written(track(0.3, 0.1, clicks=0.6), -16.0)
    monkeypatch.setattr(mastering, "STRETCH_SECONDS", 0.7)
    pieces, _ = written(track(0.3, 0.1, clicks=0.6), -16.0)
    assert np.abs(whole - pieces).max() <= STEP


def test_silence_has_no_loudness_and_stays_silent() -> None:
    timeline = Timeline([Cue(0, 2, "Hello.")], RATE)
    timeline.put(0, None)
    samples, reached_lufs = written(timeline, -16.0)
    assert reached_lufs is None
    assert len(samples) == 2 * RATE
    assert not samples.any()


def test_a_format_that_is_not_written_is_refused() -> None:
    with pytest.raises(RequestError, match="tape"):
        write_track(track(0.1), io.BytesIO(), "tape", None)
