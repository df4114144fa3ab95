"""Command: puts a trained voice into the package.

    python training/export.py --voice DIRECTORY --out voice_core/embedded

`--sharpness` multiplies the logits for good, as if the caller had divided the temperature by it: a small network
spreads probability over wrong codes, and the product's default temperature was chosen for large ones. Choose it on
sentences that are neither learned from nor tested on.
"""

from __future__ import annotations

import shutil
import sys
from argparse import ArgumentParser
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a fresh clone runs without being installed

from voice_core.model.checkpoint import WEIGHTS_FILE, load_network, save_network
from voice_core.model.config import read_config

FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "codec/config.json",
    "codec/model.safetensors",
    "codec/encoder.safetensors",
)
LARGEST_MEGABYTES = 20  # every wheel and clone carries it


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voice", type=Path, required=True, help="what train_speaker.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sharpness", type=float, default=1.0)
    arguments = parser.parse_args()
    size = export(arguments.voice, arguments.out, arguments.sharpness)
    print(f"{arguments.out}: {size:.1f} MB")


def export(voice: Path, out: Path, sharpness: float) -> float:
    """Write the voice's checkpoint to `out` and return its size in megabytes."""
    network = load_network(voice, read_config(voice), device=torch.device("cpu"), dtype=torch.float32)
    last = network.head[-1]
    assert isinstance(last, nn.Linear)
    last.weight.mul_(sharpness)
    last.bias.mul_(sharpness)
    for name in FILES:
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(voice / name, target)
    save_network(network, out, torch.float16)
    (out / WEIGHTS_FILE).chmod(0o644)
    megabytes = sum((out / name).stat().st_size for name in (*FILES, WEIGHTS_FILE)) / 1e6
    assert megabytes <= LARGEST_MEGABYTES, f"{megabytes:.1f} MB, the package may hold {LARGEST_MEGABYTES}"
    return megabytes


if __name__ == "__main__":
    main()
