"""Command: how voices do on texts of development, to choose among states of a run, and how sharp to speak.

    python training/choose.py MODEL [MODEL ...] --learned SHARDS [--texts 250] [--stretches 1.0 0.8 1.3]

The texts are drawn as those of the lessons are, from a seed that no shard has: not tested on, but easier than the test
sentences. A tenth of such texts stand in 120 hours of lessons too; those in the shards of `--learned` are left out.
Everything is spoken in this process, in batches; training/evaluate.py asks the service. A line for each model and
stretch of the estimate is printed, then all of them as a JSON list:

- `per`, `ended`, `length_ratio`, `length_sd`: as training/evaluate.py tells them;
- `lost_ends`: the share of texts whose last `LOST_PHONEMES` phonemes or more weren't said;
- `greetings_ended`: the share of greetings that ended by themselves after a recording that is no speech.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Container, Sequence
from dataclasses import asdict, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a fresh clone runs without being installed

from training.corpus import read_corpus
from training.evaluate import STRETCHES, Judge, pace, segments_of
from training.recogniser import SHIPPED_FILE, Recogniser, edit_distance, load_recogniser
from training.service import Answer
from training.teacher import Teacher
from training.texts import texts
from training.wordnet import read_wordnet
from voice_core.audio.waveform import Waveform
from voice_core.codec.encoder import load_encoder
from voice_core.speech import FinishReason, Segment, Speech, VoicePrompt
from voice_core.synthesizer import Synthesizer, codec_directory
from voice_core.text.duration import Reference

SEED = 123_454_321  # a shard's has eight digits at most, unless a run's seed has more than four
SHORTEST_CHARACTERS, LONGEST_CHARACTERS = 25, 110  # with less to say, a phoneme more or less is a rate of its own
BATCH = 16  # segments
LOST_PHONEMES = 3
LONGEST_LOST_END = 14  # phonemes
GREETING = "Hello there."
GREETINGS = 64
NO_SPEECH_SECONDS = 2


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--texts", type=int, default=250)
    parser.add_argument("--stretches", type=float, nargs="+", default=STRETCHES[:1], help="of the estimated duration")
    parser.add_argument("--learned", type=Path, help="shards whose texts are left out")
    parser.add_argument("--recogniser", type=Path, default=SHIPPED_FILE)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    learned = () if arguments.learned is None else {each.text for each in read_corpus(arguments.learned)}
    teacher, drawn = Teacher(), development_texts(arguments.texts, learned)
    phonemes = [teacher.phonemes(text) for text in drawn]
    judge, recogniser = Judge(arguments.recogniser, drawn, phonemes), load_recogniser(arguments.recogniser)
    figures = []
    for model in arguments.models:
        synthesizer = Synthesizer.load(model, device="cpu")
        greetings = greetings_ended(synthesizer, recordings_of_no_speech(model))
        for stretch in arguments.stretches:
            answers = speak_in_batches(synthesizer, drawn, stretch)
            lost = lost_ends(recogniser, answers, phonemes)
            told = {"model": model, "stretch": stretch, **asdict(pace(answers, judge)), "lost_ends": lost}
            figures.append({**told, "greetings_ended": greetings})
            print(" ".join(f"{name} {value}" for name, value in rounded(figures[-1]).items()), flush=True)
        synthesizer.close()
    print(json.dumps(figures))


def development_texts(count: int, learned: Container[str] = ()) -> list[str]:
    """Return the first `count` texts of the seed that are neither very short nor very long nor learned from."""
    drawn = (text for text in texts(read_wordnet(), SEED) if text not in learned)
    return list(islice((text for text in drawn if SHORTEST_CHARACTERS <= len(text) <= LONGEST_CHARACTERS), count))


def speak_in_batches(synthesizer: Synthesizer, drawn: Sequence[str], stretch: float) -> list[Answer]:
    """Return what a model makes of the texts, each with its own seed, at `stretch` times the estimated seconds."""
    segments = [
        (number, segment)
        for number, text in enumerate(drawn)
        for segment in segments_of(synthesizer, text, seed=number, stretch=stretch)
    ]
    segments.sort(key=lambda each: each[1].seconds)  # those of a batch end together
    said: list[list[tuple[int, Speech]]] = [[] for _ in drawn]
    spoken = speech_of(synthesizer, [segment for _, segment in segments])
    for (number, segment), speech in zip(segments, spoken, strict=True):
        said[number].append((segment.index, speech))
    return [_answer([speech for _, speech in sorted(of_text, key=lambda each: each[0])]) for of_text in said]


def speech_of(synthesizer: Synthesizer, segments: Sequence[Segment]) -> list[Speech]:
    """Return what each segment of one seed becomes, spoken in batches."""
    batches = [segments[start : start + BATCH] for start in range(0, len(segments), BATCH)]
    return [speech for batch in batches for (speech,) in synthesizer.speak(batch)]


def recordings_of_no_speech(model: str) -> list[VoicePrompt]:
    """Return voice prompts of a hum that swells and of noise that claim to be greetings."""
    encoder = load_encoder(codec_directory(model))
    time = np.arange(NO_SPEECH_SECONDS * encoder.sample_rate) / encoder.sample_rate
    hum = (0.25 + 0.2 * np.sin(6 * np.pi * time)) * sum(np.sin(240 * np.pi * n * time) / n for n in range(1, 6))
    noise = np.random.default_rng(0).normal(0, 0.1, len(time))
    recordings = [Waveform(sound.astype(np.float32), encoder.sample_rate) for sound in (hum, noise)]
    return [VoicePrompt(encoder.encode(recording), GREETING) for recording in recordings]


def greetings_ended(synthesizer: Synthesizer, prompts: Sequence[VoicePrompt]) -> float:
    """Return the share of greetings, spoken with these voice prompts by turns, that end by themselves."""
    (greeting,) = segments_of(synthesizer, GREETING, reference=Reference(NO_SPEECH_SECONDS, GREETING))
    turns = islice(cycle(prompts), GREETINGS)
    segments = [replace(greeting, prompt=prompt, seeds=(seed,)) for seed, prompt in enumerate(turns)]
    return float(np.mean([speech.finish_reason == FinishReason.STOP for speech in speech_of(synthesizer, segments)]))


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
