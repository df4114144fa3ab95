import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from voice_core.decoding.sampling import Demand, Options, draw, filtered
from voice_core.speech import Sampling

CPU = torch.device("cpu")


def kept_ids(logits: Tensor, sampling: Sampling, count: int | None = None) -> list[set[int]]:
    """The ids that the filters leave of each row."""
    vocab_size = logits.shape[1]
    options = Options.of([sampling] * len(logits), vocab_size, CPU)
    if sampling.greedy:  # the filter is asked even where the draw would not need it
        temperature = torch.full_like(options.temperature, sampling.temperature)
        options = options._replace(temperature=temperature)
    demand = Demand(count or vocab_size, min_p=sampling.min_p > 0)
    ids, scaled, kept = filtered(logits, options, demand)
    kept &= scaled > -torch.inf  # no filter removes what has no mass
    return [set(row[keep].tolist()) for row, keep in zip(ids, kept, strict=True)]


def test_filters_keep_what_the_reference_keeps(fixtures: Path) -> None:
    arrays = np.load(fixtures / "filter" / "support.npz")
    combos = json.loads((fixtures / "filter" / "support.json").read_text())["combos"]
    for combo in combos:
        logits = torch.tensor(arrays["logits__" + combo["logits"]])
        bits = arrays["support__" + combo["logits"]][combo["index"]]
        reference = np.unpackbits(bits, axis=1)[:, : logits.shape[1]]
        sampling = Sampling(combo["temperature"], combo["top_k"], combo["top_p"], combo["min_p"])
        probabilities = (logits / sampling.temperature).softmax(1)
        rows_with_likely_ids = (probabilities >= sampling.min_p).any(1)
        ours = kept_ids(logits, sampling)
        for row, ids in enumerate(ours):
            if sampling.min_p and rows_with_likely_ids[row] and not rows_with_likely_ids.all():
                # One row that keeps nothing switches min_p off for the reference's whole batch; in ours for itself.
                assert ids == set((probabilities[row] >= sampling.min_p).nonzero()[:, 0].tolist())
            else:
                # Of equal logits at the border top_p keeps any (the reference's sort is not stable): compare values.
                theirs = logits[row][reference[row].nonzero()[0]]
                assert logits[row][list(ids)].sort().values.tolist() == theirs.sort().values.tolist(), combo


def test_top_k_of_a_list_holds_row_by_row() -> None:
    logits = torch.randn(3, 40, generator=torch.manual_seed(0))
    options = Options.of([Sampling(1.0, k, 1.0) for k in (2, 5, 0)], 40, CPU)
    assert filtered(logits, options, Demand(40, min_p=False)).kept.sum(1).tolist() == [2, 5, 40]


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(0.7, 5, 0.5), Sampling(1.3, 20, 1.0), Sampling(1.0, 3, 0.9, 0.02)]
)
def test_few_candidates_keep_the_same_ids_as_a_full_sort(sampling: Sampling) -> None:
    logits = torch.randn(8, 2000, generator=torch.manual_seed(1)) * 3
    logits[3] = logits[3].round()  # hundreds of ties, more than the spare candidates hold
    few = Demand.of([sampling], 2000).candidates
    assert few < 200
    assert kept_ids(logits, sampling, few) == kept_ids(logits, sampling, 2000)


def test_a_draw_does_not_depend_on_how_many_candidates_were_sorted() -> None:
    logits = torch.randn(64, 500, generator=torch.manual_seed(2)) * 2
    options = Options.of([Sampling(0.9, 12, 0.95)] * 64, 500, CPU)
    noise = torch.rand(64, generator=torch.manual_seed(3), dtype=torch.float64)
    few, all_of_them = (draw(logits, options, noise, Demand(count, min_p=False)).ids for count in (28, 500))
    assert torch.equal(few, all_of_them)


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log().expand(10_000, 4)
    options = Options.of([Sampling(1.0, 0, 1.0)] * 10_000, 4, CPU)
    noise = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    counts = draw(logits, options, noise, Demand(4, min_p=False)).ids.bincount(minlength=4)
    assert counts.tolist() == pytest.approx([5000, 2500, 1250, 1250], abs=1)


def test_greedy_rows_ignore_the_noise_beside_rows_that_draw() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.9], [0.0, 3.0, 2.9]])
    options = Options.of([Sampling(0.0), Sampling(1.0, 0, 1.0)], 3, CPU)
    noise = torch.tensor([0.999, 0.999], dtype=torch.float64)
    assert draw(logits, options, noise, Demand(3, min_p=False)).ids.tolist() == [1, 2]


def test_equal_logits_give_a_greedy_row_the_lowest_id() -> None:
    logits = torch.ones(1, 5)
    options = Options.of([Sampling(top_k=1)], 5, CPU)
    assert draw(logits, options, torch.zeros(1, dtype=torch.float64), Demand(1, min_p=False)).ids.tolist() == [0]


def test_logits_that_are_no_numbers_are_told_row_by_row() -> None:
    logits = torch.zeros(3, 50)
    logits[1, 7] = torch.nan
    for sampling in (Sampling(), Sampling(0.0), Sampling(1.0, 0, 1.0)):
        options = Options.of([sampling] * 3, 50, CPU)
        drawn = draw(logits, options, torch.zeros(3, dtype=torch.float64), Demand.of([sampling], 50))
        assert drawn.broken.tolist() == [False, True, False]
        assert drawn.ids.max() < 50


def test_a_tiny_temperature_is_greedy() -> None:
    assert Sampling(1e-38).greedy
    assert not Sampling(0.01).greedy


def test_a_min_p_too_small_for_its_reciprocal_is_one_that_keeps_everything() -> None:
    assert Demand.of([Sampling(top_k=5, min_p=1e-320)], vocab_size=500).candidates == 500
