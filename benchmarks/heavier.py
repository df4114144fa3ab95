"""The embedded voice with more layers that take time and say nothing.

The embedded voice's decoder is so light that HTTP and Ray are a good part of what a served request costs, on the same
processor. With a real checkpoint it is the decoder that is short. A voice with so many times the layers stands for
that: it says the same, at the pace of a decoder so many times as heavy.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from voice_core.embedded import DIRECTORY

LAYER = "backbone.model.decoder.layers.{}."
# What a layer adds to the residual stream comes out of these; a norm of zeros is zeros.
LAST_MATRICES = ("self_attn.o_proj.weight", "cross_attn.o_proj.weight", "mlp.down_proj.weight")


def heavier_voice(times_layers: int, directory: Path) -> Path:
    """Write the embedded checkpoint with so many times its decoder's layers into a new directory; return that."""
    shutil.copytree(DIRECTORY, directory, ignore=shutil.ignore_patterns("__pycache__"))
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    decoder = config["t5_config_dict"]["decoder"]
    layers = decoder["num_hidden_layers"]
    decoder["num_hidden_layers"] *= times_layers
    decoder["layer_types"] *= times_layers
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = load_file(directory / "model.safetensors")
    for number in range(layers, layers * times_layers):
        model = LAYER.format(number % layers)
        for name in [name for name in weights if name.startswith(model)]:
            part = name.removeprefix(model)
            like = weights[name]
            weights[LAYER.format(number) + part] = torch.zeros_like(like) if part in LAST_MATRICES else like.clone()
    save_file(weights, directory / "model.safetensors")
    return directory
