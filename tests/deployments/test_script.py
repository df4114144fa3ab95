"""How a request becomes segments for the model that is served."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.script import write_script
from deployments.speech_request import SpeechRequest
from tests.deployments.fake_crew import FACTS
from voice_core.errors import RequestError
from voice_core.speech import ENGLISH_WORDS, VoicePrompt

READS_LETTERS = replace(FACTS, text_normaliser=ENGLISH_WORDS, alphabet=" abcdefghijklmnopqrstuvwxyzIR.")


def wanted(text: str) -> SpeechRequest:
    return SpeechRequest(model="voice", voice="default", input=text)


def test_a_model_that_reads_letters_gets_text_and_transcript_in_words() -> None:
    prompt = VoicePrompt(codes=(1,) * 100, transcript="Room 42, I paid $5.")
    (segment,) = write_script(wanted("I paid $5."), READS_LETTERS, prompt).segments
    assert segment.text == "I paid five dollars."
    assert segment.prompt is not None
    assert segment.prompt.transcript == "Room forty two, I paid five dollars."


def test_any_other_model_gets_them_as_they_are() -> None:
    prompt = VoicePrompt(codes=(1,) * 100, transcript="Room 42.")
    (segment,) = write_script(wanted("I paid $5."), FACTS, prompt).segments
    assert segment.text == "I paid $5."
    assert segment.prompt == prompt


def test_letters_that_a_model_does_not_know_are_refused_before_it_is_asked() -> None:
    with pytest.raises(RequestError, match="input: this voice can't read 'п'"):
        write_script(wanted("п."), READS_LETTERS)
