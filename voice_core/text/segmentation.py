"""Splits a text into the segments that are spoken in one go each: mostly one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import regex
import sentencex

from voice_core.text.duration import (
    FASTEST_SECONDS_PER_PHONEME,
    LONGEST_SECONDS,
    PACES,
    Reference,
    estimate_seconds,
)
from voice_core.text.language import Language

TOO_SHORT_SECONDS = 1.0  # "Yes." alone comes out hurried: the models were trained on pieces of 2 s and more

# Counting phonemes is slow, so a text is first taken for too long by what it hardly falls short of: so many
# for each character of a kind. (Vowels alone do, and are cut early. Chinese counts hanzi and whole Latin
# stretches; Japanese says "thought" with five phonemes, English "though" with two.)
_FEWEST_PHONEMES = {
    Language.JAPANESE: ((r"\p{Han}", 2.0), (r"[\p{Hiragana}\p{Katakana}]", 1.2), ("[A-Za-z0-9]", 0.7)),
    Language.CHINESE: ((r"\p{Han}", 1.0),),
    Language.ENGLISH: ((r"[\p{L}\p{N}]", 0.3),),
    Language.OTHER: ((r"\X", 1.0),),
}

_WIDE = r"[\u2E80-\uD7FF\uFF00-\uFFEF\U00020000-\U0003FFFF]"  # the scripts that are written without spaces
_CLOSERS = r"[”’»)\]}」』）】〉》］｝]*+"
_MARK = r"[。！？、，；：…—,;:.!?]"
_MARKS = rf"{_MARK}*+"
_WHOLE = r"(?![\p{M}\u200D])"  # a combining mark or a joiner belongs to the character before it

# Where a sentence may be cut, the best places first. ASCII marks count only before white space or a wide
# character, so that 3.14, 1,000 and addresses stay whole; a single full stop doesn't, it may belong to "Dr.". A run of
# marks is looked at once, from its beginning: from each of its marks, ten thousand would take minutes.
_CLAUSE_ENDS = regex.compile(
    rf"""(?<!{_MARK})[,;:.!?]*+[。！？、，；：…—]{_MARKS}{_CLOSERS}{_WHOLE}"""
    rf"""|(?:(?<!{_MARK})(?!\.(?!{_MARK})){_MARK}|--){_MARKS}["']?{_CLOSERS}{_WHOLE}(?=\s|{_WIDE})"""
)
_SPACES = regex.compile(rf"\s+{_WHOLE}")
# Where the next phrase of Japanese mostly begins.
_PHRASE_ENDS = regex.compile(r"\p{Hiragana}(?=[\p{Han}\p{Katakana}])")
# Anywhere but within Latin words, numbers and addresses.
_SCRIPT_ENDS = regex.compile(r"\X(?:(?<=[^\x00-\x7F])|(?=[^\x00-\x7F]))")
# Anywhere, but an emoji of several code points stays whole.
_CHARACTERS = regex.compile(r"\X")
_CUTS_BETWEEN_WORDS = (_CLAUSE_ENDS, _SPACES)
_CUTS_OUTSIDE_WORDS = (*_CUTS_BETWEEN_WORDS, _PHRASE_ENDS, _SCRIPT_ENDS)
_CUTS = (*_CUTS_OUTSIDE_WORDS, _CHARACTERS)
_WRITTEN_WITHOUT_SPACES = (Language.JAPANESE, Language.CHINESE)

# From the first letter or number of a line to the last.
_SPOKEN_PART = regex.compile(r"[\p{L}\p{N}](?:.*[\p{L}\p{N}])?")
# Within an address ("example.Org"), or where the sentence goes on after a quotation (「…。」と言った).
_NO_SENTENCE_END = regex.compile(r"(?<=[\x21-\x7E])(?=[\x21-\x7E])|(?<=[」』])(?=と|って)")
_AFTER_FULL_STOP = regex.compile(r"(?<=\.\s*)")
_CLOSERS_HERE = regex.compile(_CLOSERS)
_AFTER_SPELLED = regex.compile(r"\b[a-z] [a-z]\.\s+(?=[A-Z])")  # "in the u s. We": to the library, initials

