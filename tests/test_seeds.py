from voice_core.seeds import row_key, sample_seeds
from voice_core.speech import MAX_SEED


def test_every_seed_and_segment_has_a_key_of_its_own() -> None:
    keys = {row_key(seed, segment) for seed in (0, 1, MAX_SEED) for segment in range(100)}
    assert len(keys) == 300
    assert all(-(2**63) <= key < 2**63 for key in keys)


def test_the_first_sample_has_the_requests_seed_and_the_others_seeds_of_their_own() -> None:
    seeds = sample_seeds(7, 16)
    assert seeds[0] == 7
    assert len(set(seeds)) == 16
    assert all(0 <= seed <= MAX_SEED for seed in seeds)
    assert sample_seeds(7, 3) == seeds[:3]
