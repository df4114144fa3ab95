"""Command: lets the teacher speak, and keeps what it said as sound or, given a codec, as codes.

python training/make_data.py --hours 3 --out DIRECTORY                    # sound, for codec and recogniser
python training/make_data.py --hours 60 --out DIRECTORY --codec DIRECTORY # codes, for the speaker
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a fresh clone runs without being installed

from training.corpus import Utterance, shard_path, write_shard
from training.features import load_codebook
from training.teacher import FRAME_SAMPLES, SAMPLE_RATE, Teacher
from training.texts import texts
from training.wordnet import WordNet, read_wordnet

SHARD_SECONDS = 3600
SHORTEST_SECONDS, LONGEST_SECONDS = 0.3, 8.5

# From 0.7 to 1.4 times the pace that the product asks for; the middle is met most often.
SLOWEST_WORDS_PER_MINUTE, USUAL_WORDS_PER_MINUTE, FASTEST_WORDS_PER_MINUTE = 120, 170, 240

Keep = Callable[[NDArray[np.float32]], NDArray[np.int16]]


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory of the shards; existing ones are kept")
    parser.add_argument("--hours", type=float, required=True, help="of speech")
    parser.add_argument("--codec", type=Path, help="directory of a codec: keep its codes instead of the sound")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    keep = _as_samples if arguments.codec is None else _as_codes(arguments.codec)
    teacher, wordnet = Teacher(), read_wordnet()
    seconds_left = arguments.hours * 3600
    index = 0
    while seconds_left > 0:
        file = shard_path(arguments.out, index)
        if not file.exists():
            seed = arguments.seed * 10_000 + index  # a shard is the same whatever was made before it
            write_shard(file, list(spoken(teacher, wordnet, seed, min(seconds_left, SHARD_SECONDS), keep)))
            print(f"{file.name} written", flush=True)
        seconds_left -= SHARD_SECONDS
        index += 1


def spoken(teacher: Teacher, wordnet: WordNet, seed: int, seconds: float, keep: Keep) -> Iterator[Utterance]:
    """Yield spoken texts of a seed until they last for `seconds`."""
    random = Random(seed)
    for text in texts(wordnet, seed):
        pace = random.triangular(SLOWEST_WORDS_PER_MINUTE, FASTEST_WORDS_PER_MINUTE, USUAL_WORDS_PER_MINUTE)
        sound = teacher.speak(text, round(pace))
        length = len(sound) / SAMPLE_RATE
        if SHORTEST_SECONDS <= length <= LONGEST_SECONDS:
            yield Utterance(text, teacher.phonemes(text), keep(sound))
            seconds -= length
            if seconds <= 0:
                return


def _as_samples(sound: NDArray[np.float32]) -> NDArray[np.int16]:
    samples: NDArray[np.int16] = (sound.clip(-1, 1) * 32767).astype(np.int16)
    return samples


def _as_codes(codec: Path) -> Keep:
    codebook = load_codebook(codec)

    def encode(sound: NDArray[np.float32]) -> NDArray[np.int16]:
        with torch.inference_mode():
            codes: NDArray[np.int64] = codebook(torch.from_numpy(sound)[None])[0].numpy()
        assert len(codes) == len(sound) // FRAME_SAMPLES
        return codes.astype(np.int16)

    return encode


if __name__ == "__main__":
    main()
