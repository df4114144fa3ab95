"""The deployment's decoder, without Ray."""

from __future__ import annotations

import os
import threading

import pytest

from deployments import synthesizer
from deployments.settings import Settings
from deployments.synthesizer import load_decoder, watch
from voice_core.speech import Segment, VoicePrompt


def test_the_settings_of_its_slots_reach_the_decoder() -> None:
    settings = Settings(device="cpu", max_rows=3, longest_segment_seconds=4, longest_reference_seconds=6)
    decoder = load_decoder(settings)
    assert (decoder.facts.max_rows, decoder.facts.longest_seconds) == (3, 4)
    (ticket,) = decoder.submit([Segment("hello", 1.0, prompt=VoicePrompt((5,) * 350, "hm"))])
    assert "at most 6 s fit" in str(ticket.future.exception(10))
    decoder.close()


@pytest.mark.parametrize("breaks", [True, False])
def test_the_process_ends_when_the_decoder_breaks_and_not_when_it_is_closed(
    breaks: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ends: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    monkeypatch.setattr(synthesizer, "FIGURES_SECONDS", 0.01)
    decoder = load_decoder(Settings(device="cpu", max_rows=1))

    def fail(*_: object) -> None:
        raise RuntimeError("the device is gone")

    watching = threading.Thread(target=watch, args=(decoder,))
    watching.start()
    if breaks:
        parts = decoder._engine._decoder
        parts.step = parts.cancel = fail  # type: ignore[method-assign, assignment]
        (ticket,) = decoder.submit([Segment("hello", 1.0)])
        assert "the device is gone" in str(ticket.future.exception(10))
    else:
        decoder.close()
    watching.join(10)
    assert ends == [1] * breaks
    assert ("the decoder broke down: the device is gone" in caplog.text) is breaks
    decoder.close()
