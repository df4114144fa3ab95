"""Shards: spoken texts on the disk, with the sound or with its codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.teacher import FRAME_SAMPLES

_SHARD = "shard-{:04}.npz"
ANY_SHARD = "shard-????.npz"


@dataclass(frozen=True)
class Utterance:
    """A text as the teacher said it."""

    text: str
    phonemes: str  # IPA, as the teacher writes it
    voice: int  # its number among the teacher's
    signal: NDArray[np.int16]  # samples [N] at 16 kHz, or codes [F], as the shard's maker chose

    @property
    def frames_of_sound(self) -> int:
        """Codec frames, where the signal is sound."""
        return len(self.signal) // FRAME_SAMPLES

    @property
    def sound(self) -> NDArray[np.float32]:
        """Samples in -1..1, where the signal is sound."""
        return self.signal.astype(np.float32) / np.float32(32768)


def shard_path(directory: Path, index: int) -> Path:
    return directory / _SHARD.format(index)


def write_shard(file: Path, utterances: Sequence[Utterance]) -> None:
    """Write the utterances; the file appears whole or not at all, so that a stopped maker can go on."""
    columns: dict[str, Any] = {
        "texts": np.array([each.text for each in utterances]),
        "phonemes": np.array([each.phonemes for each in utterances]),
        "voices": np.array([each.voice for each in utterances]),
        "lengths": np.array([len(each.signal) for each in utterances]),
        "signals": np.concatenate([each.signal for each in utterances]),
    }
    unfinished = file.with_suffix(".part.npz")
    np.savez(unfinished, **columns)
    unfinished.rename(file)


def read_corpus(directory: Path) -> list[Utterance]:
    """Return the utterances of all shards in `directory`."""
    shards = sorted(directory.glob(ANY_SHARD))
    if not shards:
        raise FileNotFoundError(f"no shards in {directory}; training/make_data.py writes them")
    return [utterance for shard in shards for utterance in _read_shard(shard)]


def _read_shard(file: Path) -> Iterator[Utterance]:
    with np.load(file) as columns:
        ends = columns["lengths"].cumsum()
        signals = np.split(columns["signals"], ends[:-1])
        told = zip(columns["texts"], columns["phonemes"], columns["voices"], signals, strict=True)
        for text, phonemes, voice, signal in told:
            yield Utterance(str(text), str(phonemes), int(voice), signal)
