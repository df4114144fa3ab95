"""Command: makes the voice's codec: a k-means codebook over mel frames, and the product's decoder trained to invert it.

    python training/train_codec.py --data SOUND_SHARDS --out DIRECTORY

For the speaker it matters more that codes are easy to foretell than that they are faithful; k-means of mel frames gives
such codes (two nats given the one before; a trained encoder with scalar quantization took more than three).
"""

from __future__ import annotations

import json
import math
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a fresh clone runs without being installed

from training.alignment import aligned
from training.corpus import Utterance, read_corpus
from training.features import CODES_PER_VOICE, CodeBook, LogMel, fit_codebook, load_codebook, stacked_mel
from training.runs import Run, Schedule, begin, command_line
from training.spectral import SpectralLoss
from training.teacher import FRAME_SAMPLES, SAMPLE_RATE, VOICES
from voice_core.codec.config import CodecConfig
from voice_core.codec.decoder import Decoder

HIGHEST_RATE = 2e-3
WEIGHT_DECAY = 1e-3
BETAS = (0.8, 0.99)
BATCH = 8
CROP_FRAMES = 64
CODEBOOK_TEXTS = 500
HELD_OUT = 40
QUICK_STEPS = 5
QUICK_CODES = 64  # a voice
CONFIG_FILE = "config.json"

CONFIG = CodecConfig(
    hidden=128, layers=4, heads=4, quant_dim=128, hop_length=FRAME_SAMPLES, rope_axis="time", sample_rate=SAMPLE_RATE
)
QUIET_START = 0.5  # taken off the head's log-magnitudes, so that training doesn't begin with a shout


def main() -> None:
    arguments = _arguments()
    begin(arguments)
    device = torch.device(arguments.device)
    corpus = [each for each in read_corpus(arguments.data) if each.frames_of_sound > CROP_FRAMES]
    held_out, learned = corpus[:HELD_OUT], corpus[HELD_OUT:]
    if not learned:
        raise SystemExit(f"--data: {len(corpus)} sounds are long enough there, more than {HELD_OUT} are needed")
    codes = QUICK_CODES if arguments.quick else CODES_PER_VOICE
    if not (arguments.out / CONFIG_FILE).exists():
        made = make_codebook(learned, arguments.seed, codes)
        made.save(arguments.out)
        write_config(replace(CONFIG, code_map=code_map(made)), arguments.out)  # all that the speaker needs
    # A resumed run keeps its codebook: made anew it would be a little other, and codes made with it mean other sounds.
    codebook = load_codebook(arguments.out)
    config = replace(CONFIG, code_map=tuple(json.loads((arguments.out / CONFIG_FILE).read_text())["code_map"]))
    if len(config.code_map) != codes * len(VOICES):
        raise SystemExit(
            f"--out: the codec in {arguments.out} has {len(config.code_map)} codes; choose another directory"
        )
    indices = torch.tensor(config.code_map, device=device)

    decoder, loss_of = Decoder(config).to(device), SpectralLoss().to(device)
    with torch.no_grad():
        decoder.generator.head.out.bias[: config.n_fft // 2 + 1] -= QUIET_START
    run = Run(
        decoder,
        Schedule(QUICK_STEPS if arguments.quick else arguments.steps, HIGHEST_RATE),
        arguments.out / "codec.state",
        weight_decay=WEIGHT_DECAY,
        betas=BETAS,
    )
    generator = torch.Generator().manual_seed(arguments.seed + run.step)
    for _ in run.steps():
        sounds = crops(learned, generator)  # [B, N]
        codes = codebook(sounds).to(device)  # [B, F]
        made, true = decoder(indices[codes]), sounds.to(device)
        run.learn(loss_of(made, true), mel=loss_of.mel_distance(made.detach(), true))
    save_codec(decoder.cpu(), arguments.out)
    sounds = crops(held_out, generator)
    with torch.no_grad():
        distance = loss_of.cpu().mel_distance(decoder(indices.cpu()[codebook(sounds)]), sounds)
    print(f"held out: log-mel distance {distance:.3f}", flush=True)


def make_codebook(corpus: Sequence[Utterance], seed: int, codes: int) -> CodeBook:
    """Return the codebook, so many codes for each voice, of the first texts that all voices say."""
    assert len(VOICES) == 2, "only pairs are aligned"
    mel = LogMel()
    ones, others = [], []
    for one, other in pairwise(corpus):
        if one.text == other.text and one.voice < other.voice:
            frames = [stacked_mel(mel, torch.from_numpy(each.sound)[None])[0] for each in (one, other)]
            of_one, of_other = aligned(*frames)
            ones.append(of_one)
            others.append(of_other)
            if len(ones) == CODEBOOK_TEXTS:
                break
    together = torch.stack((torch.cat(ones), torch.cat(others)))
    return fit_codebook(together, seed, codes)


def code_map(codebook: CodeBook) -> tuple[int, ...]:
    """Give each code a codebook index of its own, near in the decoder's levels where codes are near in sound.

    The centroids' principal axes become the levels, the first axis the first level; each centroid takes the nearest
    free cell of the grid of quantiles.
    """
    centred = codebook.centroid_frames - codebook.centroid_frames.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[: len(CONFIG.levels)]
    places = centred @ axes.T  # [K, 8]
    middles = [
        places[:, axis].quantile((torch.arange(levels) + 0.5) / levels) for axis, levels in enumerate(CONFIG.levels)
    ]
    # The first level of an index counts fastest, the last of cartesian_prod does.
    cells = torch.cartesian_prod(*reversed(middles)).flip(1)  # [indices, 8]
    distances = torch.cdist(places, cells)  # [K, indices]
    taken: list[int] = []
    for row in distances:
        row[taken] = math.inf
        taken.append(int(row.argmin()))
    return tuple(taken)


def crops(corpus: Sequence[Utterance], generator: torch.Generator) -> Tensor:
    """Return sounds of CROP_FRAMES frames from random places, [B, N]."""
    rows = []
    for number in torch.randint(len(corpus), (BATCH,), generator=generator).tolist():
        each = corpus[number]
        latest = each.frames_of_sound - CROP_FRAMES
        start = int(torch.randint(latest + 1, (1,), generator=generator)) * FRAME_SAMPLES
        rows.append(torch.from_numpy(each.sound[start : start + CROP_FRAMES * FRAME_SAMPLES]))
    return torch.stack(rows)


def write_config(config: CodecConfig, directory: Path) -> None:
    told = {"model_type": "xcodec2", **asdict(config), "frames_per_second": SAMPLE_RATE // FRAME_SAMPLES}
    (directory / CONFIG_FILE).write_text(json.dumps(told) + "\n", encoding="utf-8")


def save_codec(decoder: Decoder, directory: Path) -> None:
    """Write the weights in half precision; codebook and config.json lie beside them already."""
    weights = {name: value.detach().half().contiguous() for name, value in decoder.state_dict().items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def _arguments() -> Namespace:
    parser = command_line(__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="shards of sound from training/make_data.py")
    parser.add_argument("--steps", type=int, default=6000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
