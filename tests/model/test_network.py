"""The network in pieces: whoever runs it may do something else in between, and nothing comes out differently."""

from functools import partial

import torch

from tests.toy import toy_network
from voice_core.model.network import whole

LENGTHS = torch.tensor([40, 23])


def text_ids() -> torch.Tensor:
    return torch.randint(1, 60, (len(LENGTHS), int(LENGTHS.max())), generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def test_a_long_text_gives_the_same_memory_in_more_pieces() -> None:
    encoder = toy_network().encoder
    at_once = sum(1 for _ in encoder.pieces(text_ids(), LENGTHS))
    expected = encoder(text_ids(), LENGTHS)
    in_stretches = partial(encoder.pieces, text_ids(), LENGTHS, most_positions=16)  # of two texts: eight tokens of each
    assert sum(1 for _ in in_stretches()) == at_once + 5 * len(encoder.layers)
    assert torch.allclose(whole(in_stretches()), expected, atol=1e-6)


@torch.inference_mode()
def test_what_cross_attention_reads_is_made_layer_by_layer() -> None:
    network = toy_network()
    memory = network.encoder(text_ids(), LENGTHS)
    assert sum(1 for _ in network.decoder.memorise_pieces(memory, LENGTHS)) == len(network.decoder.layers)
