import pytest
import torch
from torch import nn

from tests.toy import toy_network
from voice_core.model.packing import PackedLinear, pack_linears, rounded_up


def test_packed_layers_compute_the_same() -> None:
    network = nn.Sequential(nn.Linear(37, 65), nn.GELU(), nn.Linear(65, 19, bias=False))
    x = torch.randn(3, 1, 37)
    with torch.no_grad():
        expected = network(x)
        pack_linears(network)
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 24), (1, 24), (17, 24), (3, 23, 24), (301, 24)])
def test_rows_are_rounded_up_and_nothing_is_seen_of_it(shape: tuple[int, ...]) -> None:
    linear = nn.Linear(24, 40)
    inputs = torch.randn(shape)
    outputs = PackedLinear(linear)(inputs)
    assert outputs.shape == (*shape[:-1], 40)
    assert torch.allclose(outputs, linear(inputs), atol=1e-5)


def test_texts_of_all_lengths_ask_for_few_kernels_and_little_more_work() -> None:
    assert len({rounded_up(rows) for rows in range(16 * 400)}) < 100
    assert all(rows <= rounded_up(rows) <= 1.125 * rows for rows in range(1, 16 * 400))
    assert all(rounded_up(rows) == rows for rows in range(17))


def test_every_linear_layer_of_a_float32_network_is_packed() -> None:
    network = toy_network()
    linears = sum(isinstance(module, nn.Linear) for module in network.modules())
    pack_linears(network)
    assert sum(isinstance(module, PackedLinear) for module in network.modules()) == linears > 0
    assert not any(isinstance(module, nn.Linear) for module in network.modules())


def test_other_precisions_stay_as_they_are() -> None:
    network = toy_network().to(torch.bfloat16)
    pack_linears(network)
    assert not any(isinstance(module, PackedLinear) for module in network.modules())
