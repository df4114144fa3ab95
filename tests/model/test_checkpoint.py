import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.toy import toy_network
from voice_core.errors import CheckpointError
from voice_core.model.checkpoint import load_network, save_network
from voice_core.model.config import ModelConfig, read_config
from voice_core.model.network import Network

CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"


def load(directory: Path, config: ModelConfig) -> Network:
    return load_network(directory, config, device=CPU, dtype=torch.float32)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, ModelConfig]:
    network = toy_network()
    save_network(network, tmp_path, torch.float32)
    return tmp_path, network.config


def test_a_saved_network_comes_back_as_it_was(saved: tuple[Path, ModelConfig]) -> None:
    again = load(*saved).state_dict()
    for name, weight in toy_network().state_dict().items():
        torch.testing.assert_close(again[name], weight, rtol=0, atol=1e-7)


def test_keys_and_shapes_are_the_references(fixtures: Path, tmp_path: Path) -> None:
    """Writing what was read gives the reference's file again, key by key."""
    source = fixtures / "model" / "ckpt" / "p2"
    save_network(load(source, read_config(source)), tmp_path, torch.float32)
    theirs, ours = load_file(source / WEIGHTS), load_file(tmp_path / WEIGHTS)
    assert ours.keys() == theirs.keys()
    for key, weight in theirs.items():
        torch.testing.assert_close(ours[key], weight, rtol=0, atol=2e-7)


@pytest.mark.parametrize(("name", "tolerance"), [("p0", 0.0), ("bf16_sharded", 2**-8)])
def test_unpruned_and_sharded_exports_load(fixtures: Path, name: str, tolerance: float) -> None:
    """They hold the same weights as the pruned single file, the sharded one rounded to bf16's eight bits."""
    directory = fixtures / "model" / "ckpt" / name
    exact = load(fixtures / "model" / "ckpt" / "p2", read_config(directory)).state_dict()
    for key, weight in load(directory, read_config(directory)).state_dict().items():
        stored = exact[key] - 1.0 if key.endswith(".gain") else exact[key]
        assert ((weight - exact[key]).abs() <= tolerance * stored.abs() + 1e-7).all(), key


def test_half_precision_weights_keep_float32_norms(saved: tuple[Path, ModelConfig]) -> None:
    directory, config = saved
    network = load_network(directory, config, device=CPU, dtype=torch.bfloat16)
    assert network.dtype == torch.bfloat16
    assert network.decoder.norm.gain.dtype == torch.float32


def test_missing_unexpected_and_misshapen_tensors_are_named(saved: tuple[Path, ModelConfig]) -> None:
    directory, config = saved
    weights = load_file(directory / WEIGHTS)
    key = "predict_layer.0.2.bias"

    save_file({k: v for k, v in weights.items() if k != key}, directory / WEIGHTS)
    with pytest.raises(CheckpointError, match=f"{WEIGHTS}: {key}: missing"):
        load(directory, config)

    save_file(weights | {"lora.a": torch.zeros(1), "lora.b": torch.zeros(1)}, directory / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"lora.a: unexpected \(and 1 others\)"):
        load(directory, config)

    save_file(weights | {key: torch.zeros(7)}, directory / WEIGHTS)
    with pytest.raises(CheckpointError, match=rf"{key}: has shape \[7\], not \[261\]"):
        load(directory, config)

    save_file(weights | {key: torch.zeros(261, dtype=torch.int32)}, directory / WEIGHTS)
    with pytest.raises(CheckpointError, match=f"{key}: has dtype I32"):
        load(directory, config)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    config = toy_network().config
    with pytest.raises(CheckpointError, match="holds neither"):
        load(tmp_path, config)
    (tmp_path / WEIGHTS).write_bytes(b"not a safetensors file at all")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load(tmp_path, config)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"model-00001-of-00002.safetensors: named in the index"):
        load(tmp_path, config)
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(CheckpointError, match="named in the index"):
        load(tmp_path, config)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("[]", "weight_map: missing"),
        ("{}", "weight_map: missing"),
        ('{"weight_map": ["a"]}', "weight_map: must map"),
        ('{"weight_map": {"a": 7}}', r"weight_map\.a: 7 is not the name of a file"),
        ('{"weight_map": {"a": ["b"]}}', r"weight_map\.a: "),
    ],
)
def test_an_index_that_maps_no_tensors_to_files_is_refused(tmp_path: Path, written: str, message: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(written)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path, toy_network().config)
