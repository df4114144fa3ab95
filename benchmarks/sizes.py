"""Models of stated sizes with random weights, made in place: what a step costs does not depend on what is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from voice_core.model.config import ModelConfig, parse_config
from voice_core.model.network import Network
from voice_core.model.packing import pack_linears

END_NEVER = -1e9  # the end code's bias: a row then ends exactly at its target, so work is known beforehand


@dataclass(frozen=True)
class Size:
    """One stack's measures, the same for encoder and decoder."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    audio_vocab: int
    text_vocab: int


SIZES = {
    "toy": Size(192, 4, 4, 2, 48, 512, 512, 64),  # the embedded voice
    "mid": Size(512, 8, 8, 4, 64, 2048, 65536, 1000),
    "full": Size(2304, 26, 8, 4, 256, 9216, 65536, 256_000),  # T5Gemma-TTS 2b-2b
}


def config_of(size: Size) -> ModelConfig:
    stack = {
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": size.head_dim,
        "query_pre_attn_scalar": size.head_dim,
        "vocab_size": size.text_vocab,
    }
    raw: dict[str, Any] = {
        "model_type": "t5gemma_voice",
        "t5_config_dict": {"encoder": stack, "decoder": stack},
        "audio_vocab_size": size.audio_vocab,
        "x_sep_token": 1,
        "extra_cutoff": 0.0,
    }
    return parse_config(raw, "config.json")


def random_network(size: str, device: torch.device, dtype: torch.dtype, *, packed: bool = True) -> Network:
    """Return a network of the size on the device, prepared as the product prepares it if it is `packed`."""
    torch.manual_seed(0)
    with torch.device("meta"):
        network = Network(config_of(SIZES[size]))
    network = network.to(dtype)
    for module in network.modules():
        if hasattr(module, "gain"):
            module.gain.data = module.gain.data.float()
    network = network.to_empty(device=device).eval().requires_grad_(False)
    for name, weight in network.named_parameters():
        if name.endswith(".gain"):
            weight.fill_(1.0)
        else:
            weight.normal_(0.0, weight.shape[-1] ** -0.5)
    network.head[2].bias[network.config.end_code] = END_NEVER
    if packed:
        pack_linears(network)
    return network
