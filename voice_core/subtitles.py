"""Reads and writes subtitles: SRT, WebVTT and a list in JSON. Text that is to be spoken is never lost on the way.

A reader of our own, because the libraries read for eyes: they take a broken cue for text of the one before it, speak
WebVTT's remarks and identifiers, and drop a last line that is a number ("The answer is / 42").
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from voice_core.errors import RequestError

FIELD = "cues"  # of a request, which every error names
CAPTION_FORMATS = {"srt": "application/x-subrip", "vtt": "text/vtt", "json": "application/json"}
LONGEST_TOLD_CHARACTERS = 60  # of a line quoted in an error
LONGEST_SPEAKER_CHARACTERS = 256

_TIME = re.compile(r"(-)?(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?$")
_NUMBER = re.compile(r"\s*\d{1,9}\s*$")
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s([^<>]*)>")
# What is known to be no text: the formats' own tags, positions in braces ({\an8}), times of words (<00:01.500>). A word
# that somebody put in angle brackets is text.
_READING = re.compile(r"<rt(?:\.[^<>]*)?>.*?(?:</rt>|(?=</ruby>|$))", re.IGNORECASE | re.DOTALL)  # says the base again
_TAG = re.compile(r"</?(?:b|i|u|s|c|v|lang|ruby|rt|font|span|br)(?:[.\s/][^<>]*)?>|<[\d:.]+>", re.IGNORECASE)
_OVERRIDE = re.compile(r"\{\\[^{}]*\}")
_ENTITY = re.compile(r"&#?\w+;")
_BRACKETED = re.compile(r"\[([^\[\]]+)\]\s*")
_JSON_KEYS = {"start_seconds", "end_seconds", "text", "speaker", "index"}  # the last one is what captions write


@dataclass(frozen=True)
class Cue:
    """A text and when it is said."""

    start_seconds: float
    end_seconds: float
    text: str  # one line, without formatting
    speaker: str | None = None

    @property
    def seconds(self) -> float:
        return round(self.end_seconds - self.start_seconds, 6)  # 4.6 - 3.1 is 1.4999999999999996, a frame less


@dataclass(frozen=True)
class CueSheet:
    """The cues of a file in its order; those without text are left out, and told."""

    cues: tuple[Cue, ...]
    numbers: tuple[int, ...]  # place of each cue in the file, from 1, as errors count
    empty_numbers: tuple[int, ...] = ()


def read_cues(source: str | bytes | Sequence[object], speakers: Collection[str] = ()) -> CueSheet:
    """Return the cues of an SRT file, a WebVTT file, or a list as JSON holds it (also as its text).

    Who speaks is told by WebVTT's voice tags (`<v Ann>`) and by JSON's `speaker`. In SRT a name in brackets at the
    beginning (`[Ann] Hello.`) is one only if it is among `speakers`: `[laughs]` isn't.

    Raises RequestError naming the cue, its line and what is wrong with it.
    """
    if not isinstance(source, str | bytes):
        return _sheet(_from_json(source))
    text = _decoded(source).removeprefix("\ufeff")
    text = text.replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n")
    if text.lstrip().startswith(("[", "{")):
        return _sheet(_from_json(_parsed(text)))
    if text.lstrip().startswith("WEBVTT"):
        return _sheet(_from_vtt(text.lstrip("\n\t ").split("\n")))
    return _sheet(_from_srt(text.split("\n"), speakers))


def write_captions(cues: Iterable[Cue], caption_format: str) -> str:
    """Return the text of a caption file; `caption_format` is one of CAPTION_FORMATS."""
    match caption_format:
        case "json":
            return json.dumps(caption_rows(cues), ensure_ascii=False)
        case "vtt":
            blocks = [f"{_told_times(cue, '.')}\n{_vtt_text(cue)}\n" for cue in cues]
            return "\n".join(["WEBVTT\n", *blocks])
        case "srt":
            blocks = [f"{number}\n{_told_times(cue, ',')}\n{_srt_text(cue)}\n" for number, cue in enumerate(cues, 1)]
            return "\n".join(blocks)
        case _:
            raise RequestError("captions", f"{caption_format!r} is not one of {', '.join(CAPTION_FORMATS)}")


def caption_rows(cues: Iterable[Cue]) -> list[dict[str, Any]]:
    """Return the captions as JSON holds them; `read_cues` reads them again."""
    return [
        {
            "index": index,
            "start_seconds": round(cue.start_seconds, 3),
            "end_seconds": round(cue.end_seconds, 3),
            "text": cue.text,
        }
        | ({} if cue.speaker is None else {"speaker": cue.speaker})
        for index, cue in enumerate(cues)
    ]


def _sheet(found: Iterable[Cue]) -> CueSheet:
    """Check what all formats have in common."""
    cues, numbers, empty = [], [], []
    for number, cue in enumerate(found, 1):
        if not cue.text:
            empty.append(number)
            continue
        if cue.start_seconds < 0:
            _refuse(number, f"begins at {cue.start_seconds:g} s, before the film does")
        if cue.end_seconds <= cue.start_seconds:
            _refuse(number, f"ends at {cue.end_seconds:g} s, and begins at {cue.start_seconds:g} s")
        cues.append(cue)
        numbers.append(number)
    if not cues:
        raise RequestError(FIELD, "hold nothing to say")
    return CueSheet(tuple(cues), tuple(numbers), tuple(empty))


def _decoded(source: str | bytes) -> str:
    try:
        text = source.decode("utf-8-sig") if isinstance(source, bytes) else source
        text.encode()  # half of a surrogate pair
    except UnicodeDecodeError as error:
        raise RequestError(FIELD, f"are not UTF-8: byte {error.start} is {source[error.start]!r}") from error
    except UnicodeEncodeError as error:
        raise RequestError(FIELD, f"half of a surrogate pair at character {error.start}") from error
    return text


def _from_srt(lines: list[str], speakers: Collection[str]) -> Iterator[Cue]:
    """Cues are found by their times: files lack numbers, or the empty line between two cues."""
    at = [place for place, line in enumerate(lines) if "-->" in line]
    if not at:
        raise RequestError(FIELD, "are neither SRT nor WebVTT nor a list in JSON: no line holds a time and '-->'")
    last_number = _first_number(lines[: at[0]])  # as the file has it; None where cues have no numbers
    for number, (place, next_place) in enumerate(zip(at, [*at[1:], len(lines) + 1], strict=True), 1):
        start_seconds, end_seconds = _times(lines[place], number, place + 1)
        body = lines[place + 1 : next_place]
        if next_place <= len(lines):
            body, last_number = _without_next_number(body, number, last_number)
        text = _plain("\n".join(body))
        speaker = None
        named = _BRACKETED.match(text)
        if named and named[1].strip() in speakers:
            speaker, text = named[1].strip(), text[named.end() :]
        yield Cue(start_seconds, end_seconds, text, speaker)


def _without_next_number(body: list[str], number: int, last_number: int | None) -> tuple[list[str], int | None]:
    """Take off the number of the cue that comes, and return it; one that stands in a text's last line is part of it.

    Where cues have no numbers, only the one that would be next is no text: "The year: / / 1984" is.
    """
    last = max((place for place, line in enumerate(body) if line.strip()), default=-1)
    if last < 0 or not _NUMBER.match(body[last]):
        return body, last_number
    found = int(body[last])
    expected = found == number + 1 or (last_number is not None and found == last_number + 1)
    apart = last == 0 or not body[last - 1].strip()
    if expected or (apart and last_number is not None):
        return body[:last], found
    return body, last_number


def _first_number(lines: list[str]) -> int | None:
    """Return the number of the first cue, which is all that may stand before its times."""
    told = [(place, line) for place, line in enumerate(lines, 1) if line.strip()]
    number = int(told.pop()[1]) if told and _NUMBER.match(told[-1][1]) else None
    if told:
        place, line = told[0]
        raise RequestError(FIELD, f"line {place}: {_quoted(line)} stands before the first cue's times")
    return number


def _from_vtt(lines: list[str]) -> Iterator[Cue]:
    number, header_lines = 0, 1  # up to an empty line or a cue
    while header_lines < len(lines) and lines[header_lines].strip() and "-->" not in lines[header_lines]:
        header_lines += 1
    for first_line, block in _blocks(lines, header_lines):
        if re.match(r"(NOTE|STYLE|REGION)(\s|$)", block[0]) and "-->" not in block[0]:
            continue
        at = next((place for place, line in enumerate(block[:2]) if "-->" in line), None)
        if at is None:  # a browser would show it nowhere; here it may be the rest of a cue with an empty line in it
            raise RequestError(FIELD, f"line {first_line}: {_quoted(block[0])} belongs to no cue")
        number += 1
        start_seconds, end_seconds = _times(block[at], number, first_line + at)
        body = "\n".join(block[at + 1 :])
        if "-->" in body:
            _refuse(number, "has a second line of times; an empty line must stand between two cues")
        speakers = {html.unescape(name).strip() for name in _VOICE.findall(body)}
        if len(speakers) > 1:
            _refuse(number, f"is spoken by {' and '.join(sorted(map(repr, speakers)))}; give each their own cue")
        yield Cue(start_seconds, end_seconds, _plain(body), next(iter(speakers), None))


def _blocks(lines: list[str], passed_lines: int) -> Iterator[tuple[int, list[str]]]:
    """Return what empty lines divide after the first `passed_lines`, each with the number of its first line."""
    block: list[str] = []
    for place, line in enumerate([*lines[passed_lines:], ""], passed_lines + 1):
        if line.strip():
            block.append(line)
        elif block:
            yield place - len(block), block
            block = []


def _times(line: str, number: int, line_number: int) -> tuple[float, float]:
    start, _, rest = line.partition("-->")
    settings = rest.split()
    if not start.strip() or not settings:
        _refuse(number, f"line {line_number}: {_quoted(line)} is no time of begin and end")
    return _seconds(start.strip(), number, line_number), _seconds(settings[0], number, line_number)


def _seconds(time: str, number: int, line_number: int) -> float:
    found = _TIME.match(time)
    if found is None or int(found[3]) > 59 or int(found[4]) > 59:
        _refuse(number, f"line {line_number}: {_quoted(time)} is no time such as 00:01:02,345")
    sign, hours, minutes, seconds, fraction = found.groups()
    magnitude = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int((fraction or "0").ljust(3, "0")) / 1000
    return -magnitude if sign else magnitude


def _from_json(document: object) -> Iterator[Cue]:
    if not isinstance(document, Sequence) or isinstance(document, str | bytes):
        raise RequestError(FIELD, "must be the text of an SRT or WebVTT file, or a list of cues in JSON")
    for number, cue in enumerate(document, 1):
        if not isinstance(cue, dict):
            _refuse(number, 'must be an object: {"start_seconds", "end_seconds", "text"} and perhaps "speaker"')
        for key in cue:
            if key not in _JSON_KEYS:
                _refuse(number, f"{_quoted(str(key))} is not one of {', '.join(sorted(_JSON_KEYS))}")
        text, speaker = cue.get("text"), cue.get("speaker")
        if not isinstance(text, str):
            _refuse(number, "text: must be a text")
        if speaker is not None and (not isinstance(speaker, str) or len(speaker) > LONGEST_SPEAKER_CHARACTERS):
            _refuse(number, f"speaker: must be a text of at most {LONGEST_SPEAKER_CHARACTERS} characters")
        start_seconds, end_seconds = (_number(cue, key, number) for key in ("start_seconds", "end_seconds"))
        named = " ".join(_decoded(speaker or "").split()) or None
        yield Cue(start_seconds, end_seconds, " ".join(_decoded(text).split()), named)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(FIELD, f"are not JSON: {error}") from error


def _number(cue: dict[object, object], key: str, number: int) -> float:
    value = cue.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(number, f"{key}: must be a number of seconds")
    try:
        seconds = float(value)
    except OverflowError:  # JSON knows no largest number
        seconds = math.inf
    if not math.isfinite(seconds):
        _refuse(number, f"{key}: must be a number of seconds")
    return seconds


def _plain(body: str) -> str:
    """Return a cue's lines as one text without formatting."""
    bare = _OVERRIDE.sub("", _TAG.sub(" " if "<br" in body.lower() else "", _READING.sub("", body)))
    return _one_line(_ENTITY.sub(lambda entity: html.unescape(entity[0]), bare).replace("\\N", "\n"))


