"""Puts spoken cues on one track, each at its own time, and tells what could not be as the cues ask.

The rule, cue by cue in the order of their times; no sample of a sound is lost, except at the end of a film whose length
is given:

- A sound's first audible sample lies at its cue's start; what is inaudible at both ends is trimmed (`joining.trim`).
- A sound may run over its cue's end into silence: "overrun". Beyond the seconds that it may, it is "overlong" too.
- Cues that follow each other don't speak at once: where a sound would run into the next cue, that one begins later, as
  much as is needed: "moved". The pauses that come take the delay up again.
- By more than MOST_MOVED_SECONDS nothing is moved: then, and where cues overlap in the source, sounds are mixed:
  "overlap".
- What lies beyond the end of the film is faded out: "cut".

Letters in shape comments: N samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from voice_core.audio.joining import fade, trim
from voice_core.audio.waveform import Waveform
from voice_core.subtitles import Cue

OVERRUN_SECONDS = 0.5  # that a cue may run over its end, unless the caller says otherwise
GRACE_SECONDS = 0.02  # a frame of the codec: nobody hears it, and lengths aren't finer
MOST_MOVED_SECONDS = 1.0  # later than that, a line belongs to another picture


class Flag(StrEnum):
    """What befell a cue on its way to the track."""

    OVERRUN = "overrun"  # it ends after its cue does
    OVERLONG = "overlong"  # by more than it may
    MOVED = "moved"  # it begins after its cue does
    OVERLAP = "overlap"  # another one is heard at the same time
    CUT = "cut"  # the film ends before it does


@dataclass
class Placement:
    """A sound and where it lies on the track."""

    sound: Waveform  # trimmed; of no samples where there is nothing to be heard
    start_samples: int
    moved_samples: int
    flags: set[Flag]

    @property
    def end_samples(self) -> int:
        return self.start_samples + len(self.sound.samples)


class Timeline:
    """A track that cues are put on in any order; what lies before the first one that is missing is finished."""

    def __init__(
        self,
        cues: Sequence[Cue],
        sample_rate: int,
        *,
        overrun_seconds: float = OVERRUN_SECONDS,
        track_seconds: float | None = None,
    ) -> None:
        """`track_seconds` is the length of the film; None: to the end of the last cue, or of its sound."""
        self.sample_rate = sample_rate  # Hz
        self._cues = cues
        self._overrun_samples = self._samples(overrun_seconds)
        self._track_samples = None if track_seconds is None else self._samples(track_seconds)
        self._order = sorted(range(len(cues)), key=lambda place: (cues[place].start_seconds, place))
        self._waiting: dict[int, Waveform] = {}  # put, but one before them isn't yet
        self._placements: dict[int, Placement] = {}  # in the order of their times
        self._sounding: list[int] = []  # those that may reach the next one

    def put(self, place: int, sound: Waveform | None) -> None:
        """Put the sound of a cue on the track; None: it has none."""
        assert place not in self._placements, "a cue is put once"
        assert sound is None or sound.sample_rate == self.sample_rate, "sounds have the track's rate"
        nothing = Waveform(np.zeros(0, dtype=np.float32), self.sample_rate)
        self._waiting[place] = nothing if sound is None else fade(trim(sound))
        while not self.complete and (due := self._order[len(self._placements)]) in self._waiting:
            self._placements[due] = self._placed(due, self._waiting.pop(due))
            self._sounding.append(due)

    @property
    def complete(self) -> bool:
        return len(self._placements) == len(self._order)

    @property
    def finished_samples(self) -> int:
        """Up to here nothing changes any more."""
        if self.complete:
            return self.samples
        return min(self._start(self._order[len(self._placements)]), self.samples)

    @property
    def samples(self) -> int:
        """The length of the track; as far as it is known where no length of the film is given."""
        if self._track_samples is not None:
            return self._track_samples
        cue_ends = (self._samples(cue.end_seconds) for cue in self._cues)
        return max(*cue_ends, *(placement.end_samples for placement in self._placements.values()), 0)

    def placement(self, place: int) -> Placement:
        """Return where a cue lies; known when all before it are put too. Its flags may grow with those that come."""
        return self._placements[place]

    def stretch(self, start_samples: int, end_samples: int) -> NDArray[np.float32]:
        """Return the mixed samples [N] of a part of the track; where sounds meet they may leave -1..1."""
        return _mixed(self._placements.values(), start_samples, end_samples)

    def sounding(self, margin_seconds: float, grid_seconds: float) -> NDArray[np.float32]:
        """Return what is finished without its long silences: `margin_seconds` stay around every sound.

        What is left out begins and ends on a grid of `grid_seconds`, so that whoever measures the track in blocks of
        that grid, and passes over silent ones, finds the same blocks; a film's track is mostly silence.
        """
        margin, grid = self._samples(margin_seconds), self._samples(grid_seconds)
        spans: list[tuple[int, int]] = []
        heard: list[list[Placement]] = []  # in each span
        finished = self.finished_samples
        for placement in sorted(self._placements.values(), key=lambda placement: placement.start_samples):
            if not len(placement.sound.samples):
                continue
            start = max(0, (placement.start_samples - margin) // grid * grid)
            end = min(-(-(placement.end_samples + margin) // grid) * grid, finished)
            if spans and start <= spans[-1][1]:
                start, before_end = spans.pop()
                end = max(end, before_end)
            else:
                heard.append([])
            spans.append((start, end))
            heard[-1].append(placement)
        mixed = [_mixed(placements, *span) for placements, span in zip(heard, spans, strict=True)]
        return np.concatenate(mixed or [np.zeros(0, dtype=np.float32)])

    def _placed(self, place: int, sound: Waveform) -> Placement:
        start = self._start(place)
        if not len(sound.samples):
            return Placement(sound, start, 0, set())
        self._sounding = [other for other in self._sounding if self._placements[other].end_samples > start]
        in_the_way = [
            self._placements[other].end_samples
            for other in self._sounding
            if self._cues[other].end_seconds <= self._cues[place].start_seconds
        ]
        moved = max(in_the_way, default=start) - start
        if moved > self._samples(MOST_MOVED_SECONDS):
            moved = 0
        placement = Placement(sound, start + moved, moved, {Flag.MOVED} if moved else set())
        if self._track_samples is not None and placement.end_samples > self._track_samples:
            placement.sound = _cut(sound, max(0, self._track_samples - placement.start_samples))
            placement.flags.add(Flag.CUT)
        for other in self._sounding:
            if self._placements[other].end_samples > placement.start_samples:
                self._placements[other].flags.add(Flag.OVERLAP)
                placement.flags.add(Flag.OVERLAP)
        overrun = placement.end_samples - self._samples(self._cues[place].end_seconds)
        if overrun > self._samples(GRACE_SECONDS):
            placement.flags.add(Flag.OVERRUN)
            if overrun > self._overrun_samples + self._samples(GRACE_SECONDS):
                placement.flags.add(Flag.OVERLONG)
        return placement

    def _start(self, place: int) -> int:
        return self._samples(self._cues[place].start_seconds)

    def _samples(self, seconds: float) -> int:
        return round(seconds * self.sample_rate)


def _mixed(placements: Iterable[Placement], start_samples: int, end_samples: int) -> NDArray[np.float32]:
    mixed = np.zeros(end_samples - start_samples, dtype=np.float32)
    for placement in placements:
        start, end = max(placement.start_samples, start_samples), min(placement.end_samples, end_samples)
        if start < end:
            part = placement.sound.samples[start - placement.start_samples : end - placement.start_samples]
            mixed[start - start_samples : end - start_samples] += part
    return mixed


def _cut(sound: Waveform, samples: int) -> Waveform:
    return fade(Waveform(sound.samples[:samples], sound.sample_rate))
