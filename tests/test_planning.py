import itertools

import pytest

from voice_core.errors import RequestError
from voice_core.planning import SHORTEST_SEGMENT_SECONDS, plan
from voice_core.text import Language, Reference

ALPHABET = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ',.?!"
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
        ("か" * 1000, {"split": False, "speed": 4.0, "longest_seconds": 40.0}, "segment"),
        ("The letter 世.", {"alphabet": "Thelr. "}, "input"),
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


@pytest.mark.parametrize("text", ["Hi.", "Yes!", "No."])
def test_a_short_text_is_spoken_as_fast_as_can_be(text: str) -> None:
    assert [segment.seconds for segment in plan(text, longest_seconds=8, speed=4.0).segments] == [0.25]


@pytest.mark.parametrize("text", ["Nooooo" + "!" * 40, "Chapter one " + "……… " * 5 + "five", "Hello" + "." * 24])
@pytest.mark.parametrize("split", [True, False])
def test_runs_of_marks_ask_for_no_longer_pause_than_the_model_can_make(text: str, split: bool) -> None:
    planned = plan(text, longest_seconds=8, split=split)
    assert "".join(segment.text for segment in planned.segments).replace(" ", "") == text.replace(" ", "")
    assert max(segment.seconds for segment in planned.segments) <= 8


def test_no_word_is_cut_to_be_spoken_slowly() -> None:
    (hi_there,) = plan("Hi there", longest_seconds=8, seconds=8).segments
    assert hi_there.text == "Hi there"
    words = TEXT.split()
    for seconds in (40.0, 60.0, 85.0):
        pieces = plan(TEXT, longest_seconds=8, seconds=seconds).segments
        assert [word for piece in pieces for word in piece.text.split()] == words
    slow = plan("Antidisestablishmentarianism!", longest_seconds=8, speed=0.25).segments
    assert [(piece.text, piece.seconds) for piece in slow] == [("Antidisestablishmentarianism!", 8.0)]


def test_japanese_is_drawn_out_between_characters_but_never_within_latin_words() -> None:
    pieces = plan("今日はHello Worldと言いました。", longest_seconds=4, seconds=6).segments
    assert len(pieces) > 1
    assert "HelloWorld" in " ".join(piece.text for piece in pieces)


@pytest.mark.parametrize("text", [TEXT, "Hi there", "今日はとても良い天気ですね。"])
@pytest.mark.parametrize("seconds", [0.01, 1e4, 1e308])
def test_seconds_that_cannot_be_are_refused_with_those_that_can(text: str, seconds: float) -> None:
    with pytest.raises(RequestError, match=r"^seconds: ") as caught:
        plan(text, longest_seconds=8, seconds=seconds)
    assert len(caught.value.reason) < 100
    possible = float(caught.value.reason.split()[-2])
    assert sum(piece.seconds for piece in plan(text, longest_seconds=8, seconds=possible).segments) == pytest.approx(
        possible
    )


def test_a_model_that_reads_words_gets_figures_in_words() -> None:
    def spoken(text: str) -> str:
        planned = plan(text, longest_seconds=8, text_normaliser="english_words", alphabet=ALPHABET)
        return " | ".join(segment.text for segment in planned.segments)

    assert spoken("I paid $5 in 2024.") == "I paid five dollars in twenty twenty four."
    assert spoken("Room 42\nCafé naïve, Søren") == "Room forty two | Cafe naive, Soren"
    in_figures, in_words = (
        plan("In 1777.", longest_seconds=8, text_normaliser=name).segments[0] for name in (None, "english_words")
    )
    assert in_figures.text == "In 1777."
    assert in_words.seconds == plan("In seventeen seventy seven.", longest_seconds=8, language="en").segments[0].seconds


def test_seconds_that_are_asked_for_lose_no_frame_to_arithmetic() -> None:
    (segment,) = plan("Hello there, how are you?", longest_seconds=8, seconds=3.9).segments
    assert segment.seconds == 3.9


@pytest.mark.parametrize("language", ["ja", "zh", "de"])
def test_a_model_that_reads_words_gets_them_in_every_language(language: str) -> None:
    planned = plan(
        "Hello there, I have 5 apples.",
        longest_seconds=8,
        language=language,
        text_normaliser="english_words",
        alphabet=ALPHABET,
    )
    assert [segment.text for segment in planned.segments] == ["Hello there, I have five apples."]


def test_what_a_model_cannot_read_is_refused_by_name_and_never_left_out() -> None:
    with pytest.raises(RequestError, match="input: this voice can't read '世', '界'; it would leave them out"):
        plan("Hello 世界, dear world.", longest_seconds=8, alphabet=ALPHABET)
    with pytest.raises(RequestError, match=r"'4'"):
        plan("Room 4.", longest_seconds=8, alphabet=ALPHABET)
    with pytest.raises(RequestError, match=r"'₹'"):
        plan("Only ₹ five.", longest_seconds=8, alphabet=ALPHABET)
    with pytest.raises(RequestError, match=r"'п', 'р', 'и', 'в', 'е' and 1 more"):
        plan("привет", longest_seconds=8, alphabet=ALPHABET)


def test_signs_without_a_sound_may_be_left_out() -> None:
    assert plan("Hello 😀 → (world) ★", longest_seconds=8, alphabet=ALPHABET).segments


def test_a_mathematical_sign_is_no_ornament() -> None:
    with pytest.raises(RequestError, match="can't read '∑'"):
        plan("The ∑ of it", longest_seconds=8, alphabet=ALPHABET)


def test_letters_know_no_line_breaks() -> None:
    planned = plan("One.\nTwo.", longest_seconds=8, split=False, alphabet=ALPHABET)
    assert [segment.text for segment in planned.segments] == ["One. Two."]


def test_seconds_out_of_reach_give_way_to_the_nearest_where_that_is_wished() -> None:
    for seconds, nearest_seconds in ((0.1, SHORTEST_SEGMENT_SECONDS), (100.0, 20.0), (3.0, 3.0)):
        planned = plan("Hello.", longest_seconds=20, seconds=seconds, split=False, nearest=True)
        assert [segment.seconds for segment in planned.segments] == pytest.approx([nearest_seconds])
