"""A model's fingerprint: another for whatever sounds another way, found without reading all of a large file."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from voice_core import fingerprint
from voice_core.fingerprint import model_fingerprint


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, its codec and its tokenizer, whose weights are large beside what is read of them."""
    monkeypatch.setattr(fingerprint, "SAMPLES", 8)
    monkeypatch.setattr(fingerprint, "SAMPLE_BYTES", 64)
    monkeypatch.setattr(fingerprint, "TENSOR_BYTES", 32)
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 8 * 64)
    for part in ("model", "codec", "tokenizer"):
        (tmp_path / part).mkdir()
    (tmp_path / "model" / "config.json").write_text('{"layers": 2}')
    (tmp_path / "codec" / "config.json").write_text('{"rate": 16000}')
    (tmp_path / "tokenizer" / "tokenizer.json").write_text('{"a": 1}')
    (tmp_path / "tokenizer" / "model.safetensors").write_bytes(b"weights of something else")
    write_weights(tmp_path)
    save_file({"codes": np.zeros(5000, np.float32)}, tmp_path / "codec" / "model.safetensors")
    return tmp_path


def write_weights(place: Path, **changes: np.ndarray) -> None:
    weights = {f"layer.{number}": np.full(20_000, number, np.float32) for number in range(3)}
    bias = np.ones(16, np.float32)
    save_file({**weights, "bias": bias, **changes}, place / "model" / "model.safetensors")


def of(place: Path, *settings: str) -> str:
    return model_fingerprint(place / "model", place / "codec", place / "tokenizer", *settings)


def test_a_copy_of_a_model_has_the_same_fingerprint(model: Path, tmp_path: Path) -> None:
    before = of(model, "cpu", "float32")
    assert of(model.rename(tmp_path.with_name(f"{tmp_path.name}-moved")), "cpu", "float32") == before
    assert len(before) == 64


@pytest.mark.parametrize(
    ("part", "file"), [("model", "config.json"), ("codec", "config.json"), ("tokenizer", "tokenizer.json")]
)
def test_another_small_file_is_another_model(model: Path, part: str, file: str) -> None:
    before = of(model)
    content = (model / part / file).read_text()
    (model / part / file).write_text(content.replace("1", "7").replace("2", "7"))
    assert of(model) != before


def test_weights_that_were_trained_further_are_another_model(model: Path) -> None:
    before = of(model)
    write_weights(model, **{"layer.1": np.full(20_000, 1.001, np.float32)})
    assert of(model) != before


def test_a_small_tensor_between_large_ones_is_seen_too(model: Path) -> None:
    before = of(model)
    write_weights(model, bias=np.full(16, 2, np.float32))
    assert of(model) != before


def test_another_codec_is_another_model(model: Path) -> None:
    before = of(model)
    save_file({"codes": np.ones(5000, np.float32)}, model / "codec" / "model.safetensors")
    assert of(model) != before


def test_device_and_precision_count_and_so_does_their_order(model: Path) -> None:
    fingerprints = {of(model), of(model, "cpu"), of(model, "cuda"), of(model, "cpu", "float32"), of(model, "float32")}
    assert len(fingerprints) == 5


def test_a_change_of_our_own_code_is_another_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = of(model)
    (model / "package").mkdir()
    (model / "package" / "decoder.py").write_text("faster = True")
    monkeypatch.setattr(fingerprint, "_PACKAGE", model / "package")
    assert of(model) != before


def test_of_what_only_lies_beside_the_tokenizer_nothing_counts(model: Path) -> None:
    before = of(model)
    (model / "tokenizer" / "model.safetensors").write_bytes(b"and now of another thing")
    (model / "model" / "README.md").write_text("No word of this is spoken.")
    assert of(model) == before


def test_a_large_file_is_sampled_and_a_broken_header_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 GB are told apart by 16 MB of them, and by their length."""
    large = tmp_path / "model.safetensors"
    with large.open("wb") as file:
        file.write((40).to_bytes(8, "little") + b"no json at all")
        file.truncate(10_000_000_000)
    read = 0
    places = fingerprint._places

    def counted(*arguments: object) -> list[tuple[int, int]]:
        nonlocal read
        asked = list(places(*arguments))  # type: ignore[arg-type]
        read += sum(length for _, length in asked)
        return asked

    monkeypatch.setattr(fingerprint, "_places", counted)
    before = fingerprint._sampled(large)
    assert read < 20_000_000
    with large.open("r+b") as file:
        file.truncate(10_000_000_001)
    assert fingerprint._sampled(large) != before
