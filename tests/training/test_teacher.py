"""The teacher speaks; skipped where espeak-ng isn't installed."""

from collections.abc import Iterator

import numpy as np
import pytest

from training.evaluate import TEST_SET, UNWATCHED_SET, SentenceSet, lines_of
from training.recogniser import ErrorCount, load_recogniser
from training.teacher import FRAME_SAMPLES, SAMPLE_RATE, VOICES, Teacher


@pytest.fixture(scope="module")
def teacher() -> Iterator[Teacher]:
    try:
        yield Teacher()
    except OSError as error:
        pytest.skip(f"no espeak-ng here: {error}")


def pitch(sound: np.ndarray) -> float:
    """Return how often a second the middle of a sound repeats itself, in Hz."""
    middle = sound[len(sound) // 2 - 800 :][:1600]
    alike = np.correlate(middle, middle, "full")[len(middle) :]
    shortest = SAMPLE_RATE // 400
    return SAMPLE_RATE / (1 + shortest + int(alike[shortest : SAMPLE_RATE // 60].argmax()))


def test_speech_is_whole_frames_that_begin_and_end_with_sound(teacher: Teacher) -> None:
    sound = teacher.speak("good morning.", 170)
    assert 0.4 < len(sound) / SAMPLE_RATE < 2
    assert len(sound) % FRAME_SAMPLES == 0
    assert np.abs(sound[:1600]).max() > 0.01


def test_a_faster_pace_takes_less_time(teacher: Teacher) -> None:
    slow, fast = (len(teacher.speak("one, two, three.", pace)) for pace in (120, 240))
    assert fast < 0.75 * slow


def test_the_voices_say_the_same_at_almost_the_same_pace_and_sound_different(teacher: Teacher) -> None:
    sounds = [teacher.speak("a ship sails home.", 150, voice) for voice in range(len(VOICES))]
    assert abs(len(sounds[0]) / len(sounds[1]) - 1) < 0.05
    pitches = [pitch(sound) for sound in sounds]
    assert pitches[0] == pytest.approx(100, abs=5)
    assert pitches[1] > 1.5 * pitches[0]


def test_the_letter_a_is_said_as_letters_are(teacher: Teacher) -> None:
    assert teacher.phonemes("at nine ay m") == "ætnaɪneɪɛm"


def test_phonemes_are_sounds_without_stress_and_spaces(teacher: Teacher) -> None:
    assert teacher.phonemes("the cat, the dog.") == "ðəkætðədɑːɡ"


@pytest.mark.parametrize("sentences", [TEST_SET, UNWATCHED_SET], ids=["test", "unwatched"])
def test_the_stored_phonemes_of_the_test_sentences_are_the_teachers(teacher: Teacher, sentences: SentenceSet) -> None:
    assert lines_of(sentences.phonemes) == [teacher.phonemes(sentence) for sentence in lines_of(sentences.spoken)]


def test_nothing_is_said_of_nothing(teacher: Teacher) -> None:
    assert len(teacher.speak("", 170)) == 0


def test_the_judge_understands_the_teacher(teacher: Teacher) -> None:
    count = ErrorCount(load_recogniser())
    for text in ("a storm is coming from the east.", "did you see twenty seven ships?"):
        count.add(teacher.speak(text, 170), teacher.phonemes(text))
    assert count.rate < 0.05
