"""What is told of the embedded voice is what was measured: training/figures.json, the last line of evaluate.py."""

import json
from pathlib import Path

import pytest

from training.evaluate import Figures, Pace, weights_sha256
from training.teacher import VOICES
from voice_core.embedded import DIRECTORY as EMBEDDED
from voice_core.synthesizer import EMBEDDED as EMBEDDED_NAME

REPOSITORY = Path(__file__).resolve().parents[2]
CARD = (EMBEDDED / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def figures() -> Figures:
    told = json.loads((REPOSITORY / "training" / "figures.json").read_text(encoding="utf-8"))
    return Figures(**told | {"paces": {stretch: Pace(**pace) for stretch, pace in told["paces"].items()}})


def test_the_figures_are_of_the_weights_in_the_package(figures: Figures) -> None:
    assert figures.weights_sha256 == weights_sha256(EMBEDDED_NAME)


def test_the_model_card_tells_the_measured_figures(figures: Figures) -> None:
    rows = [row.replace("*", "") for row in CARD.splitlines()]
    for stretch, pace in figures.paces.items():
        told = f"{pace.per:.3f} | {pace.length_ratio:.3f} ± {pace.length_sd:.3f} | {pace.ended:.1%}".replace("%", " %")
        assert any(row.startswith(f"| {float(stretch)} ×") and row.endswith(f"| {told} |") for row in rows), told
    assert f"`alto` at 1 ×: a PER of {figures.voices['alto']:.3f}" in CARD
    assert f"speaks {figures.audio_s_per_core_s:.1f} s a core-second" in CARD
    assert figures.codec_log_mel is not None
    assert f"is {figures.codec_log_mel:.2f}. " in CARD


def test_the_model_card_tells_what_was_measured_on_unwatched_sentences() -> None:
    told = json.loads((REPOSITORY / "training" / "figures_unwatched.json").read_text(encoding="utf-8"))
    assert told["weights_sha256"] == weights_sha256(EMBEDDED_NAME)
    rows = [row.replace("*", "") for row in CARD.splitlines()]
    for stretch, pace in told["paces"].items():
        lengths = f"{pace['length_ratio']:.3f} ± {pace['length_sd']:.3f}"
        row = f"| unwatched, {float(stretch)} × | {pace['per']:.3f} | {lengths} | {100 * pace['ended']:.1f} % |"
        assert row in rows


def test_the_readme_tells_the_measured_error_rates(figures: Figures) -> None:
    readme = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    assert f"{100 * figures.per:.1f} % phoneme errors" in readme
    unwatched = json.loads((REPOSITORY / "training" / "figures_unwatched.json").read_text(encoding="utf-8"))
    assert f"({100 * unwatched['per']:.1f} % on a hundred more, which weren't watched" in readme


def test_the_measured_voice_can_be_understood_ends_and_keeps_time(figures: Figures) -> None:
    assert figures.sentences == 100
    assert figures.voices.keys() == {voice.name for voice in VOICES}
    assert max(figures.voices.values()) <= 0.05
    assert figures.ended >= 0.99
    for pace in figures.paces.values():
        assert abs(pace.length_ratio - 1) <= 0.03
        assert pace.length_sd <= 0.1
    assert figures.audio_s_per_core_s > 1
