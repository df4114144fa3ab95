import torch

from voice_core.decoding.noise import uniform
from voice_core.seeds import row_key


def test_noise_is_splitmix64() -> None:
    """The first outputs of SplitMix64 for state 0 are published with its reference implementation."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    numbers = uniform(torch.zeros(3, dtype=torch.int64), torch.arange(3))
    assert numbers.tolist() == [(x >> 11) / 2**53 for x in published]


def test_noise_is_uniform_over_rows_and_steps() -> None:
    keys = torch.tensor([row_key(seed, 0) for seed in range(200)])
    numbers = torch.cat([uniform(keys, torch.full((200,), step)) for step in range(50)])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = torch.histc(numbers.float(), bins=10, min=0, max=1)
    assert (counts - 1000).abs().max() < 150  # five standard deviations of a binomial
