import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from voice_core.codec.config import CodecConfig, read_config
from voice_core.errors import CheckpointError

from .toy import TOY_16K, TOY_44K


def written(tmp_path: Path, stated: object) -> Path:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(stated))
    return file


def test_the_defaults_are_the_published_16_khz_model() -> None:
    config = CodecConfig()
    assert config.sample_rate == 16000
    assert config.samples_per_frame == 320
    assert config.n_fft == 1280
    assert config.codebook_size == 65536


def test_a_config_survives_being_written_and_read(tmp_path: Path) -> None:
    for config in (TOY_16K, TOY_44K, replace(TOY_16K, code_map=(5, 7))):
        assert read_config(written(tmp_path, asdict(config)), {}) == config


def test_the_original_spelling_is_completed_by_the_weights(tmp_path: Path) -> None:
    stated = {"model_type": "xcodec2", "codec_decoder_hidden_size": 1024, "use_vocos": True}
    sizes = {"hidden": 1024, "layers": 12, "quant_dim": 2048, "hop_length": 320, "upsample_kernel_sizes": ()}
    assert read_config(written(tmp_path, stated), sizes) == CodecConfig()


def test_the_upsampled_variant_rotates_over_time_unless_its_config_says_otherwise(tmp_path: Path) -> None:
    stated = {key: value for key, value in asdict(TOY_44K).items() if key != "rope_axis"}
    assert read_config(written(tmp_path, stated), {}).rope_axis == "time"
    assert read_config(written(tmp_path, {**stated, "rope_axis": "head"}), {}).rope_axis == "head"


def test_a_code_map_bounds_what_the_speaker_may_say() -> None:
    assert replace(TOY_16K, code_map=(10, 20, 30)).codebook_size == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sample_rate", 24000),
        ("heads", 3),
        ("heads", "2"),
        ("hidden", 80),
        ("layers", 0),
        ("levels", [4, 1]),
        ("hop_length", 321),
        ("upsample_factors", [3]),
        ("upsample_factors", 3),
        ("upsample_factors", [None]),
        ("levels", ["4"]),
        ("upsample_kernel_sizes", [4]),
        ("rope_axis", "frequency"),
        ("frames_per_second", 75),
        ("code_map", [65536]),
        ("code_map", []),
        ("tiny_test_only", 7),
    ],
)
def test_a_contradiction_is_refused_with_file_and_key(tmp_path: Path, key: str, value: object) -> None:
    file = written(tmp_path, {**asdict(TOY_16K), key: value})
    with pytest.raises(CheckpointError) as raised:
        read_config(file, {})
    assert raised.value.file == str(file)
    assert key in (raised.value.key, "upsample_factors")  # factors without kernels are told as kernels


def test_a_kernel_must_centre_on_its_factor() -> None:
    with pytest.raises(CheckpointError, match="upsample_kernel_sizes"):
        replace(TOY_44K, upsample_kernel_sizes=(9, 4))


@pytest.mark.parametrize("content", ["", "{", "[]", "7"])
def test_what_is_no_json_object_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_config(tmp_path / "config.json", {})


def test_a_missing_config_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_config(tmp_path / "config.json", {})
