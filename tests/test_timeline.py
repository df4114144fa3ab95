"""Cues on a track of 1000 Hz, so that samples are milliseconds."""

from __future__ import annotations

import numpy as np
import pytest

from voice_core.audio.loudness import BLOCK_SECONDS, loudness_lufs
from voice_core.audio.waveform import Waveform
from voice_core.subtitles import Cue
from voice_core.timeline import Flag, Timeline

RATE = 1000  # Hz


def hum(seconds: float, height: float = 0.5, lead_seconds: float = 0.0) -> Waveform:
    """A sound of one height, with silence in front and behind that a trim takes away."""
    silence = np.zeros(round(lead_seconds * RATE))
    return Waveform(np.concatenate([silence, np.full(round(seconds * RATE), height), silence]).astype(np.float32), RATE)


def cue(start_seconds: float, end_seconds: float) -> Cue:
    return Cue(start_seconds, end_seconds, "Hello.")


def track(*cues_and_sounds: tuple[Cue, Waveform | None], **options: float) -> Timeline:
    timeline = Timeline([cue for cue, _ in cues_and_sounds], RATE, **options)
    for place, (_, sound) in enumerate(cues_and_sounds):
        timeline.put(place, sound)
    return timeline


def samples(timeline: Timeline) -> np.ndarray:
    return timeline.stretch(0, timeline.finished_samples)


def flags(timeline: Timeline, place: int) -> set[Flag]:
    return timeline.placement(place).flags


def test_the_first_audible_sample_lies_at_the_start_of_the_cue() -> None:
    timeline = track((cue(1, 2), hum(0.8, lead_seconds=0.3)), (cue(3, 4), hum(1.0)))
    audible = np.flatnonzero(np.abs(samples(timeline)) > 0)
    assert audible[0] == 1000
    assert audible[audible > 1900][0] == 3000
    assert len(samples(timeline)) == timeline.samples == 4000
    assert flags(timeline, 0) == flags(timeline, 1) == set()


def test_a_sound_may_run_over_into_silence() -> None:
    timeline = track((cue(1, 2), hum(1.4)), (cue(2.4, 3), hum(0.5)))
    assert flags(timeline, 0) == {Flag.OVERRUN}
    assert flags(timeline, 1) == set()
    assert timeline.placement(0).end_samples == 2400


def test_a_frame_too_long_is_nothing_to_tell() -> None:
    assert flags(track((cue(1, 2), hum(1.02))), 0) == set()


def test_beyond_what_it_may_run_over_nothing_is_lost_but_told() -> None:
    timeline = track((cue(1, 2), hum(2.0)), overrun_seconds=0.5)
    assert flags(timeline, 0) == {Flag.OVERRUN, Flag.OVERLONG}
    assert timeline.samples == 3000


def test_the_cue_that_is_run_into_is_moved_as_far_as_needed_and_pauses_take_it_up() -> None:
    timeline = track((cue(0, 1), hum(1.3)), (cue(1, 2), hum(0.9)), (cue(2, 3), hum(1.0)), (cue(3.2, 4), hum(0.5)))
    placements = [timeline.placement(place) for place in range(4)]
    assert [placement.start_samples for placement in placements] == [0, 1300, 2200, 3200]
    assert [placement.moved_samples for placement in placements] == [0, 300, 200, 0]
    assert flags(timeline, 1) == {Flag.MOVED, Flag.OVERRUN}
    assert flags(timeline, 3) == set()
    assert np.abs(samples(timeline)).max() == pytest.approx(0.5)


def test_nothing_is_moved_by_more_than_a_second_but_mixed() -> None:
    timeline = track((cue(0, 1), hum(2.5, 0.5)), (cue(1, 2), hum(1.0, 0.25)))
    assert timeline.placement(1).start_samples == 1000
    assert flags(timeline, 1) == {Flag.OVERLAP}
    assert flags(timeline, 0) == {Flag.OVERLAP, Flag.OVERRUN, Flag.OVERLONG}
    assert samples(timeline)[1500] == pytest.approx(0.75)


