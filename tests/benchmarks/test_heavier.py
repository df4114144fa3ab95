"""The voice with idle layers, which stands for a heavier decoder."""

from __future__ import annotations

from pathlib import Path

from benchmarks.heavier import heavier_voice
from voice_core.speech import Sampling, Segment
from voice_core.synthesizer import Synthesizer


def test_a_heavier_voice_says_the_same_with_more_layers(tmp_path: Path) -> None:
    segment = Segment("Nobody came that day.", seconds=1.5, index=0, seeds=(3,), sampling=Sampling())
    said = []
    for model in ("embedded", str(heavier_voice(3, tmp_path / "heavier"))):
        synthesizer = Synthesizer.load(model, device="cpu")
        try:
            (ticket,) = synthesizer.submit([segment])
            said.append((synthesizer._config.decoder.layers, ticket.future.result()[0].samples))
        finally:
            synthesizer.close()
    (layers, sound), (more_layers, same_sound) = said
    assert more_layers == 3 * layers
    assert len(sound) > 8000
    assert sound.tobytes() == same_sound.tobytes()
