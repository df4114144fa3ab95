"""Command: what the voice is worth, through the whole product, on sentences that share no template with the lessons.

    python training/evaluate.py                        # every voice, three draws of each sentence
    python training/evaluate.py --quick                # the first voice, one draw; minutes on two cores
    python training/evaluate.py --model DIRECTORY      # another checkpoint than the one in the package
    python training/evaluate.py --unwatched            # the sentences that nobody looked at while the voice was trained

It starts the service and asks it over HTTP, as anybody would: default sampling, the text as written, seconds by the
service's own estimate and by 0.8 and 1.3 times of it. Only the second try that the service gives to a segment that
doesn't end is declined, so that it can be counted. The last line is a JSON object:

- `per`: phoneme errors a phoneme at the estimate's pace, by the shipped recogniser, against what the teacher says of
  the sentence in words (`*_spoken.txt`, written by hand, so that our own spelling of figures is judged too); counted in
  IPA symbols, so a length mark and each half of a diphthong or an affricate is one by itself;
- `ended`, `length_ratio`, `length_sd`: the share of segments that ended by themselves, and seconds got to seconds
  asked, over all three paces; `paces` has them for each, with the error rate. One that didn't end was cut off a second
  late, and is counted in the lengths, too: a few of them are most of the deviation;
- `audio_s_per_core_s`: seconds of speech a second of one core's time, one sentence at a time, codec included, in this
  process after the service is gone;
- `weights_sha256`: of the weights of speaker, codec and encoder, and of the voices' prompts;
- `sentences`, `draws`; `voices`: the error rate of each voice; `codec_log_mel`: how far the teacher's speech is from
  itself through the codec, null where no teacher is installed. Before it, what the judge mishears of that speech.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a fresh clone runs without being installed

from training.features import ENCODER_FILE, load_codebook
from training.recogniser import SHIPPED_FILE, ErrorCount, load_recogniser
from training.service import Answer, Service
from training.spectral import SpectralLoss
from training.teacher import VOICES, Teacher
from training.texts import visible
from voice_core.codec.codec import Codec
from voice_core.model.checkpoint import WEIGHTS_FILE
from voice_core.planning import plan
from voice_core.speech import DEFAULT_VOICE, Sampling, Segment
from voice_core.synthesizer import EMBEDDED, Synthesizer, codec_directory, model_directory
from voice_core.text.duration import Reference
from voice_core.voices.built_in import FOLDER as VOICES_FOLDER

STRETCHES = (1.0, 0.8, 1.3)  # of the estimated duration
DRAWS = 3  # of each sentence
ASKED_AT_ONCE = 8  # requests
TIMED_SENTENCES = 10
CODEC_WORDS_PER_MINUTE = 150


@dataclass(frozen=True)
class SentenceSet:
    """A hundred sentences, line by line."""

    written: Path
    spoken: Path  # the same with their figures in words, by hand
    phonemes: Path  # the teacher's of these, so that no teacher need be installed

    @classmethod
    def named(cls, name: str) -> SentenceSet:
        return cls(*(Path(__file__).parent / f"{name}_{what}.txt" for what in ("sentences", "spoken", "phonemes")))

    def read(self) -> tuple[list[str], list[str]]:
        """Return the sentences as written and the phonemes that the teacher says of them."""
        return lines_of(self.written), lines_of(self.phonemes)


TEST_SET, UNWATCHED_SET = SentenceSet.named("test"), SentenceSet.named("unwatched")


@dataclass(frozen=True)
class Pace:
    """What came of one stretch of the estimate."""

    per: float
    ended: float
    length_ratio: float
    length_sd: float


@dataclass(frozen=True)
class Figures:
    """The result, as the last line tells it."""

    per: float
    ended: float
    length_ratio: float
    length_sd: float
    audio_s_per_core_s: float
    sentences: int
    draws: int
    paces: dict[str, Pace]
    voices: dict[str, float]
    codec_log_mel: float | None
    weights_sha256: str


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    chosen = UNWATCHED_SET if arguments.unwatched else TEST_SET
    sentences, phonemes = chosen.read()
    sentences, phonemes = sentences[: arguments.limit], phonemes[: arguments.limit]
    draws = 1 if arguments.quick else DRAWS
    judge = Judge(arguments.recogniser, sentences, phonemes)
    with Service(arguments.model) as service:
        answers = {stretch: speak(service, sentences, draws, stretch, DEFAULT_VOICE) for stretch in STRETCHES}
        others = [] if arguments.quick else [voice for voice in service.voices() if voice != DEFAULT_VOICE]
        of_voices = {voice: speak(service, sentences, draws, 1.0, voice) for voice in others}
    paces = {f"{stretch:g}": pace(of_stretch, judge) for stretch, of_stretch in answers.items()}
    pooled = [answer for of_stretch in answers.values() for answer in of_stretch]
    ratio, deviation = length_statistics(pooled)
    judge.print_worst(answers[1.0])
    taught = taught_speech(arguments.model, lines_of(chosen.spoken)[: arguments.limit])
    for speech in taught:
        judge.print_misheard(speech)
    figures = Figures(
        per=paces["1"].per,
        ended=ended(pooled),
        length_ratio=ratio,
        length_sd=deviation,
        audio_s_per_core_s=audio_per_core_second(arguments.model, sentences[:TIMED_SENTENCES]),
        sentences=len(sentences),
        draws=draws,
        paces=paces,
        voices={DEFAULT_VOICE: paces["1"].per} | {voice: judge.rate(said) for voice, said in of_voices.items()},
        codec_log_mel=taught[0].log_mel_distance() if taught else None,
        weights_sha256=weights_sha256(arguments.model),
    )
    print(json.dumps(asdict(figures)))


def lines_of(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def weights_sha256(model: str) -> str:
    """Return the digest of all that was learned of a model, so that figures can be told to be of these weights."""
    directory, codec = model_directory(model), codec_directory(model)
    files = (directory / WEIGHTS_FILE, codec / WEIGHTS_FILE, codec / ENCODER_FILE)
    voices = sorted((directory / VOICES_FOLDER).glob("*.json"))
    return sha256(b"".join(file.read_bytes() for file in (*files, *voices))).hexdigest()


def speak(service: Service, sentences: Sequence[str], draws: int, stretch: float, voice: str) -> list[Answer]:
    """Return what the service makes of the sentences: all of them with one seed after the other."""
    wanted = [
        (sentence, draw * len(sentences) + number) for draw in range(draws) for number, sentence in enumerate(sentences)
    ]
    with ThreadPoolExecutor(ASKED_AT_ONCE) as askers:
        return list(askers.map(lambda each: service.speak(*each, speed=1 / stretch, voice=voice), wanted))


def pace(answers: Sequence[Answer], judge: Judge) -> Pace:
    return Pace(judge.rate(answers), ended(answers), *length_statistics(answers))


def ended(answers: Sequence[Answer]) -> float:
    """Return the share of segments that ended by themselves."""
    ends = [reason == "stop" for answer in answers for reason in answer.finish_reasons]
    return sum(ends) / len(ends)


def length_statistics(answers: Sequence[Answer]) -> tuple[float, float]:
    """Return mean and standard deviation of a segment's seconds got to seconds asked."""
    ratios = [
        got / asked for answer in answers for got, asked in zip(answer.got_seconds, answer.asked_seconds, strict=True)
    ]
    return float(np.mean(ratios)), float(np.std(ratios))


