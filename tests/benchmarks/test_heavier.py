"""The voice with wide MLPs, which stands for a heavier decoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.heavier import heavier_voice
from benchmarks.sizes import SIZES, config_of
from voice_core.model.config import StackConfig
from voice_core.speech import Sampling, Segment
from voice_core.synthesizer import Synthesizer


def weights_of_a_kept_number(stack: StackConfig) -> float:
    """Return how many weights of a layer a step reads for each number that it keeps of a frame."""
    attention = stack.hidden_size * stack.head_dim * (4 * stack.heads + 2 * stack.kv_heads)  # self and cross
    return (attention + 3 * stack.hidden_size * stack.intermediate_size) / (2 * stack.kv_heads * stack.head_dim)


def test_a_heavier_voice_says_the_same_with_a_checkpoints_share_of_weights(tmp_path: Path) -> None:
    segment = Segment("Nobody came that day.", seconds=1.5, index=0, seeds=(3,), sampling=Sampling())
    said = []
    for model in ("embedded", str(heavier_voice(tmp_path / "heavier"))):
        synthesizer = Synthesizer.load(model, device="cpu")
        try:
            (ticket,) = synthesizer.submit([segment])
            said.append((synthesizer._config.decoder, ticket.future.result()[0].samples))
        finally:
            synthesizer.close()
    (_, sound), (heavier, same_sound) = said
    assert len(sound) > 8000
    assert sound.tobytes() == same_sound.tobytes()
    full = config_of(SIZES["full"]).decoder
    assert weights_of_a_kept_number(heavier) == pytest.approx(weights_of_a_kept_number(full), rel=0.05)
