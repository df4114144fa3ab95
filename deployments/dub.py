"""Speaks cues and puts them on one track, each at its own time: the work of a dub, event by event."""

from __future__ import annotations

import asyncio
import base64
import logging
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import IO, Any, Self

from ray.exceptions import RayTaskError

from deployments.dub_request import DubRequest
from deployments.dub_script import Fault, Line
from deployments.errors import ApiError
from deployments.fan_out import in_order
from deployments.ignored import ignored_sampling
from deployments.shapes import CueRow, DubReport
from deployments.speaking import Utterance, Wishes
from voice_core.audio.formats import format_named
from voice_core.audio.joining import join
from voice_core.audio.streams import open_stream
from voice_core.audio.waveform import Waveform
from voice_core.errors import RequestError, SynthesisError
from voice_core.judging import is_silent
from voice_core.mastering import KEPT_BYTES, lead_left_out, write_track
from voice_core.speech import PAUSE_SECONDS, FinishReason, Segment
from voice_core.subtitles import Cue, CueSheet, caption_rows, write_captions
from voice_core.text import has_words
from voice_core.timeline import Timeline

PIECE_BYTES = 3 * 64 * 1024  # of the track in one event; base64 makes four of every three
TOLD_LU = 0.5  # that a track may be less loud than wished before it is told

logger = logging.getLogger("ray.serve")

Speak = Callable[[Segment, Wishes], Awaitable[list[Utterance]]]
Event = dict[str, Any]


@dataclass(frozen=True)
class SpokenLine:
    """A line and how it was spoken; its sound isn't kept here, for a film's is large."""

    line: Line
    faults: tuple[Fault, ...]
    reason: str | None = None  # why it can't be heard
    got_seconds: float = 0.0  # as spoken, before anything is trimmed, with the pauses in a long cue
    finish_reason: FinishReason | None = None  # of its segments, the first that isn't "stop"; None: not spoken
    seed: int | None = None  # of the first segment, as it was taken
    attempts: int = 0
    cached: bool = False

    @classmethod
    def of(cls, line: Line, utterances: Sequence[Utterance], faults: Sequence[Fault]) -> Self:
        if not utterances:
            return cls(line, (*line.faults, *faults), line.reason)
        speeches = [utterance.speech for utterance in utterances]
        reasons = [speech.finish_reason for speech in speeches]
        return cls(
            line,
            (*line.faults, *faults),
            got_seconds=sum(speech.seconds for speech in speeches) + PAUSE_SECONDS * (len(speeches) - 1),
            finish_reason=next((reason for reason in reasons if reason is not FinishReason.STOP), FinishReason.STOP),
            seed=speeches[0].seed,
            attempts=max(utterance.attempts for utterance in utterances),
            cached=all(utterance.cached for utterance in utterances),
        )


