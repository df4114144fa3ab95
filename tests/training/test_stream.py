"""Batches come whole from wherever they are made, and the same ones for a seed."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from training.corpus import Utterance
from training.speaker import Batch, Lesson, batches, disturbed
from training.stream import Stream, pack, unpack
from training.voice_files import QUICK_SIZE, write_voice_files
from voice_core.model.config import ModelConfig, read_config

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    directory = tmp_path_factory.mktemp("voice")
    write_voice_files(directory, QUICK_SIZE)
    return read_config(directory)


def utterances(count: int) -> list[Utterance]:
    """Return utterances of which each has a length of its own, and that as its only phoneme."""
    return [Utterance("a", "b", number % 2, np.full(60 + number, 7, np.int16)) for number in range(count)]


def as_lessons(corpus: Sequence[Utterance]) -> list[Lesson]:
    return [Lesson((1, 2, 1), (len(each.signal),), torch.from_numpy(each.signal).long(), each.voice) for each in corpus]


def equal(one: Batch, other: Batch) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def test_what_is_packed_is_unpacked_again(config: ModelConfig) -> None:
    generator = torch.Generator().manual_seed(0)
    batch, totals = disturbed(next(batches(as_lessons(utterances(40)), config, generator)), config, generator)
    again, totals_again = unpack(pack(batch, totals), CPU)
    assert equal(batch, again)
    assert [each.dtype for each in batch] == [each.dtype for each in again]
    assert torch.equal(totals, totals_again)


def test_without_workers_the_batches_are_those_of_the_seed(config: ModelConfig) -> None:
    generator = torch.Generator().manual_seed(5)
    made = batches(as_lessons(utterances(40)), config, generator, 900)
    stream = Stream(utterances(40), as_lessons, config, seed=5, frames=900).on(CPU, workers=0)
    for _ in range(12):
        expected, totals = disturbed(next(made), config, generator)
        batch, got_totals = next(stream)
        assert equal(batch, expected)
        assert torch.equal(got_totals, totals)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 is wary of it beside threads
def test_workers_make_the_same_batches_each_time_each_of_its_own_share(config: ModelConfig) -> None:
    corpus = utterances(120)
    once, again = (Stream(corpus, as_lessons, config, seed=5, frames=900).on(CPU, workers=2) for _ in range(2))
    met: list[list[int]] = [[], []]
    turn = 0
    while min(map(len, met)) < 60:
        (batch, _), (same, _) = next(once), next(again)
        assert equal(batch, same)
        assert batch.inputs.numel() <= 900
        met[turn % 2] += batch.phonemes[batch.phoneme_counts.cumsum(0) - 1].tolist()  # the last one is no prompt's
        turn += 1
    assert sorted(met[0][:60]) == list(range(60, 180, 2))
    assert sorted(met[1][:60]) == list(range(61, 180, 2))
