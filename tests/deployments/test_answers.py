"""How finish reasons are told in a header of bounded size."""

from __future__ import annotations

from deployments.answers import MOST_LISTED_REASONS, told_reasons
from voice_core.speech import FinishReason

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH


def test_a_few_reasons_are_listed_in_order() -> None:
    assert told_reasons((STOP, LENGTH, STOP)) == "stop,length,stop"


def test_many_reasons_are_counted() -> None:
    assert told_reasons((STOP,) * MOST_LISTED_REASONS + (LENGTH, STOP)) == "stop=65,length=1"
