"""The embedded voice with wider MLPs, of which only the first part says anything.

The embedded voice's decoder is so light that HTTP and Ray are a good part of what a served request costs, on the same
processor; and its steps read few weights for what they keep of every frame. This voice says the same at the pace of a
decoder that is what is short, and has as many weights of a layer for each number that it keeps of a frame as a
checkpoint of the 2b-2b shape: 42 thousand.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from voice_core.embedded import DIRECTORY

TIMES_MLP = 27
MLP = "backbone.model.decoder.layers.{}.mlp.{}_proj.weight"


def heavier_voice(directory: Path) -> Path:
    """Write the embedded checkpoint with `TIMES_MLP` times its decoder's MLPs into a new directory; return that."""
    shutil.copytree(DIRECTORY, directory, ignore=shutil.ignore_patterns("__pycache__"))
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    decoder = config["t5_config_dict"]["decoder"]
    decoder["intermediate_size"] *= TIMES_MLP
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = load_file(directory / "model.safetensors")
    for layer in range(decoder["num_hidden_layers"]):
        for inward in ("gate", "up"):  # [intermediate, hidden]
            name = MLP.format(layer, inward)
            weights[name] = weights[name].repeat(TIMES_MLP, 1)
        name = MLP.format(layer, "down")  # [hidden, intermediate]
        idle = torch.zeros_like(weights[name]).repeat(1, TIMES_MLP - 1)
        weights[name] = torch.cat((weights[name], idle), dim=1)
    save_file(weights, directory / "model.safetensors")
    return directory