# What is in one of these has no ends for the library, once it is closed.
_QUOTATIONS = ('""', "''", "“”", "‘’", "«»", "»«", "„“", "‹›", "「」", "《》", "()", "<>", "[]", "{}", "（）")
LONGEST_WAIT_CHARACTERS = 200  # for a quotation to be closed after an end in it; then it may be none: 5" pipes


def split(
    text: str,
    language: Language,
    longest_seconds: float,
    reference: Reference | None = None,
    *,
    longest_word_seconds: float = 0.0,
) -> list[str]:
    """Return the segments of a normalised text, in order; none is empty, and an empty text has none.

    - Nothing is lost: all that is missing from the joined segments is white space at their ends.
    - A segment is a sentence, never more than a line. Neighbours are merged where one would be too short.
    - A segment takes at most ``longest_seconds`` by ``estimate_seconds`` with the same reference. Longer
      sentences are cut near the middle: at clause marks, without them at spaces, else between characters.
    - Words are cut only where a piece takes more than ``longest_word_seconds``. Below, a segment that can't be cut
      between words (in Japanese and Chinese, between characters other than those of Latin words) stays longer.
    - A segment has a letter or a number in it, unless the whole text has none: marks and emoji alone go with
      their neighbour, even from a line of their own. So one with marks whose pauses alone pass the limit
      ("No!!!!!!!!!!") is longer.
    """
    limit = _Limit(language, longest_seconds, reference, longest_word_seconds)
    separator = "" if language in _WRITTEN_WITHOUT_SPACES else " "
    lines = [line.strip() for line in text.splitlines()]
    segments: list[str] = []
    for line in _attach_unspoken([line for line in lines if line], separator):
        sentences = _attach_unspoken(_sentences(line, language), "")
        pieces = [piece for sentence in sentences for piece in _cut(sentence, limit)]
        segments += [piece.strip() for piece in _merge_short(pieces, limit)]
    return segments


def has_words(text: str) -> bool:
    """Tell if anything in a text is to be heard: a letter or a number. Marks and emoji alone have no sound."""
    return _SPOKEN_PART.search(text) is not None


def complete_length(text: str, language: Language) -> int:
    """Return how many characters at the beginning of a growing text are sentences that nothing more will change.

    The last sentence is never among them ("It costs 3." may go on), unless its line has ended. Neither is one that the
    next word may go on with ("J. R. To" + "lkien"), nor one in a quotation or in brackets that are still open, for
    LONGEST_WAIT_CHARACTERS.
    """
    last_line_at = max(text.rfind(mark) for mark in "\n\r") + 1
    line = text[last_line_at:]
    ends = {end for end in _sentence_ends(line, language) if end < len(line)}
    sure = {end for end in ends if len(line) - end > LONGEST_WAIT_CHARACTERS}
    for continuation in _continuations(line):
        if ends <= sure:
            break
        ends &= sure.union(_sentence_ends(line + continuation, language))
    return last_line_at + max(ends, default=0)


def _continuations(line: str) -> Iterator[str]:
    """Yield what may be written next that tells best whether the sentences of a line have ended."""
    yield "て" if line.endswith("っ") else "x"
    yield from (f"x{pair[1]}" for pair in _QUOTATIONS if pair[0] in line)


@dataclass(frozen=True)
class _Limit:
    """How long a segment may be."""

    language: Language
    longest_seconds: float
    reference: Reference | None
    longest_word_seconds: float

    def keeps(self, text: str) -> bool:
        """Tell if the text is short enough to be a segment."""
        return self._takes_at_most(self.longest_seconds, text)

    def cuts(self, text: str) -> tuple[regex.Pattern[str], ...]:
        """Return where a text that is too long may be cut, the best places first."""
        if not self._takes_at_most(self.longest_word_seconds, text):
            return _CUTS
        return _CUTS_OUTSIDE_WORDS if self.language in _WRITTEN_WITHOUT_SPACES else _CUTS_BETWEEN_WORDS

    def too_short(self, text: str) -> bool:
        return self._seconds(text) < TOO_SHORT_SECONDS

    def _takes_at_most(self, longest_seconds: float, text: str) -> bool:
        if self._fewest_seconds(text) > longest_seconds:
            return False
        seconds = self._seconds(text)
        return seconds <= longest_seconds and seconds < LONGEST_SECONDS  # estimates stop there

    def _fewest_seconds(self, text: str) -> float:
        pace = PACES[self.language].usual if self.reference is None else FASTEST_SECONDS_PER_PHONEME
        kinds = _FEWEST_PHONEMES[self.language]
        return pace * sum(len(regex.findall(kind, text)) * phonemes for kind, phonemes in kinds)

    def _seconds(self, text: str) -> float:
        return estimate_seconds(text.strip(), self.language, self.reference)


