"""The teacher: espeak-ng, asked through its C library for speech at 16 kHz and for the phonemes it says."""

from __future__ import annotations

import ctypes
import ctypes.util
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

SAMPLE_RATE = 16_000  # Hz, what the codec works at
FRAME_SAMPLES = 320  # one codec frame, 1/50 s

PITCH_RANGE = 0  # a constant pitch: intonation would multiply the sounds that a small codebook has to tell apart


@dataclass(frozen=True)
class TeacherVoice:
    """One of espeak-ng's voices at one pitch."""

    name: str  # ours, by which a request asks for it
    library_name: str
    pitch: int  # of 0..99


# The first speaks where no voice prompt asks for another. Neither breathes nor is rough: noise can't be foretold.
VOICES = (
    TeacherVoice("default", "en-us", 60),  # about 100 Hz
    TeacherVoice("alto", "en-us+steph", 50),  # a smaller mouth, about 180 Hz
)

LEAD_SAMPLES = SAMPLE_RATE * 3 // 100  # kept before the first sound
TAIL_SAMPLES = SAMPLE_RATE * 6 // 100  # kept after the last, where final consonants fade
SILENCE = 0.004  # of full scale

# The library's own numbers.
_SYNCHRONOUS = 2
_RATE, _PITCH, _RANGE = 1, 3, 4
_UTF8 = 1
_READS_PHONEMES = 0x100  # between double square brackets
_IPA = 0x02

_MARKS = re.compile(r"\(.*?\)|[ˈˌ_\-\s]")  # language switches, stress, boundaries: not heard as sounds of their own

_LETTER_A = re.compile(r"\bay\b")  # as voice_core.text.spoken_english spells it; espeak-ng would read "eye"

_Samples = ctypes.POINTER(ctypes.c_short)
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, _Samples, ctypes.c_int, ctypes.c_void_p)


class Teacher:
    """espeak-ng in all voices of `VOICES`. The library is global state: one teacher a process."""

    def __init__(self) -> None:
        self._library = _open_library()
        self._native_rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
        if self._native_rate <= 0:
            raise OSError("espeak-ng could not be initialised; is espeak-ng-data installed?")
        self._chunks: list[NDArray[np.int16]] = []
        self._callback = _Callback(self._collect)  # kept: the library holds only its address
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice: int | None = None

    def speak(self, text: str, words_per_minute: int, voice: int = 0) -> NDArray[np.float32]:
        """Return the speech [N] at 16 kHz, without the silence around it, a whole number of frames; perhaps empty."""
        self._take_voice(voice)
        self._chunks = []
        self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
        encoded = _readable(text)
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _UTF8 | _READS_PHONEMES, None, None)
        if not self._chunks:
            return np.zeros(0, np.float32)
        native = np.concatenate(self._chunks).astype(np.float32) / 32768
        return _trim(soxr.resample(native, self._native_rate, SAMPLE_RATE))

    def phonemes(self, text: str) -> str:
        """Return the phonemes of the text as IPA without stress and spaces."""
        self._take_voice(0)  # they are the same in all voices
        rest = ctypes.c_char_p(_readable(text))
        clauses = []
        while rest.value:  # the library reads one clause a call and moves the pointer on
            clauses.append(self._library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA) or b"")
        return _MARKS.sub("", b" ".join(clauses).decode())

    def _take_voice(self, number: int) -> None:
        if number == self._voice:
            return
        voice = VOICES[number]
        if self._library.espeak_SetVoiceByName(voice.library_name.encode()):
            raise OSError(f"espeak-ng has no voice {voice.library_name!r}")
        self._library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        self._library.espeak_SetParameter(_RANGE, PITCH_RANGE, 0)
        self._voice = number

    def _collect(self, samples: Any, count: int, _events: Any) -> int:
        if count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # go on


def _open_library() -> ctypes.CDLL:
    name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
    library = ctypes.CDLL(name)
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
    return library


def _readable(text: str) -> bytes:
    return _LETTER_A.sub("[[eI]]", text).encode()


def _trim(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    loud = np.flatnonzero(np.abs(samples) > SILENCE)
    if not loud.size:
        return np.zeros(0, np.float32)
    kept = samples[max(0, loud[0] - LEAD_SAMPLES) : loud[-1] + TAIL_SAMPLES]
    return kept[: len(kept) // FRAME_SAMPLES * FRAME_SAMPLES]
