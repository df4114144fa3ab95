"""Passes of a decoder whose rows wait for each other."""

from __future__ import annotations

from benchmarks.gathering import note_passes
from deployments.settings import Settings
from deployments.synthesizer import load_decoder
from voice_core.speech import Segment


def test_rows_that_were_taken_in_together_share_a_pass_and_it_ends_with_the_last() -> None:
    decoder = load_decoder(Settings(device="cpu", max_rows=4, in_flight=False))
    passes = note_passes(decoder._engine)
    short, long = decoder.submit([Segment("Yes.", 0.6, request="a"), Segment("It rained all night.", 2.0, request="b")])
    short.future.result(60)
    long.future.result(60)
    (later,) = decoder.submit([Segment("Yes.", 0.6, request="c")])
    later.future.result(60)
    decoder.close()
    assert passes["a", 0] is passes["b", 0]
    assert passes["a", 0].ended.done()
    assert passes["c", 0] is not passes["a", 0]
