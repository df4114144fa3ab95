"""Command: trains the speaker, text to codes, and writes it as a checkpoint that the product loads.

    python training/train_speaker.py --data SHARDS --codec DIRECTORY --out DIRECTORY --steps 36000

A stopped run goes on where it was last saved. The learning rate stays up until the last steps, so a run is made longer
from a copy of a state that it had before them; `--decay-steps` says when they begin. One that is finished goes on at
another `--rate`.
"""

from __future__ import annotations

import json
import shutil
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a fresh clone runs without being installed

from training.corpus import Utterance, read_corpus
from training.make_data import check_making
from training.runs import Run, Schedule, begin, command_line
from training.speaker import (
    FRAMES_PER_BATCH,
    GUIDED_STEPS,
    PROMPT_FRAMES,
    PROMPTED,
    READING_WEIGHT,
    USUALLY_OFF_PACE,
    Lesson,
    OffPace,
    Speaker,
    collate,
    lessons_of,
    losses,
    phonemes_of,
)
from training.stream import Stream
from training.voice_files import CONFIG_FILE, QUICK_SIZE, VoiceSize, voice_config, write_voice_files
from voice_core.model.checkpoint import save_network
from voice_core.model.config import ModelConfig, read_config
from voice_core.model.network import Network
from voice_core.model.tokenizer import load_tokenizer

HIGHEST_RATE = 1.5e-3
WEIGHT_DECAY = 0.02
BETAS = (0.9, 0.98)
HELD_OUT = 160  # the first utterances of the data; their texts are never learned from
HELD_OUT_BATCH = 16
VALIDATE_EVERY_STEPS = 1000
QUICK_STEPS = 20

_STATES = shutil.ignore_patterns("*.state", "*.part")


def main() -> None:
    arguments = _arguments()
    off_pace = OffPace(arguments.delayed, arguments.late_ends, arguments.hurry, arguments.ahead)
    begin(arguments)
    size = replace(QUICK_SIZE if arguments.quick else VoiceSize(), codes=count_codes(arguments.codec))
    check_making(arguments.data, arguments.codec)
    check_same_voice(arguments.out, size)
    write_voice_files(arguments.out, size)
    shutil.copytree(arguments.codec, arguments.out / "codec", ignore=_STATES, dirs_exist_ok=True)
    config = read_config(arguments.out)

    corpus = read_corpus(arguments.data)
    phonemes = known_phonemes(arguments.out / "phonemes.json", corpus)
    as_lessons = partial(lessons_of, tokenizer=load_tokenizer(arguments.out, config), phonemes=phonemes)
    held_out, learned = apart(corpus)
    if len(learned) <= arguments.workers:
        needed = HELD_OUT + 1 + arguments.workers
        raise SystemExit(f"--data: {len(corpus)} utterances are there, at least {needed} are needed")
    lessons_to_validate = with_prompts(as_lessons(held_out), config)
    device = torch.device(arguments.device)
    speaker = Speaker(new_network(config), phonemes).to(device)
    steps = QUICK_STEPS if arguments.quick else arguments.steps
    run = Run(
        speaker,
        Schedule(steps, arguments.rate, arguments.decay_steps),
        arguments.out / "speaker.state",
        weight_decay=WEIGHT_DECAY,
        betas=BETAS,
    )
    check_kept(arguments.keep, run.step, steps, arguments.out)
    # Seeded by the step, so that a resumed run meets other batches than it met before.
    seed = arguments.seed + run.step
    stream = Stream(learned, as_lessons, config, seed=seed, frames=arguments.batch_frames, off_pace=off_pace)
    batches = stream.on(device, arguments.workers)
    compiled = torch.compile(speaker, dynamic=True) if arguments.compile else speaker
    for step in run.steps():
        batch, totals = next(batches)
        guidance = torch.tensor(max(0.0, 1 - step / GUIDED_STEPS))  # as a float, it would be compiled in
        speaking, reading, accuracy = losses(compiled, batch, totals, guidance)
        figures = {"speaking": speaking, "reading": reading, "accuracy": accuracy}
        run.learn(speaking + READING_WEIGHT * reading, **figures)
        if (step + 1) % VALIDATE_EVERY_STEPS == 0:
            validate(speaker, lessons_to_validate, device)
            save_network(speaker.plain_network(), arguments.out, torch.float16)
        if step + 1 in arguments.keep:
            keep(speaker, arguments.out, step + 1)
    save_network(speaker.plain_network(), arguments.out, torch.float16)


def check_same_voice(voice: Path, size: VoiceSize) -> None:
    """SystemExit where another voice was begun: its files must not be overwritten before its weights don't fit."""
    file = voice / CONFIG_FILE
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) != voice_config(size):
        raise SystemExit(f"--out: the voice in {voice} is of another size, or was begun by other programs")


