"""Makes a file of a timeline: as loud as wished, no peak above the ceiling, a stretch at a time.

Letters in shape comments: N samples.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from voice_core.audio.formats import format_named, resampled_length
from voice_core.audio.limiting import limit, reach_samples
from voice_core.audio.loudness import BLOCK_SECONDS, CEILING_DBTP, gain_to, loudness_lufs, true_peak
from voice_core.audio.streams import open_stream
from voice_core.audio.waveform import Waveform
from voice_core.timeline import Timeline

STRETCH_SECONDS = 10.0  # of the track, that are mixed in one go
PIECE_BYTES = 1024 * 1024  # that are copied in one go
KEPT_BYTES = 32 * 1024 * 1024  # of a track in memory; what is larger waits in a file
CEILING = 10 ** (CEILING_DBTP / 20)
MOST_LOWERINGS = 6  # of the samples' ceiling; speech needs none or one, noise the most
PEAK_TOLERANCE = 10 ** (0.1 / 20)  # 0.1 dB above the ceiling are let pass
MOST_LIMITED = 10 ** (6 / 20)  # by which the highest peaks may be lowered; a few dB on few peaks aren't heard


@dataclass(frozen=True)
class Level:
    """What a track is multiplied with, and what no sample of it is then above (so that nothing between them is)."""

    factor: float
    ceiling: float
    reached_lufs: float | None = None  # nothing where none was asked for, or nothing is heard


def write_track(timeline: Timeline, file: IO[bytes], format_name: str, target_lufs: float | None) -> float | None:
    """Write the whole file, with a head that knows its length, and go back to its beginning.

    Where a format puts a delay before the sound, the track begins as much later, if nothing sounds there.

    Return the loudness that it got, by EBU R 128: `target_lufs`, or less where its peaks allow no more; None where no
    target is given, or nothing can be heard. Raises RequestError for an unknown format.
    """
    stream = open_stream(format_name, timeline.sample_rate)
    level = _level(timeline, target_lufs)
    with tempfile.SpooledTemporaryFile(max_size=KEPT_BYTES) as streamed:
        for stretch in _stretches(timeline, level, lead_left_out(timeline, format_name)):
            streamed.write(stream.write(stretch))
        streamed.write(stream.close())
        file.write(stream.head())
        streamed.seek(stream.stream_head_bytes)
        while piece := streamed.read(PIECE_BYTES):
            file.write(piece)
    file.seek(0)
    return level.reached_lufs


def lead_left_out(timeline: Timeline, format_name: str) -> int:
    """Return how many samples of a track give way to its format's delay: none if they aren't all silent."""
    wanted, rate = format_named(format_name), timeline.sample_rate
    lead = resampled_length(wanted.lead_samples, wanted.rate_for(rate), rate)
    return 0 if lead >= timeline.samples or timeline.stretch(0, lead).any() else lead


def _level(timeline: Timeline, target_lufs: float | None) -> Level:
    """Return what makes the track as loud as wished, with no more limiting than can't be heard."""
    if target_lufs is None:
        return Level(1.0, ceiling=1.0)
    sounding = Waveform(timeline.sounding(BLOCK_SECONDS, BLOCK_SECONDS / 4), timeline.sample_rate)
    gain = gain_to(sounding, target_lufs)
    if gain.measured_lufs is None:
        return Level(gain.factor, CEILING)
    factor = min(10 ** ((target_lufs - gain.measured_lufs) / 20), gain.factor * MOST_LIMITED)
    if not gain.peak_limited:
        return Level(factor, CEILING, gain.reached_lufs)
    samples = sounding.samples
    samples *= np.float32(factor)  # in place: it is ours alone, and as large as all the speech of a film
    ceiling = CEILING
    limited = Waveform(limit(samples, timeline.sample_rate, ceiling), timeline.sample_rate)
    for _ in range(MOST_LOWERINGS):
        if (peak := true_peak(limited)) <= CEILING * PEAK_TOLERANCE:
            break
        ceiling *= CEILING / peak  # the sound rises between its samples
        limited = Waveform(limit(samples, timeline.sample_rate, ceiling), timeline.sample_rate)
    return Level(factor, ceiling, loudness_lufs(limited))


def _stretches(timeline: Timeline, level: Level, first: int) -> Iterator[NDArray[np.float32]]:
    """Yield the track's samples [N] from the first on, as they are written: so loud, and limited as in one go."""
    reach, step = reach_samples(timeline.sample_rate), round(STRETCH_SECONDS * timeline.sample_rate)
    for start in range(first, timeline.samples, step):
        end, before = min(start + step, timeline.samples), max(0, start - reach)
        around = timeline.stretch(before, min(end + reach, timeline.samples)) * np.float32(level.factor)
        yield limit(around, timeline.sample_rate, level.ceiling)[start - before :][: end - start]
