"""A file becomes codes: once for the same recording, and not at all once it is forgotten."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from tests.voices.recordings import audio_file, hum, hum_of_16_bits
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


@pytest.mark.parametrize("kind", ["MP3", "float", "24 bits", "stereo", "too loud", "88201 Hz"])
def test_the_kept_copy_is_known_whatever_the_recording_came_as(learner: Learner, kind: str) -> None:
    sound = hum(2.0, 44100)
    file = {
        "MP3": audio_file(sound, 44100, "MP3", "MPEG_LAYER_III"),
        "float": audio_file(sound, 44100, encoding="FLOAT"),
        "24 bits": audio_file(sound, 44100, encoding="PCM_24"),
        "stereo": audio_file(np.stack([sound, sound / 3], axis=1), 44100),
        "too loud": audio_file(3 * sound, 44100, encoding="FLOAT"),
        "88201 Hz": audio_file(hum(2.0, 88201), 88201),
    }[kind]
    learned = learner.learn(file, field="audio_sample")
    assert learner.learn(learned.audio, field="voice") == learned
    assert learner.encoded == 1
    learner.forget(learned.recording_hash)
    learner.learn(file, field="audio_sample")
    assert learner.encoded == 2