class Dub:
    """One dub on its way."""

    def __init__(
        self,
        wanted: DubRequest,
        sheet: CueSheet,
        lines: Sequence[Line],
        sample_rate: int,
        speak: Speak,
        at_once: Callable[[], int],
    ) -> None:
        """`sample_rate` in Hz is the codec's; `at_once` says how many segments may be under way."""
        self._wanted = wanted
        self._sheet = sheet
        self._lines = lines
        self._speak_segment = speak
        self._at_once = at_once
        self._timeline = Timeline(
            [line.cue for line in lines],
            sample_rate,
            overrun_seconds=wanted.overrun_seconds,
            track_seconds=wanted.track_seconds,
        )
        self._spoken: list[SpokenLine] = []
        self._loudness_lufs: float | None = None
        self._loudness_warning: str | None = None

    async def events(self) -> AsyncGenerator[Event]:
        """Yield progress after every cue, then the track in pieces, then the report."""
        async with aclosing(self._spoken_lines()) as spoken_lines:
            async for spoken, sound in spoken_lines:
                place = len(self._spoken)
                self._spoken.append(spoken)
                self._timeline.put(place, sound)
                yield {"type": "dub.progress", "done": place + 1, "total": len(self._lines), "cue": self._row(place)}
        # Made here, not in the thread: whoever is called off meanwhile must still close it.
        with tempfile.SpooledTemporaryFile(max_size=KEPT_BYTES) as file:
            await asyncio.to_thread(self._write_track, file)
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield {"type": "dub.audio.delta", "audio": base64.b64encode(piece).decode()}
        yield {"type": "dub.done", "report": self.report(), "captions": self.captions()}

    def report(self) -> DubReport:
        """Return what became of every cue, in the order of their file."""
        rows = [self._row(place) for place in range(len(self._spoken))]
        return {
            "track_seconds": round(self._timeline.samples / self._timeline.sample_rate, 4),
            "sample_rate": self._file_rate,
            "loudness_lufs": self._loudness_lufs,
            "cues": sorted(rows, key=lambda row: int(row["index"])),
            "empty_cues": [number - 1 for number in self._sheet.empty_numbers],
            "warnings": self._warnings(),
        }

    def captions(self) -> str | list[dict[str, Any]]:
        """Return the captions of what is heard, each over the time of its sound."""
        heard = [self._heard(place) for place in range(len(self._spoken))]
        cues = [cue for cue in heard if cue is not None]
        return caption_rows(cues) if self._wanted.captions == "json" else write_captions(cues, self._wanted.captions)

    async def _spoken_lines(self) -> AsyncGenerator[tuple[SpokenLine, Waveform | None]]:
        """Speak all lines through one window of segments; yield them, with their sound, in the order of their times."""
        questions = [(line, segment) for line in self._lines for segment in line.segments]
        async with aclosing(in_order(self._answer, questions, self._at_once)) as answers:
            for line in self._lines:
                given = [await anext(answers) for _ in line.segments]
                failure = next((answer for answer in given if isinstance(answer, str)), None)
                if failure is not None:
                    yield SpokenLine(line, (*line.faults, Fault.FAILED), failure), None
                    continue
                utterances = [answer for answer in given if isinstance(answer, Utterance)]
                yield SpokenLine.of(line, utterances, self._faults(line, utterances)), _sound(utterances)

    async def _answer(self, question: tuple[Line, Segment]) -> Utterance | str:
        """Speak a segment; where bad ones are kept, one that can't be spoken at all is told by its reason."""
        line, segment = question
        wanted = self._wanted
        try:
            (utterance,) = await self._speak_segment(segment, wanted.wishes)
        except ApiError as error:
            if error.code != "bad_segment":
                raise
            message = f"cues: cue {line.number}: {error.message.removeprefix('input: ')}"
            raise ApiError(error.status, message, "cues", error.code, error.headers) from error
        except (SynthesisError, RayTaskError) as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, RequestError):  # it has no room in the decoder
                if wanted.on_bad_segment != "keep":
                    raise RequestError("cues", f"cue {line.number}: {cause.reason}") from error
                return cause.reason
            if wanted.on_bad_segment != "keep" or not isinstance(cause, SynthesisError) or cause.may_succeed_later:
                raise
            logger.warning("Cue %d can't be spoken: %s", line.number, cause)
            return str(cause)
        return utterance

    def _faults(self, line: Line, utterances: Sequence[Utterance]) -> list[Fault]:
        faults = []
        speeches = [utterance.speech for utterance in utterances]
        if any(speech.finish_reason is not FinishReason.STOP for speech in speeches):
            faults.append(Fault.UNFINISHED)
        spoken = zip(line.segments, speeches, strict=True)
        if any(is_silent(speech) and has_words(segment.text) for segment, speech in spoken):
            faults.append(Fault.SILENT)
        tolerance = self._wanted.seconds_tolerance
        if tolerance is not None and any(abs(one.seconds - one.asked_seconds) > tolerance for one in speeches):
            faults.append(Fault.TOLERANCE)
        return faults

    def _row(self, place: int) -> CueRow:
        spoken, placement, rate = self._spoken[place], self._timeline.placement(place), self._timeline.sample_rate
        line = spoken.line
        heard = len(placement.sound.samples) > 0
        row: CueRow = {
            "index": line.number - 1,
            "text": line.cue.text,
            "speaker": line.cue.speaker,
            "start_seconds": round(line.cue.start_seconds, 4),
            "end_seconds": round(line.cue.end_seconds, 4),
            "placed_seconds": round(placement.start_samples / rate, 4) if heard else None,
            "placed_end_seconds": round(placement.end_samples / rate, 4) if heard else None,
            "asked_seconds": round(line.asked_seconds, 3),
            "got_seconds": round(spoken.got_seconds, 3),
            "moved_seconds": round(placement.moved_samples / rate, 4),
            "seed": line.seed if spoken.seed is None else spoken.seed,
            "attempts": spoken.attempts,
            "cached": spoken.cached,
            "finish_reason": None if spoken.finish_reason is None else str(spoken.finish_reason),
            "flags": [*map(str, spoken.faults), *sorted(map(str, placement.flags))],
        }
        if spoken.reason is not None:
            row["reason"] = spoken.reason
        return row

    def _heard(self, place: int) -> Cue | None:
        placement, cue, rate = self._timeline.placement(place), self._lines[place].cue, self._timeline.sample_rate
        if not len(placement.sound.samples):
            return None
        return Cue(placement.start_samples / rate, placement.end_samples / rate, cue.text, cue.speaker)

    def _warnings(self) -> list[str]:
        speakers = {cue.speaker for cue in self._sheet.cues}
        unused = [speaker for speaker in self._wanted.voices if speaker not in speakers]
        warnings = [
            *ignored_sampling(self._wanted),
            *self._late_by_format(),
            *(f"voices: no cue is spoken by {speaker!r}" for speaker in unused),
        ]
        return warnings if self._loudness_warning is None else [*warnings, self._loudness_warning]

    def _late_by_format(self) -> Iterator[str]:
        wanted = format_named(self._wanted.response_format)
        if wanted.lead_samples and not lead_left_out(self._timeline, self._wanted.response_format):
            late_ms = 1000 * wanted.lead_samples / self._file_rate
            yield f"response_format: every cue is heard {late_ms:.0f} ms late, because the first one leaves no room"

    @property
    def _file_rate(self) -> int:
        return open_stream(self._wanted.response_format, self._timeline.sample_rate).sample_rate

    def _write_track(self, file: IO[bytes]) -> None:
        target_lufs = self._wanted.loudness_lufs
        reached_lufs = write_track(self._timeline, file, self._wanted.response_format, target_lufs)
        if target_lufs is None or reached_lufs is None:
            return
        self._loudness_lufs = round(reached_lufs, 2)
        if reached_lufs < target_lufs - TOLD_LU:
            told = f"{reached_lufs:.1f} instead of {target_lufs:g}, its peaks allow no more"
            self._loudness_warning = f"loudness_lufs: {told}"


def _sound(utterances: Sequence[Utterance]) -> Waveform | None:
    """Return what goes on the track, the segments of a long cue joined; None where nothing was spoken."""
    waveforms = [Waveform(utterance.speech.samples, utterance.speech.sample_rate) for utterance in utterances]
    if len(waveforms) > 1:
        return join(waveforms, pause_seconds=PAUSE_SECONDS)
    return waveforms[0] if waveforms else None
