"""The deployment's decoder, without Ray."""

from __future__ import annotations

from deployments.settings import Settings
from deployments.synthesizer import load_decoder
from voice_core.speech import Segment, VoicePrompt


def test_the_settings_of_its_slots_reach_the_decoder() -> None:
    settings = Settings(device="cpu", max_rows=3, longest_segment_seconds=4, longest_reference_seconds=6)
    decoder = load_decoder(settings)
    assert (decoder.facts.max_rows, decoder.facts.longest_seconds) == (3, 4)
    (ticket,) = decoder.submit([Segment("hello", 1.0, prompt=VoicePrompt((5,) * 350, "hm"))])
    assert "at most 6 s fit" in str(ticket.future.exception(10))
    decoder.close()
