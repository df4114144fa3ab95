"""Languages of tags and texts."""

import pytest

from voice_core.errors import RequestError
from voice_core.text import Language, detect_language, parse_language


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("ja", Language.JAPANESE),
        ("ja-JP", Language.JAPANESE),
        ("JA-jp", Language.JAPANESE),
        ("zh", Language.CHINESE),
        ("zh-Hant-TW", Language.CHINESE),
        ("yue", Language.CHINESE),
        ("en", Language.ENGLISH),
        ("en-US", Language.ENGLISH),
        ("ko", Language.OTHER),
        ("pt-BR", Language.OTHER),
    ],
)
def test_a_tag_means_its_primary_language(tag: str, language: Language) -> None:
    assert parse_language(tag) is language


@pytest.mark.parametrize("tag", ["", "j", "english", "en_US", "en-", "日本語", "en US", "ja\n"])
def test_what_is_no_tag_is_refused_with_the_field_and_the_tag(tag: str) -> None:
    with pytest.raises(RequestError, match=r"^language: ") as refusal:
        parse_language(tag)
    assert repr(tag) in refusal.value.reason


@pytest.mark.parametrize(
    "text",
    [
        "これは日本語です。",
        "カタカナ",
        "全角英数ＡＢＣｘｙｚ０１２３と半角ｶﾀｶﾅﾃｽﾄ",
        "ﾊﾟﾋﾟﾌﾟ",
        "\n先頭に改行があります。",
        "今日はHello Worldと言いました。",
    ],
)
def test_kana_make_a_text_japanese(text: str) -> None:
    assert detect_language(text) is Language.JAPANESE


@pytest.mark.parametrize("text", ["人工智能正在改变世界。", "他说 hello。", "約翰·史密斯"])
def test_ideographs_without_kana_make_it_chinese(text: str) -> None:
    assert detect_language(text) is Language.CHINESE


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("¯\\_(ツ)_/¯ whatever, I really do not know what to say.", Language.ENGLISH),
        ("The character 世 means world, and it is in the name of every newspaper.", Language.ENGLISH),
        ("I love ラーメン so much", Language.ENGLISH),
        ("iPhone 16 Pro、買っちゃった！", Language.JAPANESE),
        ("YouTubeでmusic videoを見た", Language.JAPANESE),
        ("東京都知事選挙の結果", Language.JAPANESE),
        ("人工智能正在改变世界。" * 5 + "ツ", Language.CHINESE),
    ],
)
def test_a_few_characters_do_not_decide_for_the_whole_text(text: str, language: Language) -> None:
    assert detect_language(text) is language


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3.14",
        "…",
        "😀",
        "Hello",
        "OK then",
        "Yes. " * 20,
        "ALL CAPS SHOUTING! lower case. Mixed Case?",
        "Mr. and Mrs. O'Neil live at 221B Baker St.",
        "https://www.example.com/index",
    ],
)
def test_english_is_also_what_can_not_be_told(text: str) -> None:
    assert detect_language(text) is Language.ENGLISH


@pytest.mark.parametrize(
    "text",
    [
        "Привет",
        "안녕하세요",
        "Das ist ein kleiner Test, der etwas länger ist als der erste Satz.",
        "Bonjour tout le monde, comment allez-vous aujourd'hui ?",
    ],
)
def test_other_scripts_and_clearly_foreign_texts_are_other(text: str) -> None:
    assert detect_language(text) is Language.OTHER


def test_the_same_text_gets_the_same_answer_every_time() -> None:
    undecided = "Hallo, this is det same Satz in tre lingue, or not."
    assert len({detect_language(undecided) for _ in range(20)}) == 1
