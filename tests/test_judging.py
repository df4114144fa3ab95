"""What is counted of a speech: its end, its length, its repetitions, its silence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from voice_core.judging import REPEATED_CODES, is_silent, judge, repeated_share, silence_share
from voice_core.speech import FinishReason, Speech

RATE = 1000


def hum(seconds: float, *, asked_seconds: float | None = None) -> Speech:
    samples = np.full(round(seconds * RATE), 0.5, dtype=np.float32)
    return Speech(samples, RATE, 0, FinishReason.STOP, seconds if asked_seconds is None else asked_seconds)


def test_a_speech_that_ended_in_time_is_as_good_as_can_be() -> None:
    assert judge(hum(2)).score == 0


def test_what_did_not_end_is_worse_than_what_is_somewhat_too_long() -> None:
    unended = replace(hum(2), finish_reason=FinishReason.LENGTH)
    assert judge(unended).score > judge(hum(3, asked_seconds=2)).score > judge(hum(2)).score
    assert judge(hum(3, asked_seconds=2)).length_error == pytest.approx(0.5)


def test_a_loop_is_counted_and_a_held_vowel_is_not() -> None:
    once = list(range(20))
    assert repeated_share(once) == 0
    assert repeated_share([7] * 50) == 0
    assert repeated_share(once * 3) == pytest.approx(1 - 20 / (60 - REPEATED_CODES + 1), abs=0.02)
    assert repeated_share([1, 2]) == 0


def test_silence_is_counted_by_blocks_relative_to_the_loudest() -> None:
    speech = hum(1)
    speech.samples[: RATE // 4] = 0
    assert silence_share(speech) == pytest.approx(0.25, abs=0.03)
    assert not is_silent(speech)
    assert silence_share(replace(speech, samples=np.zeros(RATE, dtype=np.float32))) == 1
