"""Command: puts a trained voice into the package.

    python training/export.py --voice DIRECTORY --out voice_core/embedded

Of several directories, states of one run at different steps, the package gets the mean weights: they can be better
than the last ones (Izmailov et al., https://arxiv.org/abs/1803.05407).
`--sharpness` multiplies the logits for good, as if the caller had divided the temperature by it: a small network
spreads probability over wrong codes, and the product's default temperature was chosen for large ones. `--end-bias` is
added to the logit of the end code, after that: a voice that takes its time ends a little sooner. Choose all of them on
sentences that are neither learned from nor tested on (training/choose.py --learned).
"""

from __future__ import annotations

import json
import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a fresh clone runs without being installed

from training.teacher import SAMPLE_RATE, VOICES, Teacher
from training.texts import visible
from voice_core.audio.waveform import Waveform
from voice_core.codec.encoder import load_encoder
from voice_core.model.checkpoint import WEIGHTS_FILE, load_network, save_network
from voice_core.model.config import read_config
from voice_core.model.network import Network
from voice_core.synthesizer import codec_directory
from voice_core.text import Language
from voice_core.text.duration import estimate_seconds
from voice_core.voices.built_in import FOLDER

FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "codec/config.json",
    "codec/model.safetensors",
    "codec/encoder.safetensors",
)
PROMPT = "The kettle is warm, and somebody has left the garden gate open."
PROMPT_PACES = range(110, 200, 10)  # words a minute
LARGEST_MEGABYTES = 20  # every wheel and clone carries it


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--voice", type=Path, required=True, nargs="+", help="what train_speaker.py wrote; the codec is the first one's"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sharpness", type=float, default=1.0)
    parser.add_argument("--end-bias", type=float, default=0.0)
    arguments = parser.parse_args()
    size = export(arguments.voice, arguments.out, arguments.sharpness, arguments.end_bias)
    write_prompts(arguments.out, Teacher())
    print(f"{arguments.out}: {size:.1f} MB")


def write_prompts(checkpoint: Path, teacher: Teacher) -> None:
    """Write the prompts of all voices but the first, as the product reads them; made as from somebody's recording."""
    encoder = load_encoder(codec_directory(str(checkpoint)), torch.device("cpu"))
    folder = checkpoint / FOLDER
    folder.mkdir(exist_ok=True)
    for number, voice in enumerate(VOICES[1:], start=1):
        recording = Waveform(teacher.speak(visible(PROMPT), prompt_pace(teacher, number), number), SAMPLE_RATE)
        told = {"transcript": PROMPT, "language": "en", "codes": encoder.encode(recording)}
        (folder / f"{voice.name}.json").write_text(json.dumps(told) + "\n", encoding="utf-8")


def prompt_pace(teacher: Teacher, voice: int) -> int:
    """Return the words a minute at which the prompt takes as long as the product thinks: its pace sets the voice's."""
    wanted = estimate_seconds(PROMPT, Language.ENGLISH)

    def seconds_off(pace: int) -> float:
        return abs(len(teacher.speak(visible(PROMPT), pace, voice)) / SAMPLE_RATE - wanted)

    return min(PROMPT_PACES, key=seconds_off)


def export(voices: Sequence[Path], out: Path, sharpness: float = 1.0, end_bias: float = 0.0) -> float:
    """Write the checkpoint of the voices' mean to `out` and return its size in megabytes."""
    network = mean_network(voices)
    last = network.head[-1]
    assert isinstance(last, nn.Linear)
    last.weight.mul_(sharpness)
    last.bias.mul_(sharpness)
    last.bias[network.config.end_code] += end_bias
    for name in FILES:
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(voices[0] / name, target)
    save_network(network, out, torch.float16)
    (out / WEIGHTS_FILE).chmod(0o644)
    megabytes = sum((out / name).stat().st_size for name in (*FILES, WEIGHTS_FILE)) / 1e6
    assert megabytes <= LARGEST_MEGABYTES, f"{megabytes:.1f} MB, the package may hold {LARGEST_MEGABYTES}"
    return megabytes


def mean_network(voices: Sequence[Path]) -> Network:
    """Return a network with the mean of the voices' weights; they must have one shape."""
    networks = [
        load_network(voice, read_config(voice), device=torch.device("cpu"), dtype=torch.float32) for voice in voices
    ]
    weights = [network.state_dict() for network in networks]
    mean = {name: torch.stack([each[name] for each in weights]).mean(0) for name in weights[0]}
    networks[0].load_state_dict(mean)
    return networks[0]


if __name__ == "__main__":
    main()