class Judge:
    """Counts phoneme errors in answers to the test sentences, all of them once or several times over."""

    def __init__(self, recogniser: Path, sentences: Sequence[str], phonemes: Sequence[str]) -> None:
        self._recogniser = load_recogniser(recogniser)
        self._sentences = sentences
        self._phonemes = phonemes

    def rate(self, answers: Sequence[Answer]) -> float:
        """Return phoneme errors a phoneme."""
        return self._count([answer.samples for answer in answers])[0].rate

    def print_misheard(self, speech: TaughtSpeech) -> None:
        """Print the errors that are the judge's own, and the codec's: no voice can be measured below them."""
        misheard, of_codec = (self._count(sounds)[0].rate for sounds in (speech.said, speech.through_codec))
        print(f"{speech.voice}: of the teacher the judge mishears {misheard:.1%}, through the codec {of_codec:.1%}")

    def print_worst(self, answers: Sequence[Answer]) -> None:
        """Print the sentences that went worst."""
        _, errors = self._count([answer.samples for answer in answers])
        for number in sorted(range(len(errors)), key=lambda number: -errors[number])[:5]:
            print(f"{errors[number]:3} errors: {self._sentences[number % len(self._sentences)]}")

    def _count(self, sounds: Sequence[NDArray[np.float32]]) -> tuple[ErrorCount, list[int]]:
        count = ErrorCount(self._recogniser)
        return count, [
            count.add(sound, self._phonemes[number % len(self._phonemes)]) for number, sound in enumerate(sounds)
        ]


