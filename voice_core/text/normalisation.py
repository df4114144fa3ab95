"""Brings a text into the spelling that the model was trained on."""

from __future__ import annotations

import re

from voice_core.speech import ENGLISH_WORDS
from voice_core.text.language import Language, language_of_script
from voice_core.text.spoken_english import spell_out

_HALF_WIDTH_KATAKANA = "ｦｧｨｩｪｫｬｭｮｯｰｱｲｳｴｵｶｷｸｹｺｻｼｽｾｿﾀﾁﾂﾃﾄﾅﾆﾇﾈﾉﾊﾋﾌﾍﾎﾏﾐﾑﾒﾓﾔﾕﾖﾗﾘﾙﾚﾛﾜﾝ"
_FULL_WIDTH_KATAKANA = (
    "ヲァィゥェォャュョッーアイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワン"
)
_FULL_WIDTH_OFFSET = ord("Ａ") - ord("A")  # letters and digits; of the marks only ！ and ？ are narrowed
_ALPHANUMERIC = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SPACES = "\t \u3000"
_ORNAMENTS = ";▼♀♂《》≪≫①②③④⑤⑥"
_DASHES = "\u02d7\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\u23af\u23e4\u2500\u2501\u2e3a\u2e3b"

_JAPANESE_CHARACTERS = str.maketrans(
    {
        **dict(zip(_HALF_WIDTH_KATAKANA, _FULL_WIDTH_KATAKANA, strict=True)),
        **{chr(ord(character) + _FULL_WIDTH_OFFSET): character for character in _ALPHANUMERIC},
        **dict.fromkeys("～〜", "ー"),
        **dict.fromkeys("●◯〇", "○"),
        **dict.fromkeys(_SPACES + _ORNAMENTS + _DASHES, ""),
        "！": "!",
        "？": "?",
        "♥": "♡",
    }
)
_ASIAN = (Language.JAPANESE, Language.CHINESE)
_LINE_BREAK_OF_SCRIPTS = "[n]"  # how the scripts among the training texts write a line break
_LONG_ELLIPSIS = re.compile("…{3,}")
_FIGURE = "[0-9０-９]"
_MEANS_SOMETHING = re.compile(f"[①-⑥]|[{_DASHES}](?={_FIGURE})|(?<={_FIGURE})[{_DASHES}]")  # yet is left out


def normalise(text: str, language: Language, normaliser: str | None = None) -> str:
    """Return the text as the model should read it; line breaks stay, they end segments.

    Japanese follows exactly the rules of the model's training: half-width katakana widened (but not their
    voicing marks), full-width letters and digits narrowed, spaces, dashes and some ornaments gone, at most
    two ellipses in a row.
    Any other text only loses the white space around its lines, unless the checkpoint names a `normaliser`: with
    ENGLISH_WORDS it is written as an English reader would say it, whatever language it is said to be in; but Japanese
    and Chinese in their own characters stay what they are.
    """
    in_words = normaliser == ENGLISH_WORDS and not (language in _ASIAN and language_of_script(text))
    if language is Language.JAPANESE and not in_words:
        unbroken = text.replace(_LINE_BREAK_OF_SCRIPTS, "")
        return _LONG_ELLIPSIS.sub("……", unbroken.translate(_JAPANESE_CHARACTERS))
    return "".join(_rewritten_line(line, in_words) for line in text.splitlines(keepends=True))


def signs_left_out(text: str) -> list[str]:
    """Return the signs of a Japanese text that `normalise` drops although they mean something: `−` in `−5度`, `①`."""
    return sorted(set(_MEANS_SOMETHING.findall(text)))


def _rewritten_line(line: str, in_words: bool) -> str:
    content = line.splitlines()[0]
    return (spell_out(content) if in_words else content.strip()) + line[len(content) :]
