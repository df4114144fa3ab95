import torch
from torch import nn

from tests.toy import toy_network
from voice_core.model.packing import PackedLinear, pack_linears


def test_packed_layers_compute_the_same() -> None:
    network = nn.Sequential(nn.Linear(37, 65), nn.GELU(), nn.Linear(65, 19, bias=False))
    x = torch.randn(3, 1, 37)
    with torch.no_grad():
        expected = network(x)
        pack_linears(network)
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-5)


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
