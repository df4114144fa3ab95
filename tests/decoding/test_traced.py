import logging

import pytest
import torch

from tests.decoding.test_decoder import different_rows
from tests.toy import AUDIO_VOCAB, toy_config, toy_network
from voice_core.decoding.decoder import BatchDecoder
from voice_core.decoding.rows import Row
from voice_core.model.network import Network
from voice_core.model.packing import pack_linears
from voice_core.speech import Sampling


def stack_of(**changes: object) -> dict[str, object]:
    """A decoder's stack with other settings, for `toy_network`."""
    stacks = toy_config()["t5_config_dict"]
    return {"t5_config_dict": {**stacks, "decoder": {**stacks["decoder"], **changes}}}


def decoder_of(network: Network, *, traced: bool, max_rows: int = 5, deterministic: bool = False) -> BatchDecoder:
    decoder = BatchDecoder(
        network, max_rows=max_rows, max_frames=400, max_tokens=80, deterministic=deterministic, traced=traced
    )
    assert decoder.traced == traced
    return decoder


def hidden_of(decoder: BatchDecoder) -> torch.Tensor:
    """The hidden states of the live rows in the order of their numbers."""
    slots = sorted(range(decoder.live_rows), key=lambda slot: decoder._live[slot].number)
    return decoder._state.hidden[slots]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_pm_rope": 0},
        stack_of(attn_logit_softcapping=5.0),
        stack_of(sliding_window=16, layer_types=["full_attention", "sliding_attention"]),
        stack_of(attention_bias=True),
    ],
    ids=["plain", "plain positions", "soft cap", "window", "biases"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_traced_step_gives_the_hidden_states_of_one_in_python(changes: dict[str, object], packed: bool) -> None:
    network = toy_network(**changes)
    if packed:
        pack_linears(network)
    decoders = [decoder_of(network, traced=traced) for traced in (True, False)]
    for decoder in decoders:
        decoder.admit(different_rows(network.config, 5))
    for _ in range(30):
        for decoder in decoders:
            decoder.step()
        ours, theirs = map(hidden_of, decoders)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("deterministic", [False, True])
def test_rows_of_all_options_say_the_same_traced_and_in_python(deterministic: bool) -> None:
    network = toy_network()
    rows = different_rows(network.config, 14)
    spoken = decoder_of(network, traced=True, deterministic=deterministic).speak(rows)
    assert spoken == decoder_of(network, traced=False).speak(rows)


def test_decoders_of_any_size_share_what_was_traced(caplog: pytest.LogCaptureFixture) -> None:
    network = toy_network()
    rows = different_rows(network.config, 9)
    with caplog.at_level(logging.INFO):
        spoken = [decoder_of(network, traced=True, max_rows=max_rows).speak(rows) for max_rows in (9, 2, 1)]
    assert spoken[0] == spoken[1] == spoken[2]
    assert sum("Traced the decode step" in message for message in caplog.messages) == 1


def test_more_ties_than_candidates_are_drawn_in_python() -> None:
    network = toy_network()
    network.head[2].weight.zero_()  # every id as likely as any other, but for their numbers
    network.head[2].bias.zero_()
    rows = [Row((1, 2, 3), 60, seed=seed, sampling=Sampling(1.0, 10, 1.0)) for seed in range(4)]
    traced, plain = (decoder_of(network, traced=traced).speak(rows) for traced in (True, False))
    assert traced == plain
    assert max(code for row in traced for code in row.ids) > AUDIO_VOCAB // 2  # of all that tie


def test_networks_that_no_trace_suits_run_in_python() -> None:
    network = toy_network().to(torch.bfloat16)
    decoder = BatchDecoder(network, max_rows=2, max_frames=100, max_tokens=20)
    assert not decoder.traced


def test_where_tracing_fails_speech_is_slower_but_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = toy_network()
    rows = different_rows(network.config, 4)
    expected = decoder_of(network, traced=False).speak(rows)
    monkeypatch.delattr(torch.jit, "trace")  # a torch of the future
    decoder = BatchDecoder(network, max_rows=5, max_frames=400, max_tokens=80)
    assert not decoder.traced
    assert "The decode step could not be traced" in caplog.text
    assert decoder.speak(rows) == expected
