"""Which language a text is in, as far as the model's pace and the Japanese rules depend on it."""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum
from functools import cache

from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory
from langdetect.lang_detect_exception import LangDetectException

from voice_core.errors import RequestError


class Language(StrEnum):
    """The languages that are counted each in its own way, and one name for all the others."""

    JAPANESE = "ja"
    CHINESE = "zh"
    ENGLISH = "en"
    OTHER = "other"


BCP_47 = "[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*"  # a language tag, as far as its form goes
_PRIMARY_SUBTAGS = {
    "ja": Language.JAPANESE,
    "jpn": Language.JAPANESE,
    "zh": Language.CHINESE,
    "zho": Language.CHINESE,
    "cmn": Language.CHINESE,
    "yue": Language.CHINESE,
    "en": Language.ENGLISH,
    "eng": Language.ENGLISH,
}
# The middle dot and the prolonged sound mark are left out: Chinese and decorated Latin text use them too.
_KANA = re.compile(r"[\u3041-\u3096\u30A1-\u30FA\u31F0-\u31FF\uFF66-\uFF9D]")
_IDEOGRAPH = re.compile(r"[\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\U00020000-\U0003FFFF]")
_OTHER_WORDS = re.compile(  # stretches of letters of other scripts
    r"[^\W\d_\u3005-\u3007\u3041-\u30FF\u31F0-\u31FF\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\uFF66-\uFF9F"
    r"\U00020000-\U0003FFFF]+"
)
_LEAST_KANA_SHARE = 0.05  # Japanese headlines have about a tenth; Chinese has a の for ornament now and then
_DETECTABLE_LETTERS = 20  # the detector takes shorter texts ("Hello", "OK then") for Dutch, Finnish or Welsh
_DETECTED_CHARACTERS = 2000  # more doesn't change the answer, it only takes longer
_SURE = 0.999  # it gives "Mr. and Mrs. O'Neil live at 221B Baker St." 0.996 for Danish


def parse_language(tag: str) -> Language:
    """Return what a request's language tag such as ``ja-JP`` or ``en`` means for us.

    Any well-formed tag (BCP 47) of a language that has no rules of its own is ``OTHER``.
    """
    if not re.fullmatch(BCP_47, tag):
        raise RequestError("language", f"{tag!r} is not a language tag such as 'ja', 'en-US' or 'ko'")
    primary, _, _ = tag.lower().partition("-")
    return _PRIMARY_SUBTAGS.get(primary, Language.OTHER)


def detect_language(text: str) -> Language:
    """Return the language of a text: kana make it Japanese, ideographs Chinese, else a detector decides.

    Kana and ideographs decide only where there are more of them than words in other scripts: a smile like
    ``¯\\_(ツ)_/¯`` or a quoted character leaves a sentence in its own language. A Chinese text with hardly any kana
    in it stays Chinese. What the detector isn't sure of is taken for English, and so is a text without letters or
    with only a few.
    """
    if written := language_of_script(text):
        return written
    letters = [character for character in text if character.isalpha()]
    latin_letters = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    if 2 * latin_letters < len(letters):
        return Language.OTHER
    if len(letters) < _DETECTABLE_LETTERS:
        return Language.ENGLISH
    return _detect_latin(text[:_DETECTED_CHARACTERS])


def language_of_script(text: str) -> Language | None:
    """Return what kana or ideographs make of a text, None where there are too few of them to decide."""
    kana, ideographs = len(_KANA.findall(text)), len(_IDEOGRAPH.findall(text))
    if kana + ideographs <= len(_OTHER_WORDS.findall(text)):
        return None
    is_japanese = kana >= _LEAST_KANA_SHARE * (kana + ideographs) and kana > 0
    return Language.JAPANESE if is_japanese else Language.CHINESE


def _detect_latin(text: str) -> Language:
    detector = _detectors().create()
    detector.append(text.lower())  # it takes capitals for German
    try:
        likeliest = detector.get_probabilities()[0]
    except (LangDetectException, IndexError):  # nothing that looks like a word: "wwwww", a lone address
        return Language.ENGLISH
    foreign = likeliest.lang != "en" and likeliest.prob >= _SURE
    return Language.OTHER if foreign else Language.ENGLISH


@cache
def _detectors() -> DetectorFactory:
    """Build our own factory: the library's shared one may be seen half loaded by a second thread."""
    factory = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    factory.set_seed(0)  # it draws at random; a request must get the same answer every time
    return factory