def _one_line(lines: str) -> str:
    """Join lines by spaces; characters that know no spaces meet without one."""
    text = ""
    for line in filter(None, (" ".join(line.split()) for line in lines.split("\n"))):
        text += ("" if not text or (_spaceless(text[-1]) and _spaceless(line[0])) else " ") + line
    return text


def _spaceless(character: str) -> bool:
    """Kana, Chinese characters and their punctuation; not Hangul, which has spaces."""
    return "\u2e80" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff" or "\uff00" <= character <= "\uffef"


def _srt_text(cue: Cue) -> str:
    return _one_line(cue.text).replace("-->", "→")  # SRT has no other way to say it


def _vtt_text(cue: Cue) -> str:
    text = html.escape(_one_line(cue.text), quote=False)
    return text if cue.speaker is None else f"<v {html.escape(cue.speaker, quote=False)}>{text}"


def _told_times(cue: Cue, mark: str) -> str:
    return f"{_told_time(cue.start_seconds, mark)} --> {_told_time(cue.end_seconds, mark)}"


def _told_time(seconds: float, mark: str) -> str:
    milliseconds = round(max(0.0, seconds) * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{mark}{milliseconds % 1000:03}"


def _quoted(text: str) -> str:
    return repr(text.strip()[:LONGEST_TOLD_CHARACTERS])


def _refuse(number: int, reason: str) -> NoReturn:
    raise RequestError(FIELD, f"cue {number}: {reason}")
