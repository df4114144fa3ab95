"""Places to cut."""

import random

import pytest
import regex

from voice_core.text import (
    Language,
    Reference,
    complete_length,
    count_phonemes,
    estimate_seconds,
    normalise,
    split,
)
from voice_core.text.segmentation import LONGEST_WAIT_CHARACTERS

JA, ZH, EN, OTHER = Language.JAPANESE, Language.CHINESE, Language.ENGLISH, Language.OTHER
FAMILY = "👨‍👩‍👧‍👦"  # one character of seven code points


def letters(text: str) -> str:
    """Return the text without its white space."""
    return "".join(text.split())


@pytest.mark.parametrize(
    "sentence",
    [
        "The number is about 3.14 or so.",
        "Version v2.0.1-beta.3 came out on Monday.",
        "See http://www.example.org/index.html?x=1.2&y=a!b.C for the details.",
        "Write to someone@example.Com about it.",
        "Dr. Smith and Mr. and Mrs. O'Neil live in the U.S. Senate building.",
        "Take a fruit, e.g. an apple or a pear.",
        "Wait... what do you mean?",
        '"Hello there." she said to me.',
    ],
)
def test_a_sentence_is_not_parted_at_marks_that_do_not_end_it(sentence: str) -> None:
    follower = "And here comes the next one."
    assert split(f"{sentence} {follower}", EN, 30) == [sentence, follower]


@pytest.mark.parametrize(
    ("text", "language", "segments"),
    [
        (
            "He stopped to think. Then he slowly went on.",
            EN,
            ["He stopped to think.", "Then he slowly went on."],
        ),
        ("Is that right?! We had no idea of it.", EN, ["Is that right?!", "We had no idea of it."]),
        ("今日はいい天気ですね。散歩に行きましょう!", JA, ["今日はいい天気ですね。", "散歩に行きましょう!"]),
        ("円周率は3.14です。覚えましたか?", JA, ["円周率は3.14です。", "覚えましたか?"]),
        ("「もう帰ります。」彼は席を立った。", JA, ["「もう帰ります。」", "彼は席を立った。"]),
        ("『本当にそうなの?』彼女は驚いた。", JA, ["『本当にそうなの?』", "彼女は驚いた。"]),
        ("「もう帰ります。」と彼は言った。", JA, ["「もう帰ります。」と彼は言った。"]),
        ("他说：“我回家了。”然后走了。", ZH, ["他说：“我回家了。”", "然后走了。"]),
        ("昨天Dr. Wang来了。大家都很高兴。", ZH, ["昨天Dr. Wang来了。", "大家都很高兴。"]),
        ("Как у тебя дела? У меня всё хорошо.", OTHER, ["Как у тебя дела?", "У меня всё хорошо."]),
    ],
)
def test_sentences_are_segments_and_keep_their_closing_quotes(
    text: str, language: Language, segments: list[str]
) -> None:
    assert split(text, language, 30) == segments


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029", "\n\n \n"])
def test_a_newline_ends_a_segment_however_short(newline: str) -> None:
    assert split(f"Yes{newline}No", EN, 30) == ["Yes", "No"]


def test_short_neighbours_are_merged_until_they_are_long_enough() -> None:
    assert split("Yes. No. I will not tell you twice. He walked out without a word. Go.", EN, 30) == [
        "Yes. No. I will not tell you twice.",
        "He walked out without a word. Go.",
    ]


def test_short_neighbours_stay_apart_where_together_they_pass_the_limit() -> None:
    text = "Oh! " + "abide " * 7 + "with me."
    whole_seconds = estimate_seconds(text, EN)
    assert split(text, EN, whole_seconds) == [text]
    assert split(text, EN, whole_seconds - 0.1)[0] == "Oh!"


def test_long_sentences_are_cut_at_clause_marks_where_there_are_some() -> None:
    text = "When the rain had stopped at last, we went out into the wet garden, and nobody said a word."
    assert split(text, EN, 3) == [
        "When the rain had stopped at last,",
        "we went out into the wet garden,",
        "and nobody said a word.",
    ]


def test_clause_marks_keep_numbers_whole() -> None:
    text = "约翰花了1,234,567元，买了一辆又大又贵的车，然后在下雨天把它开进了河里。"
    segments = split(text, ZH, 4)
    assert "".join(segments) == text
    assert segments[0] == "约翰花了1,234,567元，"