def test_cues_that_overlap_in_the_source_are_mixed_where_they_stand() -> None:
    timeline = track((cue(0, 2), hum(2.0, 0.7)), (cue(1, 3), hum(2.0, 0.7)))
    assert timeline.placement(1).moved_samples == 0
    assert flags(timeline, 0) == flags(timeline, 1) == {Flag.OVERLAP}
    assert samples(timeline)[1500] == pytest.approx(1.4)  # whoever writes it chooses the gain


def test_cues_that_overlap_only_in_the_source_are_not_flagged() -> None:
    timeline = track((cue(0, 2), hum(0.8)), (cue(1, 3), hum(2.0)))
    assert flags(timeline, 0) == flags(timeline, 1) == set()


def test_cues_may_stand_in_the_file_in_any_order() -> None:
    timeline = track((cue(1, 2), hum(0.5)), (cue(0, 1), hum(1.2)))
    assert timeline.placement(0).start_samples == 1200
    assert timeline.placement(1).start_samples == 0


def test_a_cue_without_sound_is_in_nobodys_way() -> None:
    timeline = track((cue(0, 1), None), (cue(0.5, 1), hum(0.5)), (cue(2, 3), Waveform(np.zeros(9, np.float32), RATE)))
    assert [flags(timeline, place) for place in range(3)] == [set(), set(), set()]
    assert timeline.samples == 3000


def test_a_film_of_given_length_is_as_long_as_that() -> None:
    timeline = track((cue(0, 1), hum(1.0)), (cue(9, 10), hum(2.0)), track_seconds=10)
    assert len(samples(timeline)) == 10_000
    assert flags(timeline, 1) == {Flag.CUT}
    assert samples(timeline)[-1] == pytest.approx(0, abs=0.1)  # faded
    assert len(samples(track((cue(0, 1), hum(1.0)), track_seconds=10))) == 10_000


def test_what_is_finished_can_be_taken_before_the_rest_is_there() -> None:
    whole = track((cue(0, 1), hum(1.3)), (cue(1, 2), hum(0.9, 0.25)), (cue(5, 6), hum(1.0)))
    timeline = Timeline([cue(0, 1), cue(1, 2), cue(5, 6)], RATE)
    timeline.put(1, hum(0.9, 0.25))
    assert timeline.finished_samples == 0
    timeline.put(0, hum(1.3))
    assert timeline.finished_samples == 5000
    first = timeline.stretch(0, 5000)
    timeline.put(2, hum(1.0))
    assert timeline.complete
    taken = np.concatenate([first, timeline.stretch(5000, timeline.finished_samples)])
    assert np.array_equal(taken, samples(whole))


def test_the_stretches_are_the_track_however_long_they_are() -> None:
    timeline = track((cue(0.3, 1), hum(0.77)), (cue(0.5, 2), hum(1.5, 0.2)))
    for step in (10, 700, 100_000):
        taken = [timeline.stretch(start, min(start + step, 2000)) for start in range(0, 2000, step)]
        assert np.array_equal(np.concatenate(taken), samples(timeline))


def test_long_silences_are_left_out_on_a_grid() -> None:
    timeline = track((cue(1.23, 2), hum(0.5)), (cue(2.0, 3), hum(0.5)), (cue(9, 10), hum(1.0)))
    expected = np.concatenate([timeline.stretch(800, 2900), timeline.stretch(8600, 10_000)])
    assert np.array_equal(timeline.sounding(margin_seconds=0.4, grid_seconds=0.1), expected)
    assert not len(track((cue(0, 1), None)).sounding(0.4, 0.1))


def test_the_track_is_as_loud_without_its_long_silences() -> None:
    rng = np.random.default_rng(5)
    sounds = [Waveform(rng.normal(0, height, 30_000).astype(np.float32), 16_000) for height in (0.1, 0.02, 0.05)]
    cues = [cue(1.23, 2), cue(3.3, 5), cue(20.01, 22)]
    timeline = Timeline(cues, 16_000)
    for place, sound in enumerate(sounds):
        timeline.put(place, sound)
    whole = loudness_lufs(Waveform(samples(timeline), 16_000))
    sounding = loudness_lufs(Waveform(timeline.sounding(BLOCK_SECONDS, BLOCK_SECONDS / 4), 16_000))
    assert whole == pytest.approx(sounding, abs=0.01)
