"""How long a text takes to say."""

import json
from pathlib import Path
from typing import Any

import pytest

from voice_core.text import Language, Reference, count_phonemes, estimate_seconds, parse_language
from voice_core.text.duration import pauses_seconds

SECONDS_PER_ENGLISH_PHONEME = 0.085


@pytest.fixture(scope="module")
def items(fixtures: Path) -> list[dict[str, Any]]:
    path = fixtures / "text" / "duration_langdetect_openjtalk_pinyin.json"
    loaded: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def items_without_dots(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items whose ellipses the reference doesn't count twice."""
    return [item for item in items if "..." not in item["text"]]


def test_pauses_are_the_reference_s(items_without_dots: list[dict[str, Any]]) -> None:
    ours = {item["text"]: pauses_seconds(item["text"]) for item in items_without_dots}
    assert ours == pytest.approx({item["text"]: item["punct_bonus"] for item in items_without_dots})


def test_an_ellipsis_of_dots_counts_once_where_the_reference_counts_its_dots_too(
    items: list[dict[str, Any]],
) -> None:
    dotted = [item for item in items if "..." in item["text"] and not item["text"].endswith("...")]
    assert dotted
    for item in dotted:
        dots_seconds = 3 * 0.4 * item["text"].count("...")
        assert pauses_seconds(item["text"]) == pytest.approx(item["punct_bonus"] - dots_seconds)
    assert pauses_seconds("...") == pauses_seconds("…") == 1.0
    assert pauses_seconds("Wait... what?") == pauses_seconds("Wait… what?") == 1.0


@pytest.mark.parametrize("tag", ["ja", "ja-JP", "zh", "yue", "ko"])
def test_estimates_are_the_reference_s(items_without_dots: list[dict[str, Any]], tag: str) -> None:
    language = parse_language(tag)
    ours = {item["text"]: estimate_seconds(item["text"], language) for item in items_without_dots}
    assert ours == pytest.approx({item["text"]: item[f"lang_{tag}"] for item in items_without_dots})


def test_english_estimates_are_the_reference_s_but_for_the_phonemes(
    items_without_dots: list[dict[str, Any]],
) -> None:
    for item in items_without_dots:
        counted = max(1, count_phonemes(item["text"], Language.ENGLISH))
        seconds = counted * SECONDS_PER_ENGLISH_PHONEME + item["punct_bonus"]
        assert estimate_seconds(item["text"], Language.ENGLISH) == pytest.approx(min(max(seconds, 0.5), 120.0))


def test_estimates_with_a_recording_are_the_reference_s(items: list[dict[str, Any]]) -> None:
    compared = 0
    for item in items:
        # Left out: recordings whose length the reference couldn't read, and English, counted otherwise.
        for case in item["with_reference"]:
            transcript = case["ref_text"] or ""
            if case["info"] != "ok" or transcript.startswith("This") or item["lang"] == "en":
                continue
            language = parse_language(case["target_lang"] or "ja")
            recorded = case["reference_lang"] and parse_language(case["reference_lang"])
            reference = Reference(case["ref_sec"], transcript, recorded)
            assert estimate_seconds(item["text"], language, reference) == pytest.approx(case["out"])
            compared += 1
    assert compared >= 20


def test_a_recording_sets_the_pace_and_keeps_three_tenths_of_the_pauses() -> None:
    three_seconds_of_thirty_phonemes = Reference(2.4, "あ" * 30, Language.JAPANESE)
    assert estimate_seconds("あ" * 50, Language.JAPANESE, three_seconds_of_thirty_phonemes) == pytest.approx(4.0)
    paused = "あ" * 25 + "。" + "あ" * 25
    assert estimate_seconds(paused, Language.JAPANESE, three_seconds_of_thirty_phonemes) == pytest.approx(4.12)


def test_the_bounds_of_a_pace_are_those_of_the_recorded_language() -> None:
    hasty_chinese = Reference(0.1, "这是参考音频的文本。", Language.CHINESE)
    assert estimate_seconds("あ" * 50, Language.JAPANESE, hasty_chinese) == pytest.approx(50 * 0.18)


def test_a_recording_without_a_transcript_is_taken_to_say_the_text() -> None:
    assert estimate_seconds("あ" * 50, Language.JAPANESE, Reference(4.5, "")) == pytest.approx(4.5)


def test_a_recording_s_language_is_detected_where_it_isn_t_told() -> None:
    assert estimate_seconds("あ" * 50, Language.JAPANESE, Reference(60.0, "こんにちは")) == pytest.approx(7.5)


def test_estimates_end_at_half_a_second_and_two_minutes() -> None:
    assert estimate_seconds("", Language.ENGLISH) == 0.5
    assert estimate_seconds("あ" * 5000, Language.JAPANESE) == 120.0


def test_pauses_end_at_ten_seconds() -> None:
    assert pauses_seconds("!" * 500) == 10.0
