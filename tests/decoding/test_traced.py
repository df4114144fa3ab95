import gc
import logging
import random
import weakref
from unittest.mock import MagicMock

import pytest
import torch

from tests.decoding.test_decoder import different_rows
from tests.toy import AUDIO_VOCAB, toy_config, toy_network
from voice_core.batching import MOST_PADDING, padded_groups
from voice_core.decoding import tracing
from voice_core.decoding.decoder import BatchDecoder
from voice_core.decoding.rows import Row
from voice_core.decoding.traced import Length, in_groups
from voice_core.decoding.traced_reading import rounded_tokens, traced_reading
from voice_core.model.network import Network, whole
from voice_core.model.packing import pack_linears
from voice_core.speech import Sampling


def stack_of(**changes: object) -> dict[str, object]:
    """A decoder's stack with other settings, for `toy_network`."""
    stacks = toy_config()["t5_config_dict"]
    return {"t5_config_dict": {**stacks, "decoder": {**stacks["decoder"], **changes}}}


def windowed_encoder() -> dict[str, object]:
    stacks = toy_config()["t5_config_dict"]
    window = {"sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"]}
    return {"t5_config_dict": {**stacks, "encoder": {**stacks["encoder"], **window}}}


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


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_rows_of_zeros_beside_few_rows_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = toy_network(**stack_of(attention_bias=True))
    pack_linears(network)
    with_zeros = MagicMock(wraps=tracing.PRODUCT_OF_FEW)
    monkeypatch.setattr(tracing, "PRODUCT_OF_FEW", with_zeros)
    monkeypatch.setattr(tracing, "MORE_THAN_A_CACHE_BYTES", 0)
    decoders = [decoder_of(network, traced=traced) for traced in (True, False)]
    with_zeros.replace.assert_called()
    for decoder in decoders:
        decoder.admit(different_rows(network.config, rows))
    for _ in range(10):
        for decoder in decoders:
            decoder.step()
        ours, theirs = map(hidden_of, decoders)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "changes", [{}, {"use_pm_rope": 0}, windowed_encoder()], ids=["plain", "plain positions", "window"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_texts_are_read_as_in_python(changes: dict[str, object], packed: bool) -> None:
    network = toy_network(**changes)
    if packed:
        pack_linears(network)
    text_ids, lengths = torch.arange(57).view(3, 19), torch.tensor([19, 11, 2])
    with torch.inference_mode():
        memory = network.encoder(text_ids, lengths)
        theirs = network.decoder.memorise(memory, lengths)
        ours = whole(traced_reading(network).read(network, text_ids, lengths))
    for text, length in enumerate(lengths.tolist()):
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine[:, text, :, :length], other[:, text, :, :length], atol=1e-5, rtol=1e-5)


def test_texts_are_padded_to_few_counts_of_rows() -> None:
    assert [rounded_tokens(1, tokens) for tokens in (3, 16, 17, 60, 100)] == [3, 16, 18, 60, 104]
    assert rounded_tokens(3, 19) == 20
    assert len({3 * rounded_tokens(3, tokens) for tokens in range(1, 80)}) < 30
    for texts in range(1, 129):  # an odd number of more than sixteen never makes a round count
        assert all(0 <= rounded_tokens(texts, tokens) - tokens <= max(7, tokens // 8) for tokens in range(1, 200))


def test_texts_that_are_read_together_waste_less_than_a_quarter_rounding_included() -> None:
    rng = random.Random(1)
    for _ in range(300):
        lengths = [rng.randint(5, 120) for _ in range(rng.randint(2, 16))]
        for members in padded_groups(lengths, most_positions=2048, padded_length=rounded_tokens):
            longest, filled = lengths[members[0]], sum(lengths[number] for number in members)
            padded = len(members) * rounded_tokens(len(members), longest)
            assert padded - filled < MOST_PADDING * padded


def test_a_network_that_nobody_needs_takes_its_traced_steps_along() -> None:
    network = toy_network()
    decoder_of(network, traced=True).speak([Row((1, 2), 20)])
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None


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


def test_rows_are_grouped_where_that_saves_more_than_a_group_costs() -> None:
    long, short = Length(1400, 50), Length(20, 50)
    assert in_groups([long, *[short] * 7], price=100) == [slice(0, 1), slice(1, 8)]
    assert in_groups([long, *[short] * 7], price=20_000) == [slice(0, 8)]
    assert in_groups([short] * 8, price=1) == [slice(0, 8)]
    quarters = in_groups([Length(400 - 10 * age, 50) for age in range(16)], price=10)
    assert [group.stop - group.start for group in quarters] == [4, 4, 4, 4]
    assert in_groups([long], price=100) == [slice(0, 1)]


def test_long_rows_and_short_ones_say_the_same_in_groups_and_in_python() -> None:
    network = toy_network()
    rows = [
        Row(
            (1, 2, 3 + age),
            40 * age + 30,
            prompt_codes=tuple(code % 250 for code in range(40 * age)),
            seed=age,
            sampling=Sampling(1.0, 20, 1.0),
        )
        for age in range(8)
    ]
    decoder = decoder_of(network, traced=True, max_rows=8)
    decoder.admit(rows)
    assert decoder._traced is not None
    decoder._traced._group_price = 1
    decoder.step()
    assert decoder._traced._thinking is not None
    assert len(decoder._traced._thinking[1]) == 4
    for number in [live.number for live in decoder._live]:
        decoder.cancel(number)
    assert decoder.speak(rows) == decoder_of(network, traced=False, max_rows=8).speak(rows)
