"""Command: lets the teacher speak, and keeps what it said as sound or, given a codec, as codes.

python training/make_data.py --hours 3 --out DIRECTORY                    # sound, for codec and recogniser
python training/make_data.py --hours 60 --out DIRECTORY --codec DIRECTORY # codes, for the speaker

A shard of a seed, an hour of speech, holds the same whichever others are made before it or beside it. A directory holds
the shards of one seed and one codec (`made.json` says which); a call with others is refused.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from hashlib import sha256
from math import ceil, exp, log
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a fresh clone runs without being installed

from training.corpus import ANY_SHARD, Utterance, shard_path, write_shard
from training.features import ENCODER_FILE, load_codebook
from training.teacher import FRAME_SAMPLES, SAMPLE_RATE, VOICES, Teacher
from training.texts import texts
from training.wordnet import WordNet, read_wordnet

MADE_FILE = "made.json"
SHARD_SECONDS = 3600
SHORTEST_SECONDS, LONGEST_SECONDS = 0.3, 8.5

# From 0.65 to 1.6 times the seconds that the product asks for, every stretch as often as any other: where there
# is less of something, the voice leans away from it.
SLOWEST_WORDS_PER_MINUTE, FASTEST_WORDS_PER_MINUTE = 90, 230

Keep = Callable[[NDArray[np.float32], int], NDArray[np.int16]]  # of a sound in a voice


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory of the shards; existing ones are kept")
    parser.add_argument("--hours", type=float, required=True, help="of speech")
    parser.add_argument("--codec", type=Path, help="directory of a codec: keep its codes instead of the sound")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="so many shards are made at a time")
    arguments = parser.parse_args()

    arguments.out.mkdir(parents=True, exist_ok=True)
    note_making(arguments.out / MADE_FILE, arguments.seed, arguments.codec, arguments.hours)
    # A process for each shard: the teacher's noise goes on from all that its process has said.
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn"), max_tasks_per_child=1) as pool:
        pending = [pool.submit(make_shard, order) for order in orders(arguments) if not order.file.exists()]
        try:
            for shard in as_completed(pending):
                print(f"{shard.result().name} written", flush=True)
        except BaseException:  # or the pool would make all the others first
            pool.shutdown(cancel_futures=True)
            raise


def note_making(file: Path, seed: int, codec: Path | None, hours: float) -> None:
    """Write what a directory's shards are made of; SystemExit if those that are there were made of something else.

    Only the last shard may hold less than an hour: the number of hours can't change from or to one with such a shard.
    """
    making = {"seed": seed, "codebook_sha256": None if codec is None else codebook_sha256(codec), "hours": hours}
    if file.exists():
        made = json.loads(file.read_text(encoding="utf-8"))
        for name in ("seed", "codebook_sha256"):
            if made[name] != making[name]:
                raise SystemExit(f"{file}: the shards there were made with {name} {made[name]}, not {making[name]}")
        if hours != made["hours"] and any(number * 3600 % SHARD_SECONDS for number in (hours, made["hours"])):
            raise SystemExit(
                f"{file}: the shards there are of {made['hours']:g} hours, in whole shards and a part of one"
            )
        making["hours"] = max(hours, made["hours"])  # those that are there stay
    elif any(file.parent.glob(ANY_SHARD)):
        raise SystemExit(f"{file} is missing: nobody knows what the shards there were made of")
    file.write_text(json.dumps(making) + "\n", encoding="utf-8")


def check_making(shards: Path, codec: Path) -> None:
    """SystemExit if the shards hold no codes of that codec: others would be learned without a word."""
    file = shards / MADE_FILE
    if not file.is_file():
        raise SystemExit(f"--data: {file} is missing: nobody knows what the shards there were made of")
    made = json.loads(file.read_text(encoding="utf-8"))["codebook_sha256"]
    if made is None:
        raise SystemExit(f"--data: the shards in {shards} hold sound; make_data.py --codec makes codes")
    if made != codebook_sha256(codec):
        raise SystemExit(f"--codec: the codes in {shards} were made by another one than {codec}")


def codebook_sha256(codec: Path) -> str:
    """Return what tells the codebooks of our codecs apart."""
    return sha256((codec / ENCODER_FILE).read_bytes()).hexdigest()


@dataclass(frozen=True)
class Order:
    """A shard that shall be made."""

    file: Path
    seed: int
    seconds: float
    codec: Path | None


def orders(arguments: Namespace) -> Iterator[Order]:
    """Yield the shards of a call."""
    seconds = arguments.hours * 3600
    for index in range(ceil(seconds / SHARD_SECONDS)):
        file, seed = shard_path(arguments.out, index), arguments.seed * 10_000 + index
        yield Order(file, seed, min(seconds - index * SHARD_SECONDS, SHARD_SECONDS), arguments.codec)


def make_shard(order: Order) -> Path:
    """Write a shard, and return its file. Call it once a process."""
    torch.set_num_threads(1)
    keep = _as_samples if order.codec is None else _as_codes(order.codec)
    in_all_voices = order.codec is None  # the codec must know which sounds of the voices are each other's like
    said = spoken(Teacher(), read_wordnet(), order.seed, order.seconds, keep, in_all_voices=in_all_voices)
    write_shard(order.file, list(said))
    return order.file


def spoken(
    teacher: Teacher, wordnet: WordNet, seed: int, seconds: float, keep: Keep, *, in_all_voices: bool
) -> Iterator[Utterance]:
    """Yield spoken texts of a seed until they last for `seconds`, each in one of the voices or in all of them."""
    random = Random(seed)
    for text in texts(wordnet, seed):
        pace = round(exp(random.uniform(log(SLOWEST_WORDS_PER_MINUTE), log(FASTEST_WORDS_PER_MINUTE))))
        voices = range(len(VOICES)) if in_all_voices else (random.randrange(len(VOICES)),)
        sounds = [teacher.speak(text, pace, voice) for voice in voices]
        lengths = [len(sound) / SAMPLE_RATE for sound in sounds]
        if min(lengths) >= SHORTEST_SECONDS and max(lengths) <= LONGEST_SECONDS:
            phonemes = teacher.phonemes(text)
            for voice, sound in zip(voices, sounds, strict=True):
                yield Utterance(text, phonemes, voice, keep(sound, voice))
            seconds -= sum(lengths)
            if seconds <= 0:
                return


def _as_samples(sound: NDArray[np.float32], voice: int) -> NDArray[np.int16]:
    samples: NDArray[np.int16] = (sound.clip(-1, 1) * 32767).astype(np.int16)
    return samples


def _as_codes(codec: Path) -> Keep:
    codebook = load_codebook(codec)

    def encode(sound: NDArray[np.float32], voice: int) -> NDArray[np.int16]:
        with torch.inference_mode():
            codes: NDArray[np.int64] = codebook(torch.from_numpy(sound)[None], voice)[0].numpy()
        assert len(codes) == len(sound) // FRAME_SAMPLES
        return codes.astype(np.int16)

    return encode


if __name__ == "__main__":
    main()
