"""Reads XCodec2 checkpoints, one half at a time, whichever way the weights are spelled; loads the decoder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from voice_core.codec.config import OVERLAP, read_config
from voice_core.codec.decoder import Decoder
from voice_core.errors import CheckpointError

INDEX_FILE = "model.safetensors.index.json"
WEIGHT_FILES = ("model.safetensors", "decoder.safetensors")
DECODER_KEYS = re.compile(r"generator\.|fc_post_a\.")
# Saved with the decoder, but either of the encoding side (the quantizer's other half) or computed here (the
# window, the angles).
UNUSED_KEYS = re.compile(r"generator\.(quantizer\.(?!project_out\.)|head\.istft\.|.*\.rotary_embed\.)")
# A weight-normed weight is saved as its length and its direction, under old or new names.
LENGTHS = (".weight_g", ".parametrizations.weight.original0")
DIRECTIONS = (".weight_v", ".parametrizations.weight.original1")
NAMED_KEYS = 3  # how many keys an error names before it counts the others


def load_decoder(directory: Path) -> Decoder:
    """Return the decoder of the checkpoint in `directory`, float32, on the CPU.

    Raises CheckpointError, naming file and key, if a file can't be read or its weights aren't those of the
    decoder that config.json describes.
    """
    file, weights = read_weights(directory)
    config = read_config(directory / "config.json", _sizes(file, weights))
    with torch.device("meta"):  # the weights come from the file: none is drawn here
        decoder = Decoder(config)
    require_equal_shapes(file, decoder.state_dict(), weights)
    decoder.load_state_dict(weights, assign=True)
    return decoder


def belongs_to_decoder(key: str) -> bool:
    """Whether a saved tensor is one of the decoder's weights."""
    return bool(DECODER_KEYS.match(key)) and not UNUSED_KEYS.match(key)


def read_weights(
    directory: Path, belongs: Callable[[str], bool] = belongs_to_decoder
) -> tuple[Path, dict[str, Tensor]]:
    """Return the file that lists the weights, and those that belong: float32, weight norm folded.

    No other tensor is read: for the decoder the encoder, four fifths of an original checkpoint, stays on the disk.
    """
    listing, shards = _weight_files(directory, belongs)
    stored: dict[str, Tensor] = {}
    for shard in shards:
        try:
            with safe_open(shard, framework="pt") as file:
                for key in filter(belongs, file.keys()):
                    stored[key] = file.get_tensor(key).float()
        except (OSError, SafetensorError) as error:
            raise CheckpointError(str(shard), "", f"can't be read: {error}") from error
    return listing, _fold_weight_norm(listing, stored)


def _weight_files(directory: Path, belongs: Callable[[str], bool]) -> tuple[Path, list[Path]]:
    """Return the file that lists the weights and the files that hold those that belong."""
    index = directory / INDEX_FILE
    if index.is_file():
        try:
            shard_of_key = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            shards = {directory / shard for key, shard in shard_of_key.items() if belongs(key)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(str(index), "weight_map", f"can't be read: {error!r}") from error
        return index, sorted(shards)
    for name in WEIGHT_FILES:
        if (directory / name).is_file():
            return directory / name, [directory / name]
    raise CheckpointError(str(directory), "", f"has none of {', '.join((INDEX_FILE, *WEIGHT_FILES))}")


def _fold_weight_norm(file: Path, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put ``length * direction / |direction|`` for every weight that is saved as a length and a direction."""
    folded = {key: tensor for key, tensor in stored.items() if not key.endswith(LENGTHS + DIRECTIONS)}
    for length_suffix, direction_suffix in zip(LENGTHS, DIRECTIONS, strict=True):
        for key in stored:
            if key.endswith(direction_suffix):
                name = key.removesuffix(direction_suffix)
                if name + length_suffix not in stored:
                    raise CheckpointError(str(file), name + length_suffix, "is missing")
                length, direction = stored[name + length_suffix], stored[key]
                # The norm runs over everything but the first dimension, in transposed convolutions too.
                others = tuple(range(1, direction.dim()))
                norm = torch.linalg.vector_norm(direction, dim=others, keepdim=True)
                folded[name + ".weight"] = direction * (length / norm)
    return folded


def _sizes(file: Path, weights: dict[str, Tensor]) -> dict[str, object]:
    """Return what the shapes tell of the decoder, by the names of CodecConfig's fields."""

    def size(key: str, dimension: int) -> int:
        if key not in weights:
            raise CheckpointError(str(file), key, "is missing")
        if weights[key].dim() <= dimension:
            raise CheckpointError(str(file), key, f"has the shape {list(weights[key].shape)}")
        return weights[key].shape[dimension]

    stages = _count(weights, r"generator\.upsampler\.upsample_layers\.(\d+)\.")
    kernels = (size(f"generator.upsampler.upsample_layers.{stage}.weight", 2) for stage in range(stages))
    return {
        "hidden": size("fc_post_a.weight", 0),
        "quant_dim": size("fc_post_a.weight", 1),
        "layers": _count(weights, r"generator\.backbone\.transformers\.(\d+)\."),
        "hop_length": (size("generator.head.out.weight", 0) - 2) // OVERLAP,
        "upsample_kernel_sizes": tuple(kernels),
    }


def _count(keys: Iterable[str], numbered: str) -> int:
    """Return one more than the highest number that the pattern finds in the keys, 0 if it finds none."""
    matches = (re.match(numbered, key) for key in keys)
    return max((int(match[1]) + 1 for match in matches if match), default=0)


def require_equal_shapes(file: Path, expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Raise one CheckpointError that names the keys that are missing, unknown or of another shape."""
    problems = dict.fromkeys(expected.keys() - found.keys(), "is missing")
    problems |= dict.fromkeys(found.keys() - expected.keys(), "is unknown")
    for key in expected.keys() & found.keys():
        if expected[key].shape != found[key].shape:
            problems[key] = f"has the shape {list(found[key].shape)}, not {list(expected[key].shape)}"
    if problems:
        first, *others = sorted(problems)
        reasons = [problems[first], *(f"{key} {problems[key]}" for key in others[: NAMED_KEYS - 1])]
        if len(problems) > NAMED_KEYS:
            reasons.append(f"{len(problems) - NAMED_KEYS} more")
        raise CheckpointError(str(file), first, "; ".join(reasons))
