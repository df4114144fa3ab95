"""Command: trains the judge on the teacher's speech, plain and through the codec.

python training/train_recogniser.py --data SOUND_SHARDS --codec DIRECTORY --out DIRECTORY
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a fresh clone runs without being installed

from training.corpus import Utterance, read_corpus
from training.features import CodeBook, load_codebook
from training.recogniser import ErrorCount, Recogniser, ctc_loss
from training.runs import Run, Schedule, begin, command_line
from training.speaker import phonemes_of
from training.teacher import FRAME_SAMPLES
from voice_core.codec.codec import Codec

HIGHEST_RATE = 2e-3
WEIGHT_DECAY = 0.01
BETAS = (0.9, 0.98)
HELD_OUT = 60
FRAMES_PER_BATCH = 2400
LONGEST_FRAMES = 300  # 6 s; longer ones teach nothing new
POOL = 256  # utterances that are sorted by length together
THROUGH_CODEC = 0.4  # of the batches: the judged speech has passed through it
LOUDNESS = (-0.7, 0.5)  # natural logarithm of the gain
LOUDEST_NOISE = 0.5  # standard deviation in the log-mel frames
QUICK_STEPS = 10


class HeardBatch(NamedTuple):
    """Sounds of about one length, padded with silence."""

    sounds: Tensor  # [B, N]
    frames: Tensor  # [B]
    phonemes: list[list[int]]


class Resynthesis:
    """Sound to codes and back, as the speaker's codec will render it."""

    def __init__(self, directory: Path) -> None:
        self._codebook: CodeBook = load_codebook(directory)
        self._codec = Codec.load(directory)

    @torch.inference_mode()
    def __call__(self, sounds: Tensor) -> Tensor:
        """Return sounds [B, N] as the codec repeats them."""
        return torch.stack([torch.from_numpy(each) for each in self._codec.decode_batch(self._codebook(sounds))])


def main() -> None:
    arguments = _arguments()
    begin(arguments)
    corpus = read_corpus(arguments.data)
    recogniser = Recogniser(phonemes_of(corpus)).to(arguments.device)
    held_out, learned = corpus[:HELD_OUT], corpus[HELD_OUT:]
    run = Run(
        recogniser,
        Schedule(QUICK_STEPS if arguments.quick else arguments.steps, HIGHEST_RATE),
        arguments.out / "recogniser.state",
        weight_decay=WEIGHT_DECAY,
        betas=BETAS,
    )
    generator = torch.Generator().manual_seed(arguments.seed + run.step)
    stream = batches(learned, recogniser, Resynthesis(arguments.codec), generator)
    for _ in run.steps():
        batch = next(stream)
        with torch.no_grad():
            mel = recogniser.mel(batch.sounds.to(arguments.device))
        loudest = torch.rand(1, generator=generator) * LOUDEST_NOISE
        mel = mel + (torch.randn(mel.shape, generator=generator) * loudest).to(mel)
        run.learn(ctc_loss(recogniser(mel), batch.frames.to(arguments.device), batch.phonemes))
    recogniser.cpu().eval().save(arguments.out / "recogniser.safetensors")
    report(recogniser, held_out, Resynthesis(arguments.codec))


def batches(
    corpus: Sequence[Utterance], recogniser: Recogniser, resynthesis: Resynthesis, generator: torch.Generator
) -> Iterator[HeardBatch]:
    """Yield batches for ever, some of them through the codec, each at a loudness of its own."""
    usable = [each for each in corpus if each.frames_of_sound <= LONGEST_FRAMES and len(each.phonemes) > 2]
    while True:
        drawn = torch.randint(len(usable), (POOL,), generator=generator).tolist()
        pool = sorted((usable[number] for number in drawn), key=lambda each: each.frames_of_sound)
        size = max(1, FRAMES_PER_BATCH // pool[-1].frames_of_sound)
        groups = [pool[start : start + size] for start in range(0, POOL, size)]
        for number in torch.randperm(len(groups), generator=generator).tolist():
            batch = collate(groups[number], recogniser)
            if torch.rand(1, generator=generator) < THROUGH_CODEC:
                batch = batch._replace(sounds=resynthesis(batch.sounds))
            low, high = LOUDNESS
            gain = (low + (high - low) * torch.rand(1, generator=generator)).exp()
            yield batch._replace(sounds=batch.sounds * gain)


def collate(utterances: Sequence[Utterance], recogniser: Recogniser) -> HeardBatch:
    """Return the utterances as one batch."""
    frames = torch.tensor([each.frames_of_sound for each in utterances])
    sounds = torch.zeros(len(utterances), int(frames.max()) * FRAME_SAMPLES)
    for row, each in zip(sounds, utterances, strict=True):
        row[: len(each.signal)] = torch.from_numpy(each.sound)
    return HeardBatch(sounds, frames, [recogniser.phoneme_ids(each.phonemes) for each in utterances])


def report(recogniser: Recogniser, utterances: Sequence[Utterance], resynthesis: Resynthesis) -> None:
    """Print the error rates on held-out speech: the judge's own, and with the codec's on top."""
    plain, repeated = ErrorCount(recogniser), ErrorCount(recogniser)
    for each in utterances:
        plain.add(each.sound, each.phonemes)
        repeated.add(resynthesis(torch.from_numpy(each.sound)[None])[0].numpy(), each.phonemes)
    print(f"held out: PER {plain.rate:.4f}, through the codec {repeated.rate:.4f}", flush=True)


def _arguments() -> Namespace:
    parser = command_line(__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="shards of sound from training/make_data.py")
    parser.add_argument("--codec", type=Path, required=True, help="the codec that will be judged too")
    parser.add_argument("--steps", type=int, default=2500)
    return parser.parse_args()


if __name__ == "__main__":
    main()