def keep(speaker: Speaker, voice: Path, step: int) -> None:
    """Write the present voice beside the last one's files, to be exported by itself or in a mean."""
    kept = kept_voice(voice, step)
    kept_already = shutil.ignore_patterns("step-*", "*.state", "*.part")
    shutil.copytree(voice, kept, ignore=kept_already, dirs_exist_ok=True)
    save_network(speaker.plain_network(), kept, torch.float16)


def kept_voice(voice: Path, step: int) -> Path:
    return voice / f"step-{step}"


def check_kept(steps: Sequence[int], first: int, last: int, voice: Path) -> None:
    """Refuse to go on where a voice that is to be kept wouldn't be."""
    lost = [step for step in steps if not first < step <= last and not kept_voice(voice, step).exists()]
    if lost:
        raise SystemExit(f"--keep: step {lost[0]} won't be met, this run goes from step {first} to {last}")


def apart(corpus: Sequence[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """Return the utterances to validate on, and those to learn from, whose texts are none of theirs."""
    held_out = list(corpus[:HELD_OUT])
    texts = {utterance.text for utterance in held_out}
    return held_out, [utterance for utterance in corpus[HELD_OUT:] if utterance.text not in texts]


def with_prompts(lessons: Sequence[Lesson], config: ModelConfig) -> list[Lesson]:
    """Return the lessons, those of voices that only speak when they are prompted with one of theirs, which is spent."""
    lengthy = {lesson.voice: lesson for lesson in lessons if len(lesson.codes) in PROMPT_FRAMES}
    prompts = {voice: prompt for voice, prompt in lengthy.items() if PROMPTED[voice] == 1}
    return [
        lesson.after(prompts[lesson.voice], config.prompt_separator_code) if lesson.voice in prompts else lesson
        for lesson in lessons
        if not any(lesson is prompt for prompt in prompts.values())
    ]


def known_phonemes(file: Path, corpus: Sequence[Utterance]) -> list[str]:
    """Return the phonemes of the run's first start, so that it may go on with more data."""
    if not file.exists():
        file.write_text(json.dumps(phonemes_of(corpus)) + "\n", encoding="utf-8")
    phonemes: list[str] = json.loads(file.read_text(encoding="utf-8"))
    return phonemes


def count_codes(codec: Path) -> int:
    """Return how many codes a codec of ours has."""
    return len(json.loads((codec / "config.json").read_text(encoding="utf-8"))["code_map"])


def new_network(config: ModelConfig) -> Network:
    """Return a network with random weights."""
    network = Network(config)
    for embedding in (network.encoder.embedding, network.decoder.embedding):
        nn.init.normal_(embedding.weight, std=embedding.embedding_dim**-0.5)  # it is scaled by √H where it is read
    return network


@torch.no_grad()
def validate(speaker: Speaker, lessons: Sequence[Lesson], device: torch.device) -> None:
    """Print the losses on lessons that nothing is learned from."""
    config = speaker.network.config
    results = []
    for start in range(0, len(lessons), HELD_OUT_BATCH):
        group = lessons[start : start + HELD_OUT_BATCH]
        batch = collate(group, config).to(device)
        speaking, reading, accuracy = losses(speaker, batch, batch.lengths.float())
        results.append((speaking.item(), reading.item(), accuracy.item()))
    speaking, reading, accuracy = torch.tensor(results).mean(0).tolist()
    print(f"held out: speaking {speaking:.3f} reading {reading:.3f} accuracy {accuracy:.3f}", flush=True)


def _arguments() -> Namespace:
    parser = command_line(__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="shards of codes from training/make_data.py")
    parser.add_argument("--codec", type=Path, required=True, help="the codec that made the codes")
    parser.add_argument("--steps", type=int, default=36_000)
    parser.add_argument("--rate", type=float, default=HIGHEST_RATE, help="the highest learning rate")
    parser.add_argument(
        "--decay-steps", type=int, help="so many last steps at a falling rate; a fifth of all if not said"
    )
    parser.add_argument("--batch-frames", type=int, default=FRAMES_PER_BATCH, help="at most; a GPU takes many more")
    for option, share, told in (
        ("--delayed", USUALLY_OFF_PACE.delayed, "of the lessons fall behind"),
        ("--late-ends", USUALLY_OFF_PACE.late_ends, "of the delayed lessons end late"),
        ("--hurry", USUALLY_OFF_PACE.hurry, "of what follows a delay may be left out"),
        ("--ahead", USUALLY_OFF_PACE.ahead, "of the other lessons run ahead"),
    ):
        parser.add_argument(option, type=float, default=share, metavar="SHARE", help=told)
    parser.add_argument("--compile", action="store_true", help="let PyTorch compile the step; needs a C++ compiler")
    parser.add_argument("--workers", type=int, default=0, help="processes that make the batches, besides this one")
    parser.add_argument(
        "--keep", type=int, nargs="+", default=(), metavar="STEP", help="steps whose voice is kept, in OUT/step-STEP"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
