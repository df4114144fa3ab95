"""Checkpoint files: safetensors in the reference's key layout, to and from our fused modules. Nothing is unpickled.

The network's own parameter names say what a tensor is for (`decoder.layers.3.attention.qkv.weight`); `_sources` maps
each of them to the reference's keys that are stacked into it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from voice_core.errors import CheckpointError
from voice_core.model.config import ModelConfig, StackConfig
from voice_core.model.network import Network

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# Kept by exports with prune_text_modules 0 or 1; speaking needs neither.
PRUNABLE = frozenset({"backbone.lm_head.out_proj.weight", "backbone.model.decoder.embed_tokens.weight"})

_FLOATS = {"BF16", "F16", "F32"}


def load_network(directory: Path, config: ModelConfig, *, device: torch.device, dtype: torch.dtype) -> Network:
    """Return the network with the weights of `directory`, read once and straight to `device`.

    Norm gains stay float32, whatever `dtype` the matrices get. Raises CheckpointError naming file and key for a
    missing, unexpected, misshapen or non-float tensor.
    """
    with torch.device("meta"):
        network = Network(config)
    files = TensorFiles(directory)
    shapes = dict(_reference_shapes(config))
    files.check(shapes, ignorable=PRUNABLE)
    weights: dict[str, Tensor] = {}
    for name, keys in _sources(config).items():
        parts = [files.read(key, device) for key in keys]
        if name.endswith(".gain"):
            weights[name] = 1.0 + parts[0].float()
        else:
            weights[name] = torch.cat([part.to(dtype) for part in parts]) if len(parts) > 1 else parts[0].to(dtype)
    network.load_state_dict(weights, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def save_network(network: Network, directory: Path, dtype: torch.dtype) -> None:
    """Write the network's weights into `directory` under the reference's keys (its config.json is not ours to make)."""
    shapes = dict(_reference_shapes(network.config))
    weights = network.state_dict()
    tensors: dict[str, Tensor] = {}
    for name, keys in _sources(network.config).items():
        value = weights[name].detach().cpu()
        value = value - 1.0 if name.endswith(".gain") else value
        for key, part in zip(keys, value.split([shapes[key][0] for key in keys]), strict=True):
            tensors[key] = part.to(dtype).contiguous().clone()  # safetensors refuses views of one storage
    save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})


class TensorFiles:
    """The safetensors files of a checkpoint, one or sharded, read tensor by tensor."""

    def __init__(self, directory: Path) -> None:
        self.places = _places(directory)  # key → file
        self._opened: dict[Path, safe_open] = {}
        self.name = str(directory / (WEIGHTS_FILE if len(set(self.places.values())) == 1 else INDEX_FILE))

    def check(self, shapes: Mapping[str, tuple[int, ...]], ignorable: frozenset[str]) -> None:
        """Raise CheckpointError unless the files hold exactly these tensors (and perhaps the ignorable ones)."""
        if missing := sorted(shapes.keys() - self.places.keys()):
            raise CheckpointError(self.name, missing[0], f"missing{_and_others(missing)}")
        if unexpected := sorted(self.places.keys() - shapes.keys() - ignorable):
            raise CheckpointError(
                str(self.places[unexpected[0]]), unexpected[0], f"unexpected{_and_others(unexpected)}"
            )
        for file in sorted(set(self.places.values())):
            with _open(file, torch.device("cpu")) as tensors:
                for key in tensors.keys():  # noqa: SIM118  # not a mapping
                    if key not in shapes:
                        continue
                    part = tensors.get_slice(key)
                    if (shape := tuple(part.get_shape())) != shapes[key]:
                        raise CheckpointError(str(file), key, f"has shape {list(shape)}, not {list(shapes[key])}")
                    if part.get_dtype() not in _FLOATS:
                        raise CheckpointError(str(file), key, f"has dtype {part.get_dtype()}, not one of {_FLOATS}")

    def read(self, key: str, device: torch.device) -> Tensor:
        """Return one tensor on `device`; every call of an object must name the same device."""
        file = self.places[key]
        if file not in self._opened:
            self._opened[file] = _open(file, device)
        tensor: Tensor = self._opened[file].get_tensor(key)  # type: ignore[no-untyped-call]
        return tensor


def _open(file: Path, device: torch.device) -> safe_open:
    try:
        return safe_open(file, framework="pt", device=str(device))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(str(file), "", f"not a readable safetensors file ({error})") from None


def _places(directory: Path) -> dict[str, Path]:
    """Return which file of `directory` holds each key."""
    single, index = directory / WEIGHTS_FILE, directory / INDEX_FILE
    if index.is_file():
        try:
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise CheckpointError(str(index), "weight_map", "missing or not readable") from None
        if not isinstance(shards, dict):
            raise CheckpointError(str(index), "weight_map", "must map the names of tensors to files")
        for key, shard in shards.items():
            if not isinstance(shard, str):
                raise CheckpointError(str(index), f"weight_map.{key}", f"{shard!r:.40} is not the name of a file")
        for shard in sorted(set(shards.values())):
            if Path(shard).name != shard or not (directory / shard).is_file():
                raise CheckpointError(str(index), shard, "named in the index, but there is no such file")
        return {key: directory / shard for key, shard in shards.items()}
    if single.is_file():
        with _open(single, torch.device("cpu")) as tensors:
            return dict.fromkeys(tensors.keys(), single)
    raise CheckpointError(str(directory), "", f"holds neither {WEIGHTS_FILE} nor {INDEX_FILE}")


def _and_others(keys: list[str]) -> str:
    return f" (and {len(keys) - 1} others)" if len(keys) > 1 else ""


def _sources(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Map each parameter of the network to the reference's keys that make it up, stacked along the first axis."""
    sources: dict[str, tuple[str, ...]] = {
        "encoder.embedding.weight": ("backbone.model.encoder.embed_tokens.weight",),
        "encoder.norm.gain": ("backbone.model.encoder.norm.weight",),
        "decoder.embedding.weight": ("audio_embedding.0.weight",),
        "decoder.norm.gain": ("backbone.model.decoder.norm.weight",),
    }
    for part in ("0.weight", "0.bias", "2.weight", "2.bias"):
        sources[f"head.{part}"] = (f"predict_layer.0.{part}",)
    for side, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        for index in range(stack.layers):
            ours, theirs = f"{side}.layers.{index}.", f"backbone.model.{side}.layers.{index}."
            for name, keys in _layer_sources(stack, is_decoder=side == "decoder"):
                sources[ours + name] = tuple(theirs + key for key in keys)
    return sources


