"""How a segment's facts are told in a header of bounded size."""

from __future__ import annotations

from deployments.answers import MOST_LISTED, told_reasons, told_seconds
from voice_core.speech import FinishReason

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH


def test_a_few_reasons_are_listed_in_order() -> None:
    assert told_reasons((STOP, LENGTH, STOP)) == "stop,length,stop"


def test_many_reasons_are_counted() -> None:
    assert told_reasons((STOP,) * MOST_LISTED + (LENGTH, STOP)) == "stop=65,length=1"


def test_a_few_durations_are_listed_and_many_are_summed() -> None:
    assert told_seconds([1.25, 0.5, 3.0]) == "1.25,0.5,3"
    assert told_seconds([0.5] * (MOST_LISTED + 1)) == "total=32.500"
