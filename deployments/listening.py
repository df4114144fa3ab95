"""Listens to what was spoken before it is made into a file: text that became no sound is a failure, and is told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deployments.script import Script
from voice_core.errors import SynthesisError
from voice_core.speech import Speech

SILENT_PEAK = 1 / 32768  # what a file of 16 bits can't hold any more


def check_heard(script: Script, spoken: Sequence[Sequence[Speech]]) -> None:
    """Raise SynthesisError if a segment with letters or digits in it is silent in some sample."""
    for segment, speeches in zip(script.segments, spoken, strict=True):
        if any(character.isalnum() for character in segment.text) and any(map(is_silent, speeches)):
            raise SynthesisError(f"segment {segment.index + 1} of {len(script.segments)} came out silent")


def is_silent(speech: Speech) -> bool:
    return bool(np.abs(speech.samples).max(initial=0) < SILENT_PEAK)