def _layer_sources(stack: StackConfig, is_decoder: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    for kind in ("weight", "bias") if stack.attention_bias else ("weight",):
        yield f"attention.qkv.{kind}", tuple(f"self_attn.{part}_proj.{kind}" for part in "qkv")
        yield f"attention.out.{kind}", (f"self_attn.o_proj.{kind}",)
        if is_decoder:
            yield f"cross.query.{kind}", (f"cross_attn.q_proj.{kind}",)
            yield f"cross.key_value.{kind}", (f"cross_attn.k_proj.{kind}", f"cross_attn.v_proj.{kind}")
            yield f"cross.out.{kind}", (f"cross_attn.o_proj.{kind}",)
    yield "mlp.gate_up.weight", ("mlp.gate_proj.weight", "mlp.up_proj.weight")
    yield "mlp.down.weight", ("mlp.down_proj.weight",)
    norms = {"attention": "self_attn", "mlp": "feedforward"} | ({"cross": "cross_attn"} if is_decoder else {})
    for ours, theirs in norms.items():
        yield f"before_{ours}.gain", (f"pre_{theirs}_layernorm.weight",)
        yield f"after_{ours}.gain", (f"post_{theirs}_layernorm.weight",)


def _reference_shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield every key that a checkpoint must hold, with its shape."""
    size = config.decoder.hidden_size
    yield "backbone.model.encoder.embed_tokens.weight", (config.text_vocab_size, config.encoder.hidden_size)
    yield "audio_embedding.0.weight", (config.code_vocab_size, size)
    yield "predict_layer.0.0.weight", (size, size)
    yield "predict_layer.0.0.bias", (size,)
    yield "predict_layer.0.2.weight", (config.code_vocab_size, size)
    yield "predict_layer.0.2.bias", (config.code_vocab_size,)
    for side, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        prefix = f"backbone.model.{side}."
        yield f"{prefix}norm.weight", (stack.hidden_size,)
        for index in range(stack.layers):
            for key, shape in _layer_shapes(stack, is_decoder=side == "decoder"):
                yield f"{prefix}layers.{index}.{key}", shape


def _layer_shapes(stack: StackConfig, is_decoder: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner = stack.hidden_size, stack.intermediate_size
    queries, keys = stack.heads * stack.head_dim, stack.kv_heads * stack.head_dim
    for attention, source in [("self_attn", hidden)] + ([("cross_attn", stack.memory_size)] if is_decoder else []):
        yield from _linear(f"{attention}.q_proj", queries, hidden, stack.attention_bias)
        yield from _linear(f"{attention}.k_proj", keys, source, stack.attention_bias)
        yield from _linear(f"{attention}.v_proj", keys, source, stack.attention_bias)
        yield from _linear(f"{attention}.o_proj", hidden, queries, stack.attention_bias)
        yield f"pre_{attention}_layernorm.weight", (hidden,)
        yield f"post_{attention}_layernorm.weight", (hidden,)
    yield "mlp.gate_proj.weight", (inner, hidden)
    yield "mlp.up_proj.weight", (inner, hidden)
    yield "mlp.down_proj.weight", (hidden, inner)
    yield "pre_feedforward_layernorm.weight", (hidden,)
    yield "post_feedforward_layernorm.weight", (hidden,)


def _linear(name: str, rows: int, columns: int, bias: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (rows, columns)
    if bias:
        yield f"{name}.bias", (rows,)
