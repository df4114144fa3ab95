"""Turns cues into what is spoken for each: its segments, for its own seconds, with a seed of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from deployments.dub_request import DubRequest
from deployments.script import Reading
from deployments.speaking import work_seconds
from deployments.visit import current_visit
from voice_core.errors import RequestError
from voice_core.planning import Plan, plan
from voice_core.speech import MAX_SEED, PAUSE_SECONDS, ModelFacts, Segment
from voice_core.subtitles import Cue, CueSheet
from voice_core.text import has_words

LONGEST_CUE_CHARACTERS = 5000
STRETCHED_SECONDS = 0.05  # by which asked seconds may miss a cue's before it is told


class Fault(StrEnum):
    """What is to be told of a cue before it is put on the track."""

    FAST = "fast"  # more characters a second than one can follow
    SHORT = "short"  # its time is shorter than the model can speak the text in
    LONG = "long"  # its time is longer than the text can be drawn out to
    UNREADABLE = "unreadable"  # the voice can't read it: nothing is heard
    WORDLESS = "wordless"  # no letter and no number in it: nothing is to be heard
    FAILED = "failed"  # it could not be spoken: nothing is heard
    SILENT = "silent"  # what was spoken is silence
    UNFINISHED = "unfinished"  # the model didn't end by itself
    TOLERANCE = "tolerance"  # got seconds miss asked seconds


@dataclass(frozen=True)
class Line:
    """A cue as it is to be spoken: no segments where nothing is."""

    number: int  # of the cue in its file, from 1
    cue: Cue
    segments: tuple[Segment, ...]
    seed: int
    faults: tuple[Fault, ...] = ()
    reason: str | None = None  # why it is unreadable

    @property
    def asked_seconds(self) -> float:
        """How long the model is asked to speak, with the pauses between the segments of a long cue."""
        pauses = PAUSE_SECONDS * max(0, len(self.segments) - 1)
        return sum(segment.seconds for segment in self.segments) + pauses


def write_lines(
    wanted: DubRequest, sheet: CueSheet, facts: ModelFacts, readings: Mapping[str, Reading]
) -> tuple[Line, ...]:
    """Plan every cue, in the order of their times. Takes seconds for thousands, so it isn't for an event loop.

    `readings` are those of every voice. A cue that can't be read is refused where bad segments fail; else it is a line
    without segments, which says so.
    """
    request = current_visit().new_group()
    numbered = sorted(zip(sheet.numbers, sheet.cues, strict=True), key=lambda pair: (pair[1].start_seconds, pair[0]))
    return tuple(
        _line(wanted, number, cue, facts, readings[wanted.voice_of(cue.speaker)], request) for number, cue in numbered
    )


def dub_seconds(lines: Sequence[Line], best_of: int) -> float:
    """Return the seconds of speech in all rows, counted as those of a request for speech."""
    return best_of * sum(work_seconds(segment) for line in lines for segment in line.segments)


def cue_seed(seed: int, speaker: str | None, text: str, seconds: float) -> int:
    """Return a seed that depends on what is said and not on where it stands: an inserted cue changes no other."""
    content = json.dumps([seed, speaker or "", text, round(seconds * 1000)]).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest()) % (MAX_SEED + 1)


def _line(wanted: DubRequest, number: int, cue: Cue, facts: ModelFacts, reading: Reading, request: str) -> Line:
    seed = cue_seed(wanted.seed, cue.speaker, cue.text, cue.seconds)
    if not has_words(cue.text):
        return Line(number, cue, (), seed, (Fault.WORDLESS,))
    if len(cue.text) > LONGEST_CUE_CHARACTERS:
        raise _named(number, f"{len(cue.text)} characters, at most {LONGEST_CUE_CHARACTERS} are spoken in one cue")
    try:
        planned = _planned(wanted, cue, facts, reading)
    except RequestError as error:
        if error.field == "language":
            raise
        if wanted.on_bad_segment != "keep":
            raise _named(number, error.reason) from error
        return Line(number, cue, (), seed, (Fault.UNREADABLE,), error.reason)
    segments = tuple(
        Segment(piece.text, piece.seconds, index, (seed,), wanted.sampling, reading.prompt, request)
        for index, piece in enumerate(planned.segments)
    )
    line = Line(number, cue, segments, seed)
    return Line(number, cue, segments, seed, tuple(_faults(wanted, line)))


def _planned(wanted: DubRequest, cue: Cue, facts: ModelFacts, reading: Reading) -> Plan:
    return plan(
        cue.text,
        longest_seconds=facts.longest_seconds,
        language=wanted.language,
        seconds=cue.seconds,
        pause_seconds=PAUSE_SECONDS,
        split=cue.seconds > facts.longest_seconds,  # else in one go, which sounds best
        reference=reading.reference,
        text_normaliser=facts.text_normaliser,
        alphabet=facts.alphabet,
        nearest=True,
    )


def _faults(wanted: DubRequest, line: Line) -> list[Fault]:
    cue, faults = line.cue, []
    limit = wanted.max_characters_per_second
    if limit is not None and len(cue.text) / cue.seconds > limit:
        faults.append(Fault.FAST)
    if line.asked_seconds > cue.seconds + STRETCHED_SECONDS:
        faults.append(Fault.SHORT)
    if line.asked_seconds < cue.seconds - STRETCHED_SECONDS:
        faults.append(Fault.LONG)
    return faults


def _named(number: int, reason: str) -> RequestError:
    return RequestError("cues", f"cue {number}: {reason}")
