import json
from pathlib import Path

import numpy as np
import pytest

from voice_core.audio.joining import FADE_SECONDS, Joiner, fade, join, silence, trim
from voice_core.audio.waveform import Waveform
from voice_core.errors import SynthesisError

RATE = 1000
FADE_SAMPLES = round(FADE_SECONDS * RATE)
REFERENCE_LEAD_SECONDS = 0.5  # the reference always puts it in front
REFERENCE_PAUSE_SECONDS = 0.45  # where its caller asks for none in particular

# Cases of the reference whose sound ours keeps, but for the fades.
SHARED = (
    "all_silent",
    "dc_negative",
    "default_gap",
    "empty_member",
    "noise_floor",
    "odd_sr_rounding",
    "one_sample",
    "one_silent",
    "quiet_middle_kept",
    "single",
    "threshold_edge",
    "two_tones",
    "zero_gap",
)


def tone(seconds: float, peak: float = 0.5, rate: int = RATE) -> Waveform:
    """A square wave: every sample of it is as loud as its peak, so a trim takes nothing."""
    signs = np.where(np.arange(round(seconds * rate)) // 4 % 2, -1, 1)
    return Waveform((peak * signs).astype(np.float32), rate)


def inputs_of(fixtures: Path, case: str) -> tuple[list[Waveform], float, np.ndarray]:
    """Return what the reference was given: the segments and the pause; and what it gave back."""
    facts = json.loads((fixtures / "audio" / "concat.json").read_text())[case]
    arrays = np.load(fixtures / "audio" / "concat.npz")
    segments = [Waveform(arrays[f"{case}__in{i}"], facts["sr"]) for i in range(facts["n_in"])]
    return segments, facts["kw"].get("silence_sec", REFERENCE_PAUSE_SECONDS), arrays[f"{case}__out"]


def joined_with_lead(segments: list[Waveform], pause_seconds: float) -> Waveform:
    """Join as the product does, behind the silence that the reference begins with."""
    joined = join(segments, pause_seconds)
    lead = silence(REFERENCE_LEAD_SECONDS, joined.sample_rate)
    return Waveform(np.concatenate([lead.samples, joined.samples]), joined.sample_rate)


@pytest.mark.parametrize("case", SHARED)
def test_the_sound_is_the_references_but_for_the_fades(fixtures: Path, case: str) -> None:
    segments, pause_seconds, expected = inputs_of(fixtures, case)
    joined = joined_with_lead(segments, pause_seconds)
    assert joined.samples.shape == expected.shape
    faded = np.concatenate([fade(trimmed).samples for trimmed in map(trim, segments)])
    whole = np.concatenate([trimmed.samples for trimmed in map(trim, segments)])
    assert np.array_equal(expected[expected != 0], whole[whole != 0])
    assert np.array_equal(joined.samples[joined.samples != 0], faded[faded != 0])


@pytest.mark.parametrize("case", ["two_tones", "zero_gap", "default_gap", "quiet_middle_kept"])
def test_the_inside_of_every_segment_is_untouched(fixtures: Path, case: str) -> None:
    segments, pause_seconds, expected = inputs_of(fixtures, case)
    joined = joined_with_lead(segments, pause_seconds)
    start = round(REFERENCE_LEAD_SECONDS * RATE)
    for segment in segments:
        end = start + len(trim(segment).samples)
        inside = slice(start + FADE_SAMPLES, end - FADE_SAMPLES)
        assert np.array_equal(joined.samples[inside], expected[inside])
        start = end + round(pause_seconds * RATE)


@pytest.mark.parametrize("case", ["quiet_first_lost", "quiet_last_lost"])
def test_a_quiet_first_or_last_segment_is_kept_where_the_reference_loses_it(fixtures: Path, case: str) -> None:
    segments, pause_seconds, expected = inputs_of(fixtures, case)
    joined = joined_with_lead(segments, pause_seconds)
    assert len(expected) == 500 + 299
    assert len(joined.samples) == 500 + 299 + 50 + 299


def test_a_sample_that_is_no_number_is_an_error_where_the_reference_loses_the_segment(fixtures: Path) -> None:
    with pytest.raises(SynthesisError, match="1 of 5 samples"):
        inputs_of(fixtures, "nan_inside")


def test_join_puts_one_pause_between_neighbours() -> None:
    assert join([tone(1.0), tone(2.0), tone(3.0)], pause_seconds=0.5).seconds == pytest.approx(7.0)


def test_join_begins_at_once() -> None:
    assert join([tone(1.0)]).samples[0] != 0


def test_the_pause_is_a_twentieth_of_a_second_unless_asked_for() -> None:
    assert join([tone(1.0), tone(1.0)]).seconds == pytest.approx(2.05)


def test_a_silent_segment_adds_neither_sound_nor_pause() -> None:
    quiet = silence(3.0, RATE)
    assert join([quiet, tone(1.0), quiet, tone(1.0), quiet], 0.5).seconds == 2.5
    assert join([quiet, quiet], 0.5).seconds == 0


def test_joining_in_parts_gives_the_same_sound() -> None:
    sounds = [tone(0.3), silence(0.1, RATE), tone(0.2, peak=0.001), tone(0.4)]
    joiner = Joiner(RATE, pause_seconds=0.05)
    parts = [joiner.add(sound) for sound in sounds]
    whole = join(sounds, pause_seconds=0.05)
    assert np.array_equal(whole.samples, np.concatenate([part.samples for part in parts]))


def test_every_part_knows_where_its_sound_lies_in_the_whole() -> None:
    sounds = [silence(0.1, RATE), tone(0.3), silence(0.1, RATE), tone(0.2)]
    joiner = Joiner(RATE, pause_seconds=0.05)
    spans = [(part.start_samples, part.end_samples) for part in map(joiner.add, sounds)]
    assert spans == [(0, 0), (0, 300), (300, 300), (350, 550)]


@pytest.mark.parametrize("pause_seconds", [0.0, 0.05])
def test_no_border_clicks(pause_seconds: float) -> None:
    constant = Waveform(np.full(4800, 0.8, dtype=np.float32), 48000)
    joined = join([constant, constant], pause_seconds)
    steps = np.abs(np.diff(joined.samples, prepend=np.float32(0), append=np.float32(0)))
    # A raised cosine of 240 samples climbs by at most pi / 2 / 240 of its height a sample.
    assert steps.max() < 0.8 * 1.6 / 240


def test_a_fade_is_symmetric_and_as_long_as_it_says() -> None:
    faded = fade(Waveform(np.ones(100, dtype=np.float32), RATE)).samples
    assert np.array_equal(faded, faded[::-1])
    assert (faded[:FADE_SAMPLES] < 1).all()
    assert (faded[FADE_SAMPLES:-FADE_SAMPLES] == 1).all()


def test_trim_keeps_what_is_above_the_threshold_of_the_waveforms_own_peak() -> None:
    samples = np.array([0, 0.009, 0.011, 0, 1, 0, -0.011, 0.009, 0], dtype=np.float32)
    trimmed = trim(Waveform(samples, RATE), threshold_db=-40)  # a hundredth of the peak
    assert np.array_equal(trimmed.samples, samples[2:7])


def test_a_quiet_waveform_is_trimmed_like_a_loud_one() -> None:
    loud = Waveform(np.array([0.001, 0.5, 1, 0.5, 0.001], dtype=np.float32), RATE)
    quiet = Waveform(loud.samples * np.float32(1e-6), RATE)
    assert len(trim(loud).samples) == len(trim(quiet).samples) == 3


def test_read_only_samples_are_never_written() -> None:
    waveform = tone(0.1)
    waveform.samples.setflags(write=False)
    before = waveform.samples.copy()
    join([waveform, waveform], 0.0)
    assert np.array_equal(waveform.samples, before)


def test_different_sample_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="it has 2000 Hz, those before it 1000 Hz"):
        join([tone(0.1), tone(0.1, rate=2000)])


def test_there_must_be_something_to_join() -> None:
    with pytest.raises(ValueError, match="nothing to join"):
        join([])
