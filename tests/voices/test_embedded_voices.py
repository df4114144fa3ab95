"""The embedded checkpoint's two voices: side by side in one batch, and imitated from a recording, as big ones are."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile

from voice_core.speech import ReferenceLimits, Segment, Speech, VoicePrompt
from voice_core.synthesizer import EMBEDDED, Synthesizer, codec_directory
from voice_core.voices.learning import Learner

TEXT = "the ferry leaves at noon and comes back before dark."
SAID = "my brother paints the boat every second spring."
LOWEST_HZ, HIGHEST_HZ = 70, 300
BETWEEN_VOICES_HZ = 140  # default speaks at about 100 Hz, alto at about 180


@pytest.fixture(scope="module")
def synthesizer() -> Iterator[Synthesizer]:
    loaded = Synthesizer.load(EMBEDDED, device="cpu", max_rows=8)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def alto(synthesizer: Synthesizer) -> VoicePrompt:
    voice = synthesizer.facts.built_in_voice("alto")
    assert voice is not None
    return voice.prompt


def pitch_hz(speech: Speech) -> float:
    """Return the median pitch: the highest peak of each voiced window's autocorrelation."""
    window = speech.sample_rate // 20
    shortest, longest = speech.sample_rate // HIGHEST_HZ, speech.sample_rate // LOWEST_HZ
    pitches = []
    for begin in range(0, len(speech.samples) - window, window):
        piece = speech.samples[begin : begin + window] - speech.samples[begin : begin + window].mean()
        echo = np.correlate(piece, piece, "full")[window - 1 :]
        lag = shortest + int(echo[shortest:longest].argmax())
        if echo[lag] > 0.4 * echo[0] > 0:
            pitches.append(speech.sample_rate / lag)
    return float(np.median(pitches))


def test_two_voices_speak_in_one_batch(synthesizer: Synthesizer, alto: VoicePrompt) -> None:
    voices = [None, alto, None, alto]
    spoken = synthesizer.speak([Segment(TEXT, 3.0, index=index, prompt=prompt) for index, prompt in enumerate(voices)])
    high = [pitch_hz(speech) > BETWEEN_VOICES_HZ for (speech,) in spoken]
    assert high == [False, True, False, True]


@pytest.mark.parametrize("name", ["default", "alto"])
def test_a_recording_of_either_voice_is_imitated(synthesizer: Synthesizer, alto: VoicePrompt, name: str) -> None:
    prompt = alto if name == "alto" else None
    ((recorded,),) = synthesizer.speak([Segment(SAID, 2.8, prompt=prompt)])
    file = io.BytesIO()
    soundfile.write(file, recorded.samples, recorded.sample_rate, format="FLAC")
    learner = Learner(codec_directory(EMBEDDED), ReferenceLimits())
    learned = learner.learn(file.getvalue(), field="ref_audio")
    ((imitated,),) = synthesizer.speak([Segment(TEXT, 3.0, prompt=VoicePrompt(learned.codes, SAID, "en"))])
    assert (pitch_hz(imitated) > BETWEEN_VOICES_HZ) == (name == "alto")
    assert imitated.seconds == pytest.approx(3.0, rel=0.2)
