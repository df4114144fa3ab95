"""A codec of toy size with random weights, and the files it is saved in."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from voice_core.codec.config import CodecConfig
from voice_core.codec.decoder import Decoder

TOY_16K = CodecConfig(hidden=64, layers=2, heads=2, quant_dim=16)
TOY_44K = CodecConfig(
    hidden=128,
    layers=2,
    heads=2,
    quant_dim=16,
    hop_length=98,
    upsample_factors=(3, 3),
    upsample_kernel_sizes=(9, 5),
    rope_axis="time",
    sample_rate=44100,
)


def toy_decoder(config: CodecConfig = TOY_16K) -> Decoder:
    torch.manual_seed(7)
    return Decoder(config)


def save(directory: Path, weights: dict[str, Tensor], config: CodecConfig = TOY_16K) -> Path:
    (directory / "config.json").write_text(json.dumps(asdict(config)))
    save_file({key: weight.contiguous() for key, weight in weights.items()}, directory / "model.safetensors")
    return directory
