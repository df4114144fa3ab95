"""A file becomes codes: once for the same recording, and not at all once it is forgotten."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from tests.voices.recordings import audio_file, hum_of_16_bits
from voice_core.codec.codec import Codec
from voice_core.embedded import DIRECTORY
from voice_core.speech import ReferenceLimits
from voice_core.voices.learning import Learner

CODEC = DIRECTORY / "codec"
RECORDING = hum_of_16_bits(2.0, 44100)


@pytest.fixture
def learner() -> Learner:
    return Learner(CODEC, ReferenceLimits())


def test_a_recording_of_any_rate_becomes_fifty_codes_a_second(learner: Learner) -> None:
    learned = learner.learn(audio_file(RECORDING, 44100), field="audio_sample")
    assert learned.seconds == 2.0
    assert len(learned.codes) == 100
    assert max(learned.codes) < Codec.load(CODEC).codebook_size
    assert learned.code_fingerprint == learner.fingerprint


def test_what_is_kept_is_the_recording_and_nothing_else_of_its_file(learner: Learner) -> None:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 44100, 1, format="WAV") as sound:
        sound.title = "Where I live"
        sound.write(RECORDING)
    learned = learner.learn(file.getvalue(), field="audio_sample")
    kept, sample_rate = soundfile.read(io.BytesIO(learned.audio), dtype="int16")
    assert b"Where I live" in file.getvalue()
    assert b"Where I live" not in learned.audio
    assert sample_rate == 44100
    assert np.array_equal(kept, RECORDING)


def test_the_same_recording_is_encoded_once_until_it_is_forgotten(learner: Learner) -> None:
    as_wav = learner.learn(audio_file(RECORDING, 44100), field="audio_sample")
    as_flac = learner.learn(audio_file(RECORDING, 44100, "FLAC"), field="reference_audio")
    assert as_wav == as_flac == learner.learn(as_wav.audio, field="voice")
    assert learner.encoded == 1
    learner.forget(as_wav.recording_hash)
    learner.learn(as_wav.audio, field="voice")
    assert learner.encoded == 2
