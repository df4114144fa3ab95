"""Phonemes of every language."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from voice_core.text import Language, count_phonemes


@pytest.mark.parametrize("language", [Language.JAPANESE, Language.CHINESE, Language.OTHER])
def test_phonemes_are_the_reference_s(fixtures: Path, language: Language) -> None:
    path = fixtures / "text" / "duration_langdetect_openjtalk_pinyin.json"
    items = json.loads(path.read_text(encoding="utf-8"))
    ours = {item["text"]: count_phonemes(item["text"], language) for item in items}
    assert ours == {item["text"]: item["phonemes"][language] for item in items}


def test_english_is_counted_in_phonemes_not_in_letters() -> None:
    assert count_phonemes("through", Language.ENGLISH) == 3


def test_japanese_longer_than_its_library_takes_is_counted_all_the_same() -> None:
    assert count_phonemes("あ" * 12_000, Language.JAPANESE) == 12_000


def test_japanese_is_counted_alike_in_many_threads() -> None:
    texts = [f"今日は{number}月です。" for number in range(1, 13)] * 4
    with ThreadPoolExecutor(8) as threads:
        counted = list(threads.map(lambda text: count_phonemes.__wrapped__(text, Language.JAPANESE), texts))
    assert counted == [count_phonemes(text, Language.JAPANESE) for text in texts]
