"""A recording's way through Whisper: its rate, its language, its text. With random weights the words mean nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.voices.recordings import hum
from tests.voices.whisper import save_toy_whisper
from voice_core.audio.waveform import Waveform
from voice_core.errors import CheckpointError, RequestError
from voice_core.voices.transcriber import Transcriber

TWO_SECONDS = Waveform(hum(2.0, 44100), 44100)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def transcriber(checkpoint: Path) -> Transcriber:
    return Transcriber(str(checkpoint))


@pytest.fixture
def calls(transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What reaches the model."""
    seen: list[dict[str, Any]] = []
    generate = transcriber._model.generate

    def watched(features: Any, **options: Any) -> Any:
        seen.append({"features": features, **options})
        return generate(features, **options)

    monkeypatch.setattr(transcriber._model, "generate", watched)
    return seen


def test_a_recording_becomes_one_line_of_text(transcriber: Transcriber) -> None:
    text = transcriber.transcribe(TWO_SECONDS, "en")
    assert text
    assert "<|" not in text
    assert text == " ".join(text.split()) == transcriber.transcribe(TWO_SECONDS, "en")


def test_it_is_heard_at_whispers_rate(transcriber: Transcriber, calls: list[dict[str, Any]]) -> None:
    transcriber.transcribe(TWO_SECONDS, "en")
    transcriber.transcribe(Waveform(hum(2.0, 16000), 16000), "en")
    at_44k, at_16k = (call["features"].numpy() for call in calls)
    assert at_44k.shape == at_16k.shape == (1, 8, 3000)  # 30 s of 10 ms
    assert np.abs(at_44k - at_16k).mean() < 0.02


@pytest.mark.parametrize(("tag", "language"), [("ja", "ja"), ("ja-JP", "ja"), ("EN-us", "en"), (None, None)])
def test_the_language_reaches_the_model_or_is_detected(
    transcriber: Transcriber, calls: list[dict[str, Any]], tag: str | None, language: str | None
) -> None:
    transcriber.transcribe(TWO_SECONDS, tag)
    assert (calls[0]["language"], calls[0]["task"]) == (language, "transcribe")


def test_a_language_that_it_does_not_know_is_refused(transcriber: Transcriber) -> None:
    with pytest.raises(RequestError, match="language: 'tlh' is not a language") as refusal:
        transcriber.transcribe(TWO_SECONDS, "tlh")
    assert refusal.value.field == "language"


def test_a_transcript_without_its_end_is_not_given(transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcriber._model.generation_config, "exponential_decay_length_penalty", None)
    with pytest.raises(RequestError, match="more than the transcriber's 252 tokens") as refusal:
        transcriber.transcribe(TWO_SECONDS, "en", field="reference_text")
    assert refusal.value.field == "reference_text"


def test_what_is_no_whisper_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is no Whisper checkpoint"):
        Transcriber(str(tmp_path))
