"""Tells what a request would take before anything is spoken: the length is known, it is asked for."""

from __future__ import annotations

from deployments.script import Script
from deployments.shapes import Quote
from voice_core.speech import ModelFacts


def estimated(script: Script, facts: ModelFacts, wait_seconds: float, whole_seconds: float) -> Quote:
    """Return the quote: `wait_seconds` are those that others add, `whole_seconds` end with the last row."""
    seconds = sum(segment.seconds for segment in script.segments) * script.rows_of_each
    return {
        "segments": [
            {"index": segment.index, "text": segment.text, "seconds": round(segment.seconds, 3)}
            for segment in script.segments
        ],
        "seconds": round(script.seconds, 3),
        "work_seconds": round(script.work_seconds, 3),
        "rows": script.rows,
        "frames": round(seconds * facts.frames_per_second),
        "expected_wait_seconds": round(wait_seconds, 3),
        "expected_seconds": round(whole_seconds, 3),
        "language": str(script.language),
        "warnings": list(script.warnings),
    }
