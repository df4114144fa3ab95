"""The spelling that the model was trained on."""

import json
from pathlib import Path

import pytest

from voice_core.speech import ENGLISH_WORDS
from voice_core.text import Language, normalise


def test_japanese_is_spelled_as_the_reference_spells_it(fixtures: Path) -> None:
    items = json.loads((fixtures / "text" / "normalize_ja.json").read_text(encoding="utf-8"))["items"]
    ours = {item["text"]: normalise(item["text"], Language.JAPANESE) for item in items}
    assert ours == {item["text"]: item["normalize_ja"] for item in items}


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("ＡＺａｚ０９", "AZaz09"),
        ("ｦﾝｰｯ", "ヲンーッ"),
        ("ｶﾞ", "カﾞ"),
        ("そう〜だよ～", "そうーだよー"),
        ("え\u3000と a\tb", "えとab"),
        ("一—二–三−四‐五─六", "一二三四五六"),
        ("…………", "……"),
        ("…;…;…", "……"),
        ("...", "..."),
        ("行[n]末", "行末"),
        ("（。、：；）", "（。、：；）"),
        ("一\n二\r\n三\u2028四", "一\n二\r\n三\u2028四"),
    ],
)
def test_japanese_rules_one_by_one(text: str, normalised: str) -> None:
    assert normalise(text, Language.JAPANESE) == normalised


@pytest.mark.parametrize("language", [Language.ENGLISH, Language.CHINESE, Language.OTHER])
def test_other_languages_only_lose_the_white_space_around_their_lines(language: Language) -> None:
    text = "  One  — two；\t\r\n\n　三 ①！ \n"
    assert normalise(text, language) == "One  — two；\r\n\n三 ①！\n"


@pytest.mark.parametrize("language", Language)
def test_a_normalised_text_stays_as_it_is(language: Language) -> None:
    once = normalise(" ＡＢＣ〜 ｶﾀｶﾅ…………\r\n — end； ", language)
    assert normalise(once, language) == once


@pytest.mark.parametrize("language", Language)
def test_a_voice_that_reads_english_words_gets_them_whatever_the_language_is_said_to_be(language: Language) -> None:
    assert normalise("I have 5 apples — two; \n", language, ENGLISH_WORDS) == "I have five apples, two;\n"


def test_japanese_and_chinese_are_no_english_words() -> None:
    assert normalise("が 5", Language.JAPANESE, ENGLISH_WORDS) == "が5"
    assert normalise(" 世界 5", Language.CHINESE, ENGLISH_WORDS) == "世界 5"
