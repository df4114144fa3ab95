"""Command: how voices do on texts of development, to choose among states of a run, and how sharp to speak.

    python training/choose.py MODEL [MODEL ...] [--texts 250] [--stretches 1.0 0.8 1.3]

The texts are drawn as those of the lessons are, from a seed that no shard has: neither learned from nor tested on,
but easier than the test sentences. Everything is spoken in this process, in batches; training/evaluate.py asks the
service. A line for each model and stretch of the estimate is printed, then all of them as a JSON list:

- `per`, `ended`, `length_ratio`, `length_sd`: as training/evaluate.py tells them;
- `lost_ends`: the share of texts whose last `LOST_PHONEMES` phonemes or more weren't said.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a fresh clone runs without being installed

from training.evaluate import STRETCHES, Judge, pace, segments_of
from training.recogniser import SHIPPED_FILE, Recogniser, edit_distance, load_recogniser
from training.service import Answer
from training.teacher import Teacher
from training.texts import texts
from training.wordnet import read_wordnet
from voice_core.speech import Speech
from voice_core.synthesizer import Synthesizer

SEED = 123_454_321  # a shard's has eight digits at most, unless a run's seed has more than four
SHORTEST_CHARACTERS, LONGEST_CHARACTERS = 25, 110  # with less to say, a phoneme more or less is a rate of its own
BATCH = 16  # segments
LOST_PHONEMES = 3
LONGEST_LOST_END = 14  # phonemes


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--texts", type=int, default=250)
    parser.add_argument("--stretches", type=float, nargs="+", default=STRETCHES[:1], help="of the estimated duration")
    parser.add_argument("--recogniser", type=Path, default=SHIPPED_FILE)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    teacher, drawn = Teacher(), development_texts(arguments.texts)
    phonemes = [teacher.phonemes(text) for text in drawn]
    judge, recogniser = Judge(arguments.recogniser, drawn, phonemes), load_recogniser(arguments.recogniser)
    figures = []
    for model in arguments.models:
        for stretch in arguments.stretches:
            answers = speak_in_batches(model, drawn, stretch)
            lost = lost_ends(recogniser, answers, phonemes)
            figures.append({"model": model, "stretch": stretch, **asdict(pace(answers, judge)), "lost_ends": lost})
            print(" ".join(f"{name} {value}" for name, value in rounded(figures[-1]).items()), flush=True)
    print(json.dumps(figures))


def development_texts(count: int) -> list[str]:
    """Return the first `count` texts of the seed that are neither very short nor very long."""
    drawn = texts(read_wordnet(), SEED)
    return list(islice((text for text in drawn if SHORTEST_CHARACTERS <= len(text) <= LONGEST_CHARACTERS), count))


def speak_in_batches(model: str, drawn: Sequence[str], stretch: float) -> list[Answer]:
    """Return what a model makes of the texts, each with its own seed, at `stretch` times the estimated seconds."""
    synthesizer = Synthesizer.load(model, device="cpu")
    segments = [
        (number, segment)
        for number, text in enumerate(drawn)
        for segment in segments_of(synthesizer, text, seed=number, stretch=stretch)
    ]
    segments.sort(key=lambda each: each[1].seconds)  # those of a batch end together
    said: list[list[tuple[int, Speech]]] = [[] for _ in drawn]
    for start in range(0, len(segments), BATCH):
        batch = segments[start : start + BATCH]
        spoken = synthesizer.speak([segment for _, segment in batch])
        for (number, segment), (speech,) in zip(batch, spoken, strict=True):
            said[number].append((segment.index, speech))
    synthesizer.close()
    return [_answer([speech for _, speech in sorted(of_text, key=lambda each: each[0])]) for of_text in said]


def lost_ends(recogniser: Recogniser, answers: Sequence[Answer], phonemes: Sequence[str]) -> float:
    """Return the share of texts of which `LOST_PHONEMES` phonemes or more are missing at the end."""
    lost = [
        lost_phonemes(recogniser.hear(answer.samples), recogniser.phoneme_ids(expected))
        for answer, expected in zip(answers, phonemes, strict=True)
    ]
    return sum(count >= LOST_PHONEMES for count in lost) / len(lost)


def lost_phonemes(heard: Sequence[int], expected: Sequence[int]) -> int:
    """Return how many of the last phonemes expected must be left out for what was heard to come closest."""
    errors = [
        edit_distance(heard, expected[: len(expected) - count]) for count in range(min(len(expected), LONGEST_LOST_END))
    ]
    return int(np.argmin(errors))


def rounded(figures: dict[str, object]) -> dict[str, object]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}


def _answer(speeches: Sequence[Speech]) -> Answer:
    return Answer(
        np.concatenate([speech.samples for speech in speeches]),
        tuple(str(speech.finish_reason) for speech in speeches),
        tuple(speech.asked_seconds for speech in speeches),
        tuple(speech.seconds for speech in speeches),
    )


if __name__ == "__main__":
    main()