def test_a_run_on_is_cut_between_words() -> None:
    words = ["seven", "hundred", "miles", "without", "any", "mark"] * 50
    segments = split(" ".join(words), EN, 10)
    assert " ".join(segments).split() == words
    assert all(5 <= estimate_seconds(segment, EN) <= 10 for segment in segments[:-1])


def test_japanese_without_marks_is_cut_where_phrases_begin() -> None:
    text = "句読点がまったくないとても長い文章を用意してこの関数がどのように動作するのかを確かめるために"
    segments = split(text, JA, 6)
    assert "".join(segments) == text
    assert len(segments) == 2
    assert regex.match(r"[\p{Han}\p{Katakana}]", segments[1])


def test_japanese_without_any_place_is_cut_by_length() -> None:
    assert split("か" * 80, JA, 8) == ["か" * 40, "か" * 40]


def test_an_address_in_japanese_is_whole_while_there_is_another_place() -> None:
    address = "https://example.com/a/b?c=1,2&d=3.14"
    segments = split("あ" * 40 + address + "い" * 40, JA, 12)
    assert sum(address in segment for segment in segments) == 1


def test_one_endless_word_is_cut_by_length() -> None:
    segments = split("a" * 500, OTHER, 8)
    assert "".join(segments) == "a" * 500
    assert all(len(segment) <= 72 for segment in segments)  # 72 characters of 0.11 s are 7.92 s


@pytest.mark.parametrize("longest_seconds", [0.6, 1, 3])
def test_characters_of_several_code_points_are_never_cut(longest_seconds: float) -> None:
    text = (FAMILY + "が\u3099" + "e\u0301" + "🇯🇵") * 20
    characters = regex.findall(r"\X", text)
    segments = split(text, OTHER, longest_seconds)
    assert [character for segment in segments for character in regex.findall(r"\X", segment)] == characters


@pytest.mark.parametrize(
    ("text", "language", "segments"),
    [
        ("...\nHello there\n!!!\n\nBye", EN, ["... Hello there !!!", "Bye"]),
        ("そうですか\n。\n「」\n終わりです", JA, ["そうですか。「」", "終わりです"]),
        ("😀 Hello there, my friend. 😀 😀", EN, ["😀 Hello there, my friend. 😀 😀"]),
        ("?!\n...", EN, ["?! ..."]),
        ("。", JA, ["。"]),
    ],
)
def test_marks_alone_go_with_their_neighbour(text: str, language: Language, segments: list[str]) -> None:
    assert split(text, language, 30) == segments


def test_a_word_whose_marks_alone_pass_the_limit_stays_whole() -> None:
    assert split("Noooo" + "!" * 60, EN, 8) == ["Noooo" + "!" * 60]


def test_a_hundred_thousand_marks_take_no_longer_than_letters() -> None:
    """Looked at again from each of them, they would take minutes."""
    text = "Nooo" + "?" * 200_000
    assert split(text, EN, 8) == [text]


def test_spelled_letters_may_end_a_sentence() -> None:
    assert split("I have lived in the u s. We have all lived there.", EN, 30) == [
        "I have lived in the u s.",
        "We have all lived there.",
    ]


def spoken_as_it_grows(text: str, language: Language) -> tuple[list[str], list[int]]:
    """Return the segments of a text that comes letter by letter, and how many letters waited when each was ready."""
    waiting, segments, waited = "", [], []
    for letter in text:
        waiting += letter
        length = complete_length(waiting, language)
        segments += split(waiting[:length], language, 30)
        waited += [len(waiting) - length] * (length > 0)
        waiting = waiting[length:]
    return segments + split(waiting, language, 30), waited


@pytest.mark.parametrize(
    ("text", "language", "waited"),
    [
        ("Here is a sentence. And here is the next.", EN, [1]),
        ("Here is a line of it.\nAnd here is the next.", EN, [0]),
        ("I am J. R. Tolkien, if you please. You must be another.", EN, [1]),
        ("I have lived in the U.S. We'll have lived there soon.", EN, []),
        ("I have lived in the U.S. We have all lived there.", EN, [3]),
        ('He said "Hi. You there." And so he went away again. What was left to say?', EN, [1, 1]),
        ("She asked “Is it you? Or is it not?” I was all ears and said nothing.", EN, [1]),
        ("So it was (it is. It will be.) And it is not.", EN, []),
        ("「もうお家に帰ります。」って彼は言いました。本当にそう言いましたよ。", JA, [1]),
        ("「もうお家に帰ります。ここで待っていて。」彼は黙って席を立った。", JA, [1]),
        ("他说：“我现在要回家了。我累了。”然后他就走了。", ZH, [1]),
    ],
)
def test_a_growing_text_has_the_segments_of_the_whole_as_soon_as_nothing_can_change_them(
    text: str, language: Language, waited: list[int]
) -> None:
    assert spoken_as_it_grows(text, language) == (split(text, language, 30), waited)


