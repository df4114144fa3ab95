"""Command: what the voice is worth, measured on sentences that share no template with the training texts.

    python training/evaluate.py                        # all figures, through the product's parts in this process
    python training/evaluate.py --quick                # starts the service, the error rate is measured over HTTP
    python training/evaluate.py --model DIRECTORY      # another checkpoint than the one in the package

The last line is a JSON object: `per` (phoneme errors a phoneme, by the shipped recogniser against what the teacher
would have said), `ended` (share of segments that ended by themselves), `length_ratio` and `length_sd` (seconds got to
seconds asked), `audio_s_per_core_s` (one sentence at a time, codec included), `sentences`.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a fresh clone runs without being installed

from training.recogniser import SHIPPED_FILE, ErrorCount, load_recogniser
from training.service import Service
from training.teacher import Teacher
from training.texts import visible
from voice_core.planning import plan
from voice_core.speech import FinishReason, Sampling, Segment, Speech
from voice_core.synthesizer import EMBEDDED, Synthesizer

SENTENCES_FILE = Path(__file__).parent / "test_sentences.txt"
PHONEMES_FILE = Path(__file__).parent / "test_phonemes.txt"  # the teacher's, so that no teacher need be installed
STRETCHES = (0.8, 1.0, 1.3)  # of the estimated duration
TIMED_SENTENCES = 10


@dataclass(frozen=True)
class Spoken:
    """A sentence as the voice said it."""

    samples: NDArray[np.float32]
    ended: tuple[bool, ...]  # for each segment: by itself, not by its limit
    length_ratios: tuple[float, ...]  # for each segment: seconds got to seconds asked; empty if not known


@dataclass(frozen=True)
class Figures:
    """The result, as the last line tells it."""

    per: float
    ended: float
    length_ratio: float
    length_sd: float
    audio_s_per_core_s: float
    sentences: int


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    sentences, phonemes = read_sentences(arguments.sentences)
    sentences, phonemes = sentences[: arguments.limit], phonemes[: arguments.limit]
    sampling = Sampling(temperature=arguments.temperature, top_k=arguments.top_k)
    synthesizer = Synthesizer.load(arguments.model, device="cpu")
    spoken = {
        stretch: speak_here(synthesizer, sentences, stretch, sampling)
        for stretch in ((1.0,) if arguments.quick else STRETCHES)
    }
    judged = spoken[1.0]
    speed = audio_per_core_second(synthesizer, sentences[:TIMED_SENTENCES])
    synthesizer.close()
    if arguments.quick:
        with Service(arguments.model) as service:
            judged = [Spoken(*service.speak(sentence, seed), ()) for seed, sentence in enumerate(sentences)]
    for stretch, results in spoken.items():
        mean, deviation = length_statistics(results)
        print(f"asked for {stretch:g} times the estimate: got {mean:.3f} of it, deviation {deviation:.3f}")
    per = error_rate(judged, sentences, phonemes, arguments.recogniser)
    mean, deviation = length_statistics(spoken[1.0])
    ends = [end for each in judged for end in each.ended]
    print(json.dumps(asdict(Figures(per, sum(ends) / len(ends), mean, deviation, speed, len(sentences)))))


def read_sentences(file: Path) -> tuple[list[str], list[str]]:
    """Return the sentences of a file, one a line, and what the teacher would say; it is only asked for new ones."""
    sentences = file.read_text(encoding="utf-8").splitlines()
    if file == SENTENCES_FILE:
        return sentences, PHONEMES_FILE.read_text(encoding="utf-8").splitlines()
    teacher = Teacher()
    return sentences, [teacher.phonemes(visible(sentence)) for sentence in sentences]


def speak_here(synthesizer: Synthesizer, sentences: Sequence[str], stretch: float, sampling: Sampling) -> list[Spoken]:
    """Speak the sentences together, planned as the service plans them, the estimates stretched."""
    segments = [planned(synthesizer, sentence, seed, stretch, sampling) for seed, sentence in enumerate(sentences)]
    speeches = iter(synthesizer.speak([segment for of_sentence in segments for segment in of_sentence]))
    return [_joined([next(speeches)[0] for _ in of_sentence]) for of_sentence in segments]


def planned(synthesizer: Synthesizer, sentence: str, seed: int, stretch: float, sampling: Sampling) -> list[Segment]:
    """Return the segments of a sentence; the figures in it are spelled out, whoever does so once more."""
    found = plan(visible(sentence), longest_seconds=synthesizer.facts.longest_seconds, language="en", speed=1 / stretch)
    return [
        Segment(segment.text, segment.seconds, index, (seed,), sampling) for index, segment in enumerate(found.segments)
    ]


def _joined(speeches: Sequence[Speech]) -> Spoken:
    return Spoken(
        np.concatenate([speech.samples for speech in speeches]),
        tuple(speech.finish_reason is FinishReason.STOP for speech in speeches),
        tuple(speech.seconds / speech.asked_seconds for speech in speeches),
    )


def length_statistics(spoken: Sequence[Spoken]) -> tuple[float, float]:
    """Return mean and standard deviation of seconds got to seconds asked."""
    ratios = np.array([ratio for each in spoken for ratio in each.length_ratios])
    return float(ratios.mean()), float(ratios.std())


def error_rate(spoken: Sequence[Spoken], sentences: Sequence[str], phonemes: Sequence[str], recogniser: Path) -> float:
    """Return the phoneme error rate, and print the sentences that went worst."""
    count = ErrorCount(load_recogniser(recogniser))
    errors = [count.add(each.samples, expected) for each, expected in zip(spoken, phonemes, strict=True)]
    for worst in sorted(range(len(errors)), key=lambda number: -errors[number])[:5]:
        print(f"{errors[worst]:3} errors: {sentences[worst]}")
    return count.rate


def audio_per_core_second(synthesizer: Synthesizer, sentences: Sequence[str]) -> float:
    """Return seconds of speech a second of this process's CPU time, one sentence at a time."""
    begun = time.process_time()
    spoken = [speak_here(synthesizer, [sentence], 1.0, Sampling())[0] for sentence in sentences]
    seconds = sum(len(each.samples) for each in spoken) / synthesizer.facts.sample_rate
    return seconds / (time.process_time() - begun)


def _arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    default = Sampling()
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--quick", action="store_true", help="the error rate over HTTP, one target length only")
    parser.add_argument("--limit", type=int, help="of sentences")
    parser.add_argument("--sentences", type=Path, default=SENTENCES_FILE)
    parser.add_argument("--recogniser", type=Path, default=SHIPPED_FILE)
    parser.add_argument("--temperature", type=float, default=default.temperature)
    parser.add_argument("--top-k", type=int, default=default.top_k)
    return parser.parse_args()


if __name__ == "__main__":
    main()