def _sentences(line: str, language: Language) -> list[str]:
    """Return the sentences of a line, each with the white space after it."""
    ends = [end for end in _sentence_ends(line, language) if end < len(line)]
    return [line[start:end] for start, end in zip([0, *ends], [*ends, len(line)], strict=True)]


def _sentence_ends(line: str, language: Language) -> list[int]:
    """Return where the sentences end, mending what the library gets wrong.

    It takes the dot of "Dr. Wang" for an end where the language isn't English and a spelled "u s." for none, it gives
    some closing brackets to the next sentence, and it sees ends that are none.
    """
    ends = _library_ends(line, "en")
    if language in _WRITTEN_WITHOUT_SPACES:
        english_ends = set(ends)
        ends = [
            end for end in _library_ends(line, language) if end in english_ends or not _AFTER_FULL_STOP.match(line, end)
        ]
    ends = [_CLOSERS_HERE.match(line, end).end() for end in ends]
    ends = sorted({*ends, *(spelled.end() for spelled in _AFTER_SPELLED.finditer(line))})
    return [end for end in ends if not _NO_SENTENCE_END.match(line, end)]


def _library_ends(line: str, language: str) -> list[int]:
    return list(accumulate(len(sentence) for sentence in sentencex.segment(language, line)))


def _attach_unspoken(texts: list[str], separator: str) -> list[str]:
    """Join texts that have nothing to say to the one before, those at the beginning to the one after."""
    attached: list[str] = []
    last_is_spoken = True
    for text in texts:
        is_spoken = has_words(text)
        if attached and not (is_spoken and last_is_spoken):
            attached[-1] += separator + text
            last_is_spoken = last_is_spoken or is_spoken
        else:
            attached.append(text)
            last_is_spoken = is_spoken
    return attached


def _cut(text: str, limit: _Limit) -> list[str]:
    """Cut a text near its middle, and the halves again, until every piece keeps the limit."""
    if limit.keeps(text):
        return [text]
    spoken = _SPOKEN_PART.search(text)
    if spoken is None:
        return [text]
    start, stop = spoken.span()
    marks_keep_limit = limit.keeps(text[: start + 1]) and limit.keeps(text[stop - 1 :])
    cutting_words_helps = marks_keep_limit or not limit.keeps(spoken.group())
    end = _best_cut(text, (start, stop), limit.cuts(text) if cutting_words_helps else _CUTS_BETWEEN_WORDS)
    return [text] if end is None else [*_cut(text[:end], limit), *_cut(text[end:], limit)]


def _best_cut(text: str, spoken_span: tuple[int, int], kinds: tuple[regex.Pattern[str], ...]) -> int | None:
    """Return the place nearest to the middle among those of the best kind that part what is spoken."""
    start, stop = spoken_span
    for kind in kinds:
        ends: list[int] = [match.end() for match in kind.finditer(text) if start < match.end() < stop]
        if ends:
            return min(ends, key=lambda end: abs(2 * end - len(text)))
    return None


def _merge_short(pieces: list[str], limit: _Limit) -> list[str]:
    """Join a piece that is too short to the next one, the last to the one before, if the limit allows."""
    merged: list[str] = []
    for place, piece in enumerate(pieces):
        last = place == len(pieces) - 1
        if (
            merged
            and (limit.too_short(merged[-1]) or (last and limit.too_short(piece)))
            and limit.keeps(merged[-1] + piece)
        ):
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
