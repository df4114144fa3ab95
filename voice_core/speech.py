"""The nouns that travel between the parts: what is to be said, how, and what came out. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

PAUSE_SECONDS = 0.05  # between segments, where nobody asks for another
LONGEST_PAUSE_SECONDS = 10.0
LARGEST_TOP_K = 2**31 - 1  # beyond every vocabulary, and still an index that torch takes
HIGHEST_TEMPERATURE = 2.0
MAX_SEED = 2**53 - 1  # the largest integer that every JSON reader keeps exact
ENGLISH_WORDS = "english_words"  # figures and abbreviations in words, accents folded; see text.spoken_english
NORMALISERS = frozenset({ENGLISH_WORDS})  # how a checkpoint may want its texts written
DEFAULT_VOICE = "default"  # the model's own, without a prompt; it is always there

LEAST_TEMPERATURE = 1e-4  # below it a draw is greedy: logits divided by less leave the range of float32


class FinishReason(StrEnum):
    """Why a row ended."""

    STOP = "stop"  # the model ended its speech by itself
    LENGTH = "length"  # the row used up its budget of frames
    CANCELLED = "cancelled"  # nobody waits for it any more


@dataclass(frozen=True)
class Sampling:
    """How one code is drawn from the logits of a step (defaults: the reference's own)."""

    temperature: float = 0.8  # 0 is greedy
    top_k: int = 30  # 0 switches it off, 1 is greedy
    top_p: float = 0.9  # 1 switches it off
    min_p: float = 0.0  # 0 switches it off; in 0..1 it replaces top_k and top_p

    @property
    def greedy(self) -> bool:
        """True where no noise is needed; min_p switches top_k off, also a top_k of 1."""
        return self.temperature < LEAST_TEMPERATURE or (self.top_k == 1 and not self.min_p)


@dataclass(frozen=True)
class ReferenceLimits:
    """How long a recording of a voice to imitate may be."""

    shortest_seconds: float = 1.0
    longest_seconds: float = 30.0


@dataclass(frozen=True)
class LearnedReference:
    """A recording that passed the checks, as it is kept, and its codes."""

    codes: tuple[int, ...]
    code_fingerprint: str  # of the codec that the codes belong to
    seconds: float
    recording_hash: str  # of the samples, so that a wav and a flac of them are one recording
    audio: bytes  # a flac file: mono, at its own rate, without whatever else was in the file that came


@dataclass(frozen=True)
class VoicePrompt:
    """The voice to imitate: the codes of a recording and what is said in it."""

    codes: tuple[int, ...]  # [P] codec codes of the recording, no separator
    transcript: str
    language: str | None = None  # of the transcript, a tag; None: to be detected
    code_fingerprint: str = ""  # of the codec that the codes belong to; empty: nobody says


@dataclass(frozen=True)
class BuiltInVoice:
    """A voice that comes with the model."""

    name: str
    prompt: VoicePrompt


@dataclass(frozen=True)
class Segment:
    """A stretch of text that is spoken in one go, once for every seed."""

    text: str
    seconds: float  # target duration
    index: int = 0  # place in its request; part of the noise, so equal texts of one request differ
    seeds: tuple[int, ...] = (0,)  # one sample each; they share the text's encoder row
    sampling: Sampling = field(default_factory=Sampling)
    prompt: VoicePrompt | None = None
    request: str = ""  # whose it is: under load no request gets more than its share of the decoder
    batch: bool = False  # in no hurry: its rows come after those of everybody else


@dataclass(frozen=True)
class Speech:
    """One sample of one segment, as the codec gave it."""

    samples: NDArray[np.float32]  # [N] mono, -1..1
    sample_rate: int  # Hz
    seed: int
    finish_reason: FinishReason
    asked_seconds: float
    dropped_codes: int = 0  # special codes that the model said in mid-speech and the codec can't decode
    repeated_share: float = 0.0  # of its codes, 0..1, that say again what it has said: see judging.repeated_share
    text_tokens: int = 0  # that the encoder read for it, the prompt's transcript among them
    frames: int = 0  # codes that it was made of
    model_fingerprint: str = ""  # of who spoke it; empty: nobody says

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True)
class ModelFacts:
    """What a caller of a loaded model must know to plan its requests."""

    model_id: str
    sample_rate: int  # Hz, of the codec's output
    frames_per_second: float
    longest_seconds: float  # the longest segment that the decoder's slots have room for
    checkpoint_longest_seconds: float  # audio_max_length: the longest segment that the model was trained on
    device: str
    max_rows: int
    code_fingerprint: str  # of the codes that voice prompts must be made of
    model_fingerprint: str  # of all that decides how a segment sounds: equal ones speak alike
    load_seconds: float  # from the first look at the checkpoint to a decoder that has spoken
    text_normaliser: str | None = None  # one of NORMALISERS: how texts are written before the tokenizer sees them
    alphabet: str | None = None  # every character that it reads, where its tokenizer goes letter by letter
    built_in_voices: tuple[BuiltInVoice, ...] = ()  # beside the one that speaks without a prompt

    def built_in_voice(self, name: str) -> BuiltInVoice | None:
        """Return the voice of that name that comes with the model."""
        return next((voice for voice in self.built_in_voices if voice.name == name), None)
