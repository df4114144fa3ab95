"""Writes down what is said in a recording, with a Whisper checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from voice_core.audio.formats import resample
from voice_core.audio.waveform import Waveform
from voice_core.errors import CheckpointError, RequestError
from voice_core.hub import checkpoint_directory

WINDOW_SECONDS = 30.0  # what Whisper hears at once; no reference is longer
MOST_START_TOKENS = 4  # start, language, task, no timestamps


class Transcriber:
    """A loaded Whisper; float32, because a recording is written down once and mistakes stay in the voice."""

    def __init__(self, directory_or_id: str, device: str | torch.device = "cpu") -> None:
        directory = checkpoint_directory(directory_or_id)
        self._device = torch.device(device)
        try:
            self._model, self._extract, self._tokenizer = _load(directory)
        except (OSError, ValueError) as error:
            raise CheckpointError(str(directory), "", f"is no Whisper checkpoint: {error}") from error
        self._model.to(self._device).eval()

    @torch.inference_mode()
    def transcribe(self, recording: Waveform, language: str | None = None, *, field: str = "transcript") -> str:
        """Return what is said, in one line; `language` is a tag such as ``en`` or ``ja-JP``, detected if None.

        Raises RequestError for a language that the checkpoint doesn't know, and for `field`, where a transcript could
        have been given, if its window of tokens can't hold all that is said.
        """
        assert recording.seconds <= WINDOW_SECONDS, f"{recording.seconds} s"
        heard = resample(recording, self._extract.sampling_rate)
        features = self._extract(heard.samples, sampling_rate=heard.sample_rate, return_tensors="pt")
        options: dict[str, Any] = {"max_new_tokens": self._most_tokens}
        if self._model.generation_config.is_multilingual:  # the others know neither tasks nor languages
            options |= {"task": "transcribe", "language": self._known_language(language)}
        tokens = self._model.generate(features["input_features"].to(self._device), **options)  # [1, tokens]
        if len(tokens[0]) >= self._most_tokens:
            raise RequestError(
                field, f"is needed here: it takes more than the transcriber's {self._most_tokens} tokens"
            )
        text: str = self._tokenizer.decode(tokens[0], skip_special_tokens=True)
        return " ".join(text.split())

    @property
    def _most_tokens(self) -> int:
        """Return how many tokens a transcript may have: 30 s of Hindi or of fast Japanese take some hundred."""
        return int(self._model.config.max_target_positions) - MOST_START_TOKENS

    def _known_language(self, tag: str | None) -> str | None:
        if tag is None:
            return None
        primary, _, _ = tag.lower().partition("-")
        if f"<|{primary}|>" not in self._model.generation_config.lang_to_id:
            raise RequestError("language", f"{tag!r} is not a language that the transcriber knows; give a transcript")
        return primary


def _load(directory: Path) -> tuple[Any, Any, Any]:
    """Return model, feature extractor and tokenizer; no code and no pickle of the checkpoint's is run."""
    from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(
        directory, use_safetensors=True, local_files_only=True, dtype=torch.float32
    )
    extract = WhisperFeatureExtractor.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    return model, extract, tokenizer
