"""Reads a recording that somebody sent: any format, any of the usual rates, checked before it is believed.

Letters in shape comments: N samples, C channels.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np
import soundfile
from numpy.typing import NDArray

from voice_core.audio.formats import pcm16, resample
from voice_core.audio.waveform import Waveform
from voice_core.audio.writers import FULL_SCALE
from voice_core.errors import RequestError
from voice_core.speech import ReferenceLimits
from voice_core.voices.containers import (
    WHOLE_FORMATS,
    mp3_samples,
    mp3_tells_its_length,
    told_flac_frames,
    why_not_whole,
    with_length_told,
    without_leading_tags,
)

LOWEST_RATE, HIGHEST_RATE = 8000, 96_000  # Hz; a telephone, and the finest that studios deliver
HIGHEST_EXACT_FLAC_RATE = 65535  # Hz
MOST_CHANNELS = 2
KNOWN = "wav, flac, mp3, ogg (vorbis, opus), aiff, au and caf are read"
BLOCK_SECONDS = 1.0
SILENT_PEAK = 10 ** (-50 / 20)  # of full scale; a voice in the noise of its recording can't be learned
# A clipped wave stands at its extremes: 3 % of the samples of a pure tone lie there, next to none of free speech.
AT_EXTREME = 0.999  # of the peak
AUDIBLE = 0.1  # of the peak; pauses say nothing about clipping
MOST_AT_EXTREME = 0.1  # of the audible samples
LEAST_AUDIBLE_SECONDS = 0.1  # less of it is a click, beside which the voice is quiet
# An encoder of mp3 adds silence at both ends, which decoders take away: up to 3 frames.
MOST_MP3_PADDING_SAMPLES = 3 * 1152
LEAST_UNKNOWN_FRAMES = 2**36 - 1  # no recording has as many: what libsndfile says where it can't know


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A file that is read from its beginning to its end, however much its header says there is."""

    def seekable(self) -> bool:
        return False


def read_reference(file: bytes, limits: ReferenceLimits, *, field: str) -> Waveform:
    """Return the recording in `file` as it is kept: one channel, 16 bits, at its own rate or the next that flac holds.

    So whatever a recording came as, it is the same one, with the same hash, when its kept copy is read again.

    Never decodes more than `limits` allow, whatever the file's header promises. Raises RequestError for `field`.
    """
    if not file:
        raise RequestError(field, "is empty")
    file = without_leading_tags(file)
    if (reason := why_not_whole(file)) is not None:
        raise RequestError(field, reason)
    try:
        with _Stream(io.BytesIO(with_length_told(file))) as sound:
            _check_header(file, sound, limits, field)
            frames = _read_frames(sound, limits, field)  # [N, C]
            _check_all_was_read(file, sound, len(frames), field)
    except soundfile.LibsndfileError as error:
        reason = f"is not audio that can be read ({error.error_string.rstrip('.')}); {KNOWN}"
        raise RequestError(field, reason) from error
    return _checked(frames, sound.samplerate, limits, field)


def content_hash(waveform: Waveform) -> str:
    """Return what tells recordings apart: the same for a wav and a flac of the same samples."""
    digest = hashlib.sha256(str(waveform.sample_rate).encode())
    digest.update(waveform.samples.astype("<f4").tobytes())
    return digest.hexdigest()


def _check_header(file: bytes, sound: soundfile.SoundFile, limits: ReferenceLimits, field: str) -> None:
    """Refuse by the header alone what would cost memory or time to decode."""
    if sound.format not in WHOLE_FORMATS:
        raise RequestError(field, f"is a {sound.format} file, and nobody could tell if it is all there; {KNOWN}")
    if not LOWEST_RATE <= sound.samplerate <= HIGHEST_RATE:
        raise RequestError(field, f"has {sound.samplerate} samples a second; {LOWEST_RATE} to {HIGHEST_RATE} are read")
    if sound.channels > MOST_CHANNELS:
        raise RequestError(field, f"has {sound.channels} channels; mono and stereo are read")
    if _told_frames(file, sound) > limits.longest_seconds * sound.samplerate:
        raise _too_long(limits, field)


