"""Tells what a request would take before anything is spoken: the length is known, it is asked for."""

from __future__ import annotations

from typing import Any

from deployments.script import Script
from deployments.speech_request import SpeechRequest
from voice_core.speech import ModelFacts


def estimated(wanted: SpeechRequest, script: Script, facts: ModelFacts, seconds_ahead: float) -> dict[str, Any]:
    """Return the quote; `seconds_ahead` is the speech that those who came before are still waiting for."""
    return {
        "segments": [
            {"index": segment.index, "text": segment.text, "seconds": round(segment.seconds, 3)}
            for segment in script.segments
        ],
        "seconds": round(script.seconds, 3),
        "work_seconds": round(script.work_seconds, 3),
        "rows": len(script.segments) * script.rows_of_each,
        "frames": round(script.work_seconds * facts.frames_per_second),
        "seconds_ahead": round(seconds_ahead, 3),
        "language": str(script.language),
        "warnings": [],
    }
