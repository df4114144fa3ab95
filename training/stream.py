"""The stream of batches that the speaker learns from, made in this process or by workers beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training.corpus import Utterance
from training.speaker import ON_THE_CPU, USUALLY_OFF_PACE, Batch, Lesson, OffPace, batches, disturbed
from voice_core.model.config import ModelConfig

BATCHES_AHEAD = 8  # of each worker: it makes the lessons of a whole pool before the pool's first batch


class Stream(IterableDataset["Packed"]):
    """Disturbed batches and their total lengths, for ever.

    Of several workers each has a share of the utterances, and makes its lessons and their prompts of these; their
    batches take turns, so that a seed and a number of workers always give the same ones.
    """

    def __init__(
        self,
        corpus: Sequence[Utterance],
        lessons_of: Callable[[Sequence[Utterance]], list[Lesson]],
        config: ModelConfig,
        *,
        seed: int,
        frames: int,
        off_pace: OffPace = USUALLY_OFF_PACE,
    ) -> None:
        self._corpus = corpus
        self._lessons_of = lessons_of
        self._config = config
        self._seed = seed
        self._frames = frames
        self._off_pace = off_pace

    def __iter__(self) -> Iterator[Packed]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        generator = torch.Generator().manual_seed(self._seed * workers + number)
        lessons = self._lessons_of(self._corpus[number::workers])
        for batch in batches(lessons, self._config, generator, self._frames, self._off_pace):
            yield pack(*disturbed(batch, self._config, generator))

    def on(self, device: torch.device, workers: int) -> Iterator[tuple[Batch, Tensor]]:
        """Yield the batches on a device, as so many processes make them, or this one."""
        loader = DataLoader(
            self,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=BATCHES_AHEAD if workers else None,
            multiprocessing_context="fork" if workers else None,
            pin_memory=device.type == "cuda",
        )
        return (unpack(Packed(*packed), device) for packed in loader)


class Packed(NamedTuple):
    """A batch and its total lengths in one piece: every tensor more costs on its way from a worker and to a GPU."""

    numbers: Tensor  # [N] float32, which holds such small integers exactly: the columns, one after the other
    shapes: Sequence[Sequence[int]]  # of the columns


def pack(batch: Batch, totals: Tensor) -> Packed:
    columns = (*batch, totals)
    return Packed(torch.cat([column.flatten().float() for column in columns]), [column.shape for column in columns])


def unpack(packed: Packed, device: torch.device) -> tuple[Batch, Tensor]:
    """Return batch and totals on a device, without waiting for the copy to arrive."""
    sizes = [prod(shape) for shape in packed.shapes]
    here, there = packed.numbers.split(sizes), packed.numbers.to(device, non_blocking=True).split(sizes)
    named = {
        name: (here if name in ON_THE_CPU else there)[number].view(*packed.shapes[number])
        for number, name in enumerate(Batch._fields)
    }
    batch = Batch(**{name: column if name == "places" else column.long() for name, column in named.items()})
    return batch, there[-1]