def _told_frames(file: bytes, sound: soundfile.SoundFile) -> int:
    """Return how many frames the file's header promises, 0 if it doesn't say."""
    if sound.format == "FLAC":
        return told_flac_frames(file)
    if sound.format == "MP3" and not mp3_tells_its_length(file):
        return 0  # it was guessed from the file's size, tags included
    frames: int = sound.frames
    return frames if frames < LEAST_UNKNOWN_FRAMES else 0


def _read_frames(sound: soundfile.SoundFile, limits: ReferenceLimits, field: str) -> NDArray[np.float32]:
    """Return all frames [N, C], block by block: no header is trusted to bound them."""
    most = int(limits.longest_seconds * sound.samplerate)
    block = int(BLOCK_SECONDS * sound.samplerate)
    blocks: list[NDArray[np.float32]] = []
    count = 0
    while len(frames := sound.read(block, dtype="float32", always_2d=True)):
        blocks.append(frames)
        count += len(frames)
        if count > most:
            raise _too_long(limits, field)
    return np.concatenate([np.zeros((0, sound.channels), dtype=np.float32), *blocks])


def _check_all_was_read(file: bytes, sound: soundfile.SoundFile, frames: int, field: str) -> None:
    """Refuse a file that holds less than its header says, or more."""
    told_frames = _told_frames(file, sound)
    if frames < told_frames:
        raise RequestError(field, f"is cut short: {frames} of {told_frames} samples are there")
    if sound.format == "FLAC" and 0 < told_frames < frames:
        raise RequestError(field, f"holds {frames} samples, but its header says {told_frames}; save it anew")
    if sound.format != "MP3":
        return
    samples = mp3_samples(file)
    if samples is None:
        raise RequestError(field, "is cut short, or holds something else between its frames of mp3")
    if not samples - MOST_MP3_PADDING_SAMPLES <= frames <= samples:
        reason = f"holds {samples} samples, but its header leads to {frames} of them; save it anew, or as wav or flac"
        raise RequestError(field, reason)


def _checked(frames: NDArray[np.float32], sample_rate: int, limits: ReferenceLimits, field: str) -> Waveform:
    """Mix to one channel what holds a voice that can be learned."""
    seconds = len(frames) / sample_rate
    if seconds < limits.shortest_seconds:
        raise RequestError(field, f"is too short: {seconds:.2f} s, at least {limits.shortest_seconds:g} s are needed")
    if not np.isfinite(frames).all():
        raise RequestError(field, "holds samples that aren't finite numbers")
    samples = frames.mean(axis=1, dtype=np.float32)  # [N]
    peak = float(np.abs(samples).max())
    if peak < SILENT_PEAK <= float(np.abs(frames).max()):
        raise RequestError(field, "has two channels that cancel each other out: one is upside down; send one of them")
    if peak < SILENT_PEAK:
        raise RequestError(field, f"is silent: nothing in it is louder than {SILENT_PEAK:.1%} of full scale")
    if (share := _share_at_extreme(samples, peak, round(LEAST_AUDIBLE_SECONDS * sample_rate))) > MOST_AT_EXTREME:
        raise RequestError(field, f"is clipped beyond use: {share:.0%} of what is audible stands at its extremes")
    scaled = Waveform(samples / np.float32(max(1.0, peak)), sample_rate)  # float files may exceed full scale
    kept = pcm16(resample(scaled, flac_rate(sample_rate)))
    return Waveform(kept.astype(np.float32) / np.float32(FULL_SCALE), flac_rate(sample_rate))


def flac_rate(sample_rate: int) -> int:
    """Return the rate itself if flac holds it, or the next lower one: above 16 bits it counts in tens of Hz."""
    return sample_rate if sample_rate <= HIGHEST_EXACT_FLAC_RATE else sample_rate // 10 * 10


def _share_at_extreme(samples: NDArray[np.float32], peak: float, least_samples: int) -> float:
    """Return the share of the audible samples that stand at the extremes; 0 if so few are that it was only a click."""
    magnitudes = np.abs(samples)
    audible = magnitudes[magnitudes >= AUDIBLE * peak]
    return float(np.mean(audible >= AT_EXTREME * peak)) if len(audible) >= least_samples else 0.0


def _too_long(limits: ReferenceLimits, field: str) -> RequestError:
    return RequestError(field, f"is too long: at most {limits.longest_seconds:g} s are taken")