def audio_per_core_second(model: str, sentences: Sequence[str]) -> float:
    """Return seconds of speech a second of this process's CPU time, one sentence at a time."""
    synthesizer = Synthesizer.load(model, device="cpu")
    begun = time.process_time()
    seconds = sum(
        speech.seconds for sentence in sentences for (speech,) in synthesizer.speak(segments_of(synthesizer, sentence))
    )
    took = time.process_time() - begun
    synthesizer.close()
    return seconds / took


def segments_of(
    synthesizer: Synthesizer, text: str, *, seed: int = 0, stretch: float = 1.0, reference: Reference | None = None
) -> list[Segment]:
    """Return the segments of a text as the service plans them, each to take `stretch` times the estimate."""
    facts = synthesizer.facts
    planned = plan(
        text,
        longest_seconds=facts.longest_seconds,
        language="en",
        speed=1 / stretch,
        reference=reference,
        text_normaliser=facts.text_normaliser,
    )
    return [
        Segment(segment.text, segment.seconds, index, (seed,), Sampling())
        for index, segment in enumerate(planned.segments)
    ]


@dataclass(frozen=True)
class TaughtSpeech:
    """Sentences as the teacher says them in one voice, and what the codec makes of that; samples [N] each."""

    voice: str
    said: Sequence[NDArray[np.float32]]
    through_codec: Sequence[NDArray[np.float32]]

    def log_mel_distance(self) -> float:
        """Return the mean log-mel distance between the two."""
        distance_of = SpectralLoss()
        pairs = zip(self.through_codec, self.said, strict=True)
        distances = [distance_of.mel_distance(*(torch.from_numpy(one)[None] for one in pair)).item() for pair in pairs]
        return sum(distances) / len(distances)


@torch.inference_mode()
def taught_speech(model: str, sentences: Sequence[str]) -> list[TaughtSpeech]:
    """Return the teacher's speech in every voice; none where no teacher is installed."""
    try:
        teacher = Teacher()
    except OSError:
        return []
    directory = codec_directory(model)
    codebook, codec = load_codebook(directory), Codec.load(directory)
    speeches = []
    for number, voice in enumerate(VOICES):
        said = [teacher.speak(visible(sentence), CODEC_WORDS_PER_MINUTE, number) for sentence in sentences]
        through_codec = [codec.decode_batch(codebook(torch.from_numpy(sound)[None]))[0] for sound in said]
        speeches.append(TaughtSpeech(voice.name, said, through_codec))
    return speeches


def _arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--quick", action="store_true", help="the first voice only, one draw of each sentence")
    parser.add_argument("--unwatched", action="store_true", help="another hundred sentences")
    parser.add_argument("--limit", type=int, help="of sentences")
    parser.add_argument("--recogniser", type=Path, default=SHIPPED_FILE)
    return parser.parse_args()


if __name__ == "__main__":
    main()
