import random

from voice_core.batching import MOST_PADDING, padded_groups


def test_groups_hold_every_item_once_with_little_padding() -> None:
    rng = random.Random(2)
    lengths = [rng.randrange(900) for _ in range(200)]
    groups = padded_groups(lengths, most_positions=4096)
    assert sorted(number for members in groups for number in members) == [
        number for number, length in enumerate(lengths) if length
    ]
    for members in groups:
        filled = [lengths[number] for number in members]
        padded = max(filled) * len(filled)
        assert padded <= 4096
        assert padded - sum(filled) < MOST_PADDING * padded


def test_equal_lengths_share_a_group_and_very_unequal_ones_do_not() -> None:
    assert padded_groups([50, 50, 50], most_positions=4096) == [[0, 1, 2]]
    assert padded_groups([10, 100], most_positions=4096) == [[1], [0]]


def test_an_item_beyond_the_limit_is_a_group_of_its_own() -> None:
    assert padded_groups([101, 101], most_positions=100) == [[0], [1]]


def test_the_number_of_items_can_be_limited() -> None:
    assert padded_groups([5] * 5, most_positions=100, most_items=2) == [[0, 1], [2, 3], [4]]