def test_a_quotation_that_never_closes_is_not_waited_for_for_ever() -> None:
    text = 'The pipe is 5" wide. ' + "This is how it goes on and on. " * 20
    segments, waited = spoken_as_it_grows(text, EN)
    assert segments == split(text, EN, 30)
    assert max(waited) == LONGEST_WAIT_CHARACTERS + 1


@pytest.mark.parametrize("text", ["", "  ", "\n\n", "\u3000\t\r\n"])
def test_nothing_has_no_segments(text: str) -> None:
    assert split(text, EN, 30) == []


def test_the_limit_holds_at_the_pace_of_the_recording() -> None:
    text = "か" * 50
    slow = Reference(seconds=15.0, transcript="か" * 50, language=JA)
    assert len(split(text, JA, 10)) == 1
    assert all(estimate_seconds(segment, JA, slow) <= 10 for segment in split(text, JA, 10, slow))


def test_the_limit_holds_beyond_the_longest_estimate() -> None:
    segments = split("あ" * 5000, JA, 200)
    assert all(estimate_seconds(segment, JA) < 120 for segment in segments)


PIECES = [
    *[
        "今日",
        "はい、",
        "カタカナ。",
        "「そう。」",
        "本当!?",
        "……",
        "句読点がない文章",
        "ですね",
        "ー",
        "『え?』",
        "。",
    ],
    *["人工智能", "正在改变世界。", "“好！”", "这是一个，", "值得思考的问题……", "1,234元", "是吗？"],
    *["Dr.", "Smith", '"Stop."', "e.g.", "http://a.b/c?x=1.5!", "well,", "U.S.", "wait...", "strengths!"],
    *["(yes)", "--", "—", "no;", "221B", ":)", "éte\u0301", "3.14", "Привет,", "мир!", "Как дела?"],
    *[FAMILY, "😀", "🇯🇵", "!!!", "...", "。。", "-", '"'],
    *[" ", "  ", "\n", "\r\n", "\u2028", "\u3000", "\t", " ", " ", " ", " "],
]


def random_text(generator: random.Random) -> str:
    return "".join(generator.choices(PIECES, k=generator.choice([1, 3, 10, 40, 150])))


def marks_pass(longest_seconds: float, segment: str, language: Language) -> bool:
    """Tell if the marks around a spoken character are alone too much for a segment."""
    spoken = [place for place, character in enumerate(segment) if character.isalnum()] or [0]
    ends = segment[: spoken[0] + 1], segment[spoken[-1] :]
    return len(spoken) == 1 or any(estimate_seconds(end, language) > longest_seconds for end in ends)


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("longest_seconds", [2.0, 8.0, 40.0])
def test_any_text_is_parted_by_the_rules(language: Language, longest_seconds: float) -> None:
    generator = random.Random(f"{language} {longest_seconds}")
    for _ in range(60):
        text = normalise(random_text(generator), language)
        segments = split(text, language, longest_seconds)
        assert letters("".join(segments)) == letters(text)  # nothing is lost or reordered
        assert segments == [segment.strip() for segment in segments]
        assert all(segments)
        assert all("\n" not in segment and "\u2028" not in segment for segment in segments)
        if any(character.isalnum() for character in text):
            assert all(any(character.isalnum() for character in segment) for segment in segments)
        for segment in segments:
            if estimate_seconds(segment, language) > longest_seconds:
                assert marks_pass(longest_seconds, segment, language)
        assert split(text, language, longest_seconds) == segments


@pytest.mark.parametrize(
    ("language", "words"),
    [
        (JA, ["来年の", "旅行について", "ゆっくり", "歩きながら", "話しました", "コンピューターの"]),
        (ZH, ["人工智能", "正在改变", "世界", "我们应该", "如何应对"]),
        (EN, ["seven ", "hundred ", "miles ", "without ", "any ", "mark "]),
    ],
)
def test_a_long_text_is_counted_only_a_few_times(language: Language, words: list[str]) -> None:
    text = "".join(random.Random(20_000).choices(words, k=3000))
    count_phonemes.cache_clear()
    segments = split(text, language, 8)
    assert count_phonemes.cache_info().misses < 3 * len(segments)
