"""What a request would take, told before anything is spoken."""

from __future__ import annotations

from fake_crew import FACTS

from deployments.estimates import estimated
from deployments.script import Script
from voice_core.speech import Segment
from voice_core.text import Language


def test_codes_are_counted_as_they_are_spoken_and_work_by_a_second_at_least() -> None:
    segments = (Segment("No.", 0.4), Segment("Here is a line.", 2.0, index=1))
    quote = estimated(Script(segments, (1, 2), Language.ENGLISH, pause_seconds=0.05), FACTS, 0, 0)
    assert quote["frames"] == 2 * 2.4 * 50
    assert quote["work_seconds"] == 2 * (1 + 2)
