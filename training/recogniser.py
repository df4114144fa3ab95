"""The judge: a small network that hears phonemes, and the error rate that it gives to speech.

It was trained on the teacher alone, plain and through the codec, so it measures one thing: how much of what the teacher
would have said can still be made out. It says nothing about how pleasant a voice is.

Letters in shape comments: B sounds, N samples, F codec frames, M mel bands, P phonemes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from training.features import BANDS, LogMel

SHIPPED_FILE = Path(__file__).parent / "recogniser.safetensors"

WIDTH = 160
BLOCKS = 6
KERNEL = 9  # frames; six blocks hear half a second on each side
MEL_CENTRE, MEL_SPREAD = -3.0, 2.5  # of the teacher's log-mel values
_BLANK = 0


class Block(nn.Module):
    """Every channel looks along the time, then the channels look at each other."""

    def __init__(self) -> None:
        super().__init__()
        self.along = nn.Conv1d(WIDTH, WIDTH, KERNEL, padding=KERNEL // 2, groups=WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.across = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, WIDTH, F]"""
        heard: Tensor = self.across(self.norm(self.along(x).transpose(1, 2)))
        return x + heard.transpose(1, 2)


class Recogniser(nn.Module):
    """Mel frames to phoneme probabilities, one row a codec frame; CTC's blank is number 0."""

    def __init__(self, phonemes: Sequence[str]) -> None:
        super().__init__()
        self.phonemes = tuple(phonemes)
        self.mel = LogMel()
        self.enter = nn.Conv1d(BANDS, WIDTH, 5, stride=2, padding=2)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.leave = nn.Linear(WIDTH, len(self.phonemes) + 1)

    def forward(self, mel: Tensor) -> Tensor:
        """Return log-probabilities [B, F, P + 1] of mel frames [B, 2F, M]."""
        entered = self.enter(((mel - MEL_CENTRE) / MEL_SPREAD).transpose(1, 2))
        logits: Tensor = self.leave(self.norm(self.blocks(entered).transpose(1, 2)))
        return logits.log_softmax(-1)

    def phoneme_ids(self, phonemes: str) -> list[int]:
        """Return the numbers of the phonemes that this recogniser knows."""
        return [self.phonemes.index(phoneme) + 1 for phoneme in phonemes if phoneme in self.phonemes]

    @torch.inference_mode()
    def hear(self, samples: NDArray[np.float32]) -> list[int]:
        """Return the phoneme numbers heard in 16 kHz samples [N]."""
        likeliest = self(self.mel(torch.from_numpy(samples)[None]))[0].argmax(-1)
        return [number for number in likeliest.unique_consecutive().tolist() if number != _BLANK]

    def save(self, file: Path) -> None:
        """Write the weights in half precision, with the phonemes beside them."""
        tensors = {name: value.half().contiguous().cpu() for name, value in self.state_dict().items()}
        save_file(tensors, file, metadata={"phonemes": json.dumps(self.phonemes)})


def load_recogniser(file: Path = SHIPPED_FILE) -> Recogniser:
    """Return the recogniser of a file; without one, the shipped one, which all published figures come from."""
    with safe_open(file, framework="pt") as tensors:
        recogniser = Recogniser(json.loads(tensors.metadata()["phonemes"]))
        recogniser.load_state_dict({name: tensors.get_tensor(name).float() for name in tensors.keys()})  # noqa: SIM118
    return recogniser.eval()


class ErrorCount:
    """Phoneme errors over many sounds."""

    def __init__(self, recogniser: Recogniser) -> None:
        self._recogniser = recogniser
        self.errors = 0
        self.phonemes = 0

    @property
    def rate(self) -> float:
        return self.errors / max(1, self.phonemes)

    def add(self, samples: NDArray[np.float32], phonemes: str) -> int:
        """Count the errors in a sound that should say `phonemes`, and return how many they are."""
        expected = self._recogniser.phoneme_ids(phonemes)
        errors = edit_distance(self._recogniser.hear(samples), expected)
        self.errors += errors
        self.phonemes += len(expected)
        return errors


def edit_distance(heard: Sequence[int], expected: Sequence[int]) -> int:
    """Return how many insertions, deletions and substitutions turn one sequence into the other."""
    row = list(range(len(expected) + 1))
    for place, symbol in enumerate(heard, start=1):
        diagonal, row[0] = row[0], place
        for column, other in enumerate(expected, start=1):
            substituted = diagonal + (symbol != other)
            diagonal = row[column]
            row[column] = min(row[column] + 1, row[column - 1] + 1, substituted)
    return row[-1]


def ctc_loss(log_probabilities: Tensor, frames: Tensor, phonemes: Sequence[Sequence[int]]) -> Tensor:
    """Return the CTC loss of log-probabilities [B, F, P + 1] whose rows have `frames` [B] frames."""
    targets = torch.tensor([number for row in phonemes for number in row], device=frames.device)
    counts = torch.tensor([len(row) for row in phonemes], device=frames.device)
    return F.ctc_loss(log_probabilities.transpose(0, 1), targets, frames, counts, zero_infinity=True)
