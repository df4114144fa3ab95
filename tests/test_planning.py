import itertools

import pytest

from voice_core.errors import RequestError
from voice_core.planning import plan
from voice_core.text import Language, Reference

TEXT = "The cat sat on the mat. It was a fine day for everyone. Nobody knew what would happen next."


def total_seconds(*, seconds: float | None = None, speed: float = 1.0, pause_seconds: float = 0.0) -> float:
    planned = plan(TEXT, longest_seconds=8, seconds=seconds, speed=speed, pause_seconds=pause_seconds)
    return sum(segment.seconds for segment in planned.segments) + pause_seconds * (len(planned.segments) - 1)


def test_sentences_become_segments_with_durations() -> None:
    planned = plan(TEXT, longest_seconds=8)
    assert planned.language is Language.ENGLISH
    assert " ".join(segment.text for segment in planned.segments) == TEXT
    assert [1 < segment.seconds < 4 for segment in planned.segments] == [True] * 3


@pytest.mark.parametrize(("seconds", "pause_seconds"), [(5.0, 0.0), (5.0, 0.2), (30.0, 0.05), (60.0, 0.5)])
def test_seconds_are_those_of_the_whole_pauses_included(seconds: float, pause_seconds: float) -> None:
    assert total_seconds(seconds=seconds, pause_seconds=pause_seconds) == pytest.approx(seconds)


def test_seconds_are_shared_out_by_the_estimates() -> None:
    usual = plan(TEXT, longest_seconds=8).segments
    asked = plan(TEXT, longest_seconds=8, seconds=10).segments
    ratios = [slow.seconds / normal.seconds for slow, normal in zip(asked, usual, strict=True)]
    assert ratios == pytest.approx([ratios[0]] * 3)


def test_speed_divides_the_duration() -> None:
    assert total_seconds(speed=2.0) == pytest.approx(total_seconds() / 2)


def test_slow_speech_is_cut_into_smaller_segments() -> None:
    for options in ({"seconds": 40.0}, {"speed": 0.2}):
        planned = plan(TEXT, longest_seconds=8, **options)  # type: ignore[arg-type]
        assert len(planned.segments) > 3
        assert max(segment.seconds for segment in planned.segments) <= 8
        assert " ".join(segment.text for segment in planned.segments) == TEXT


def test_an_unsplit_text_is_one_segment() -> None:
    planned = plan("One.\nTwo and three.", longest_seconds=8, split=False)
    assert [segment.text for segment in planned.segments] == ["One.\nTwo and three."]


def test_the_requests_language_wins() -> None:
    assert plan("Hello there.", longest_seconds=8, language="ja-JP").language is Language.JAPANESE
    assert plan("Hello there.", longest_seconds=8, language="ja").segments[0].text == "Hellothere."


@pytest.mark.parametrize(
    ("text", "options", "field"),
    [
        ("", {}, "input"),
        (" \n\t ", {}, "input"),
        ("Hello.", {"language": "?"}, "language"),
        ("Hello there.", {"seconds": 0.1}, "seconds"),
        ("Hello there.", {"seconds": 3000.0}, "seconds"),
        (TEXT, {"seconds": 1.0, "pause_seconds": 0.5}, "seconds"),
        (TEXT, {"split": False, "longest_seconds": 2.0}, "segment"),
        ("Hi.", {"speed": 4.0}, "speed"),
    ],
)
def test_what_cannot_be_planned_is_refused_by_field(text: str, options: dict[str, object], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        plan(text, **{"longest_seconds": 8.0} | options)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_durations_keep_the_limit_for_every_pace() -> None:
    for speed, seconds in itertools.product((0.25, 0.5, 1.0, 3.0), (4.0, 8.0, 40.0)):
        planned = plan(TEXT * 5, longest_seconds=seconds, speed=speed)
        assert max(segment.seconds for segment in planned.segments) <= seconds * (1 + 1e-6)


@pytest.mark.parametrize("transcript", ["So it was said, and so it was done.", "そう言われて、そうなりました。"])
def test_a_slow_reference_slows_the_voice_down_whatever_language_it_speaks(transcript: str) -> None:
    fast, slow = (Reference(seconds, transcript) for seconds in (1.0, 9.0))
    durations = [
        sum(segment.seconds for segment in plan(TEXT, longest_seconds=8, reference=reference).segments)
        for reference in (fast, slow)
    ]
    assert durations[1] > 1.5 * durations[0]


def test_a_slow_reference_keeps_the_longest_segment() -> None:
    planned = plan(" ".join([TEXT] * 5), longest_seconds=4, reference=Reference(30.0, "Slow."))
    assert max(segment.seconds for segment in planned.segments) <= 4 * (1 + 1e-6)
    assert " ".join(segment.text for segment in planned.segments) == " ".join([TEXT] * 5)
