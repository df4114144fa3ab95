"""A toy model of the product's own classes: random weights, real arithmetic, no files."""

import json
from pathlib import Path
from typing import Any

import torch

from voice_core.model.config import ModelConfig, parse_config
from voice_core.model.network import Network

AUDIO_VOCAB = 256


def toy_config(**changes: Any) -> dict[str, Any]:
    """The config.json of a toy checkpoint; `changes` replace top-level fields."""
    stack = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "vocab_size": 64,
        "layer_types": ["full_attention", "full_attention"],
    }
    return {
        "model_type": "t5gemma_voice",
        "t5_config_dict": {"encoder": dict(stack), "decoder": dict(stack)},
        "audio_vocab_size": AUDIO_VOCAB,
        "n_special": 5,
        "x_sep_token": 63,
        "extra_cutoff": 0.4,
        "attn_implementation": "sdpa",
        "xcodec2_model_name": "codec",
        **changes,
    }


def toy_network(seed: int = 0, **changes: Any) -> Network:
    """A network whose rows end by themselves now and then, each at its own time."""
    torch.manual_seed(seed)
    config: ModelConfig = parse_config(toy_config(**changes), "config.json")
    network = Network(config).eval().requires_grad_(False)
    for name, weight in network.named_parameters():
        if not name.endswith(".gain"):
            weight.normal_(0.0, 1.5 / weight.shape[-1] ** 0.5)
    network.head[2].bias[config.end_code] += 2.0
    return network


def write_config(directory: Path, config: dict[str, Any]) -> None:
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
