"""Voices that come with a checkpoint: a file for each in its folder `voices`, with the codes of a prompt.

    voices/alto.json    {"transcript": "what the prompt says", "language": "en", "codes": [17, 3, …]}

The file's name is the voice's name. The codes are those of the checkpoint's own codec.
"""

from __future__ import annotations

import json
from pathlib import Path

from voice_core.errors import CheckpointError
from voice_core.speech import DEFAULT_VOICE, BuiltInVoice, VoicePrompt

FOLDER = "voices"


def read_built_in_voices(checkpoint: Path, codes: int) -> tuple[BuiltInVoice, ...]:
    """Return the voices of the checkpoint in a directory, by name; its codec has the codes 0 .. `codes` - 1.

    Raises CheckpointError, naming the file, for one that is no voice.
    """
    return tuple(_read(file, codes) for file in sorted((checkpoint / FOLDER).glob("*.json")))


def _read(file: Path, codes: int) -> BuiltInVoice:
    if file.stem == DEFAULT_VOICE:
        raise CheckpointError(str(file), "", f"{DEFAULT_VOICE!r} is the voice without a prompt")
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        prompt = VoicePrompt(tuple(told["codes"]), told["transcript"], told.get("language"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(str(file), "", f"is no voice: {error!r}") from error
    if not prompt.codes or not all(type(code) is int and 0 <= code < codes for code in prompt.codes):
        raise CheckpointError(str(file), "codes", f"must be whole numbers from 0 to {codes - 1}, at least one")
    if not isinstance(prompt.transcript, str) or not prompt.transcript.strip():
        raise CheckpointError(str(file), "transcript", "must say what the codes say")
    if not isinstance(prompt.language, str | None):
        raise CheckpointError(str(file), "language", "must be a tag such as en")
    return BuiltInVoice(file.stem, prompt)
