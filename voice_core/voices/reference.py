"""Reads a recording that somebody sent: any format, any of the usual rates, checked before it is believed.

Letters in shape comments: N samples, C channels.
"""

from __future__ import annotations

import hashlib
import io
import struct

import numpy as np
import soundfile
from numpy.typing import NDArray

from voice_core.audio.waveform import Waveform
from voice_core.errors import RequestError
from voice_core.speech import ReferenceLimits

LOWEST_RATE, HIGHEST_RATE = 8000, 96_000  # Hz; a telephone, and the finest that studios deliver
MOST_CHANNELS = 2
BLOCK_SECONDS = 1.0
SILENT_PEAK = 10 ** (-50 / 20)  # of full scale; a voice in the noise of its recording can't be learned
# A clipped wave stands at its extremes: 3 % of the samples of a pure tone lie there, next to none of free speech.
AT_EXTREME = 0.999  # of the peak
AUDIBLE = 0.1  # of the peak; pauses say nothing about clipping
MOST_AT_EXTREME = 0.1  # of the audible samples
LEAST_READ = 0.95  # of the frames that a header promises; a header of an mp3 may only estimate them
RIFF_SIZE_UNKNOWN = 0x7FFFFFFF  # and above: written by programs that can't go back to the header


def read_reference(file: bytes, limits: ReferenceLimits, *, field: str) -> Waveform:
    """Return the recording in `file`, mixed to one channel, at its own rate.

    Never decodes more than `limits` allow, whatever the file's header promises. Raises RequestError for `field`.
    """
    if not file:
        raise RequestError(field, "is empty")
    if _riff_is_cut(file):
        raise RequestError(field, "is cut short: the file is smaller than its header says")
    try:
        with soundfile.SoundFile(io.BytesIO(file)) as sound:
            _check_header(sound, limits, field)
            frames = _read_frames(sound, limits, field)  # [N, C]
            promised = sound.frames if sound.seekable() else 0
    except soundfile.LibsndfileError as error:
        known = "wav, flac, mp3, ogg (vorbis, opus) and aiff are among the formats that are read"
        raise RequestError(
            field, f"is not audio that can be read ({error.error_string.rstrip('.')}); {known}"
        ) from error
    return _checked(frames, sound.samplerate, promised, limits, field)


def content_hash(waveform: Waveform) -> str:
    """Return what tells recordings apart: the same for a wav and a flac of the same samples."""
    digest = hashlib.sha256(str(waveform.sample_rate).encode())
    digest.update(waveform.samples.astype("<f4").tobytes())
    return digest.hexdigest()


def _riff_is_cut(file: bytes) -> bool:
    """Whether a WAV file ends before it should; libsndfile reads what is left of it without a word."""
    if len(file) < 8 or not file.startswith(b"RIFF"):
        return False
    (size,) = struct.unpack("<I", file[4:8])
    return bool(len(file) < size + 8 and size < RIFF_SIZE_UNKNOWN)


def _check_header(sound: soundfile.SoundFile, limits: ReferenceLimits, field: str) -> None:
    """Refuse by the header alone what would cost memory or time to decode."""
    if not LOWEST_RATE <= sound.samplerate <= HIGHEST_RATE:
        raise RequestError(field, f"has {sound.samplerate} samples a second; {LOWEST_RATE} to {HIGHEST_RATE} are read")
    if sound.channels > MOST_CHANNELS:
        raise RequestError(field, f"has {sound.channels} channels; mono and stereo are read")
    seconds = sound.frames / sound.samplerate
    if seconds > limits.longest_seconds:
        raise _too_long(limits, field)


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


def _checked(
    frames: NDArray[np.float32], sample_rate: int, promised_frames: int, limits: ReferenceLimits, field: str
) -> Waveform:
    """Mix to one channel what holds a voice that can be learned."""
    if len(frames) < LEAST_READ * promised_frames:
        raise RequestError(field, f"is cut short: {len(frames)} of {promised_frames} samples are there")
    seconds = len(frames) / sample_rate
    if seconds < limits.shortest_seconds:
        raise RequestError(field, f"is too short: {seconds:.2f} s, at least {limits.shortest_seconds:g} s are needed")
    if not np.isfinite(frames).all():
        raise RequestError(field, "holds samples that aren't finite numbers")
    samples = frames.mean(axis=1, dtype=np.float32)  # [N]
    peak = float(np.abs(samples).max())
    if peak < SILENT_PEAK:
        raise RequestError(field, f"is silent: nothing in it is louder than {SILENT_PEAK:.1%} of full scale")
    if (share := _share_at_extreme(samples, peak)) > MOST_AT_EXTREME:
        raise RequestError(field, f"is clipped beyond use: {share:.0%} of what is audible stands at its extremes")
    return Waveform(samples / np.float32(max(1.0, peak)), sample_rate)  # float files may exceed full scale


def _share_at_extreme(samples: NDArray[np.float32], peak: float) -> float:
    magnitudes = np.abs(samples)
    return float(np.mean(magnitudes[magnitudes >= AUDIBLE * peak] >= AT_EXTREME * peak))


def _too_long(limits: ReferenceLimits, field: str) -> RequestError:
    return RequestError(field, f"is too long: at most {limits.longest_seconds:g} s are taken")
