import torch

from voice_core.decoding.noise import derived_seed, row_key, uniform


def test_noise_is_splitmix64() -> None:
    """The first outputs of SplitMix64 for state 0 are published with its reference implementation."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    numbers = uniform(torch.zeros(3, dtype=torch.int64), torch.arange(3))
    assert numbers.tolist() == [(x >> 11) / 2**53 for x in published]


def test_noise_is_uniform_over_rows_and_steps() -> None:
    keys = torch.tensor([row_key(seed, 0) for seed in range(200)])
    numbers = torch.cat([uniform(keys, torch.full((200,), step)) for step in range(50)])
    assert 0 <= numbers.min() and numbers.max() < 1
    counts = torch.histc(numbers.float(), bins=10, min=0, max=1)
    assert (counts - 1000).abs().max() < 150  # five standard deviations of a binomial


def test_every_coordinate_changes_the_noise() -> None:
    keys = {row_key(seed, segment) for seed in (0, 1, 2**53 - 1) for segment in range(100)}
    assert len(keys) == 300


def test_the_first_derived_seed_is_the_seed_itself_and_the_others_differ() -> None:
    seeds = [derived_seed(7, index, 2**53) for index in range(16)]
    assert seeds[0] == 7
    assert len(set(seeds)) == 16
    assert all(0 <= seed < 2**53 for seed in seeds)
