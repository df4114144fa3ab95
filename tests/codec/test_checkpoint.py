import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from voice_core.codec.checkpoint import load_decoder, read_weights
from voice_core.errors import CheckpointError

from .toy import TOY_44K, save, toy_decoder

Weights = dict[str, Tensor]
STAGE = "generator.upsampler.upsample_layers.0"


def toy_weights() -> Weights:
    return toy_decoder().state_dict()


def test_the_encoder_of_an_original_checkpoint_is_not_read(fixtures: Path) -> None:
    _, weights = read_weights(fixtures / "codec" / "tiny_16k")
    assert {key.split(".")[0] for key in weights} == {"generator", "fc_post_a"}
    assert not any("project_in" in key or "window" in key for key in weights)


def test_a_shard_that_holds_the_encoder_only_need_not_exist(tmp_path: Path) -> None:
    weights = toy_weights()
    save(tmp_path, weights)
    first, second = dict(list(weights.items())[:20]), dict(list(weights.items())[20:])
    save_file(first, tmp_path / "model-00001-of-00003.safetensors")
    save_file(second, tmp_path / "model-00002-of-00003.safetensors")
    (tmp_path / "model.safetensors").unlink()
    places = dict.fromkeys(first, "model-00001-of-00003.safetensors")
    places |= dict.fromkeys(second, "model-00002-of-00003.safetensors")
    places["CodecEnc.conv_blocks.0.bias"] = "model-00003-of-00003.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    loaded = load_decoder(tmp_path).state_dict()
    assert all(torch.equal(loaded[key], weight) for key, weight in weights.items())


@pytest.mark.parametrize(
    ("length", "direction"),
    [("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")],
)
def test_a_weight_saved_as_length_and_direction_is_put_together(tmp_path: Path, length: str, direction: str) -> None:
    weights = toy_decoder(TOY_44K).state_dict()
    whole = weights.pop(f"{STAGE}.weight")
    weights[f"{STAGE}.{length}"] = whole.flatten(1).norm(dim=1)[:, None, None]
    weights[f"{STAGE}.{direction}"] = 5 * whole
    loaded = load_decoder(save(tmp_path, weights, TOY_44K)).state_dict()
    assert torch.allclose(loaded[f"{STAGE}.weight"], whole, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    halves = {key: weight.to(dtype) for key, weight in toy_weights().items()}
    loaded = load_decoder(save(tmp_path, halves)).state_dict()
    assert {weight.dtype for weight in loaded.values()} == {torch.float32}
    assert all(torch.equal(loaded[key], half.float()) for key, half in halves.items())


def without(key: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: weight for name, weight in weights.items() if name != key}


def renamed(old: str, new: str) -> Callable[[Weights], Weights]:
    return lambda weights: {new if name == old else name: weight for name, weight in weights.items()}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (without("generator.backbone.embed.bias"), "generator.backbone.embed.bias"),
        (without("generator.backbone.transformers.1.att_norm.weight"), "transformers.1.att_norm.weight"),
        (without("fc_post_a.weight"), "fc_post_a.weight"),
        (without("generator.head.out.weight"), "generator.head.out.weight"),
        (renamed("fc_post_a.bias", "fc_post_a.biass"), "fc_post_a.biass"),
        (lambda weights: {**weights, "generator.extra": torch.zeros(1)}, "generator.extra"),
        (lambda weights: {**weights, "fc_post_a.bias": torch.zeros(3)}, r"fc_post_a.bias.*\[3\], not \[64\]"),
        (lambda weights: {**weights, "fc_post_a.weight": torch.zeros(3)}, r"fc_post_a.weight.*\[3\]"),
        (lambda weights: {**weights, f"{STAGE}.weight_v": torch.ones(2, 2, 2)}, f"{STAGE}.weight_g.*missing"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_file_and_key(
    tmp_path: Path, change: Callable[[Weights], Weights], key: str
) -> None:
    save(tmp_path, change(toy_weights()))
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: .*{key}"):
        load_decoder(tmp_path)


def test_a_long_list_of_problems_is_cut_short(tmp_path: Path) -> None:
    weights = {key: weight for key, weight in toy_weights().items() if ".transformers.0." not in key}
    with pytest.raises(CheckpointError, match="3 more"):
        load_decoder(save(tmp_path, weights))


def test_a_broken_file_is_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path, toy_weights())
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: can't be read"):
        load_decoder(tmp_path)


@pytest.mark.parametrize("index", ["", "{}", "[]", '{"weight_map": []}', '{"weight_map": {"fc_post_a.bias": 1}}'])
def test_a_broken_index_is_refused_by_name(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json: weight_map"):
        load_decoder(tmp_path)


def test_a_directory_without_weights_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has none of .*model\.safetensors"):
        load_decoder(tmp_path)
