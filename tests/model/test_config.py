import json
from pathlib import Path
from typing import Any

import pytest

from tests.toy import toy_config, write_config
from voice_core.errors import CheckpointError
from voice_core.model.config import parse_config, read_config


def parsed(**changes: Any):  # type: ignore[no-untyped-def]
    return parse_config(toy_config(**changes), "config.json")


@pytest.mark.parametrize(("eos", "end_code"), [(40, 40), (-1, 44), (0, 44), (None, 259)])
def test_a_missing_or_negative_eos_gives_way(eos: int | None, end_code: int) -> None:
    assert parsed(eos=eos, eog=44).end_code == end_code


@pytest.mark.parametrize(
    ("implementation", "cap", "in_force"),
    [
        ("sdpa", 50.0, None),
        ("eager", 50.0, 50.0),
        ("eager", None, None),
        ("flash_attention_2", 50.0, 50.0),
        (None, 50.0, None),
    ],
)
def test_the_attention_implementation_decides_about_the_softcap(
    implementation: str | None, cap: float | None, in_force: float | None
) -> None:
    raw = toy_config(attn_implementation=implementation)
    raw["t5_config_dict"]["decoder"]["attn_logit_softcapping"] = cap
    assert parse_config(raw, "config.json").decoder.softcap == in_force


def test_exports_that_leave_fields_out_get_the_conventional_ones() -> None:
    config = parsed()
    assert (config.start_code, config.end_code, config.prompt_separator_code) == (256, 259, 260)
    assert config.text_prefix_id is None
    assert config.text_suffix_id is None
    assert config.progress_rope
    assert config.frames_per_second == 50
    assert config.longest_seconds == 40


def test_one_codebook_may_be_written_as_a_list() -> None:
    assert parsed(audio_vocab_size=[256]).audio_vocab_size == 256


def test_specials_first_shifts_the_codes() -> None:
    config = parsed(special_first=1, empty_token=0, eos=3, y_sep_token=4)
    assert config.code_shift == 5


def test_rope_base_is_read_in_both_spellings() -> None:
    raw = toy_config()
    raw["t5_config_dict"]["encoder"]["rope_theta"] = 777.0
    raw["t5_config_dict"]["decoder"]["rope_parameters"] = {"rope_type": "default", "rope_theta": 888.0}
    config = parse_config(raw, "config.json")
    assert (config.encoder.rope_theta, config.decoder.rope_theta) == (777.0, 888.0)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"model_type": "llama"}, "model_type"),
        ({"t5_config_dict": None}, "t5_config_dict"),
        ({"audio_vocab_size": None}, "audio_vocab_size"),
        ({"audio_vocab_size": "many"}, "audio_vocab_size"),
        ({"n_codebooks": 8}, "n_codebooks"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantization_config"),
        ({"attn_implementation": "telepathy"}, "attn_implementation"),
        ({"empty_token": 1000}, "empty_token"),
        ({"encodec_sr": 0}, "encodec_sr"),
        ({"progress_scale": True}, "progress_scale"),
        ({"text_input_type": "phoneme"}, "text_input_type"),
        ({"text_normaliser": "klingon"}, "text_normaliser"),
        ({"encodec_sr": float("nan")}, "encodec_sr"),
        ({"encodec_sr": 10**400}, "encodec_sr"),
        ({"audio_max_length": float("inf")}, "audio_max_length"),
        ({"audio_vocab_size": 0}, "audio_vocab_size"),
        ({"audio_vocab_size": float("inf")}, "audio_vocab_size"),
        ({"n_special": float("nan")}, "n_special"),
        ({"extra_cutoff": -1}, "extra_cutoff"),
        ({"extra_cutoff": float("inf")}, "extra_cutoff"),
        ({"text_guard_frames_per_token": -1}, "text_guard_frames_per_token"),
        ({"x_sep_token": 64}, "x_sep_token"),
        ({"x_sep_token": -1}, "x_sep_token"),
        ({"add_bos_to_text": 64}, "add_bos_to_text"),
        ({"add_eos_to_text": -2}, "add_eos_to_text"),
    ],
)
def test_what_cannot_be_spoken_is_refused_by_key(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        parsed(**changes)
    assert caught.value.file == "config.json"
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_attention_heads", 0),
        ("num_key_value_heads", 0),
        ("num_hidden_layers", -1),
        ("head_dim", 0),
        ("hidden_size", float("nan")),
        ("vocab_size", 0),
        ("sliding_window", 0),
        ("layer_types", 7),
        ("layer_types", [{}, []]),
        ("query_pre_attn_scalar", 0),
        ("rms_norm_eps", float("inf")),
        ("rope_theta", -1),
        ("attn_logit_softcapping", float("nan")),
    ],
)
def test_what_no_stack_can_be_built_with_is_refused_by_key(key: str, value: object) -> None:
    raw = toy_config()
    raw["t5_config_dict"]["encoder"][key] = value
    with pytest.raises(CheckpointError) as caught:
        parse_config(raw, "config.json")
    assert caught.value.key == f"t5_config_dict.encoder.{key}"


@pytest.mark.parametrize("text", ["[]", "7", "null", '"config"'])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json: holds .*, not an object"):
        read_config(tmp_path)


def test_errors_in_a_stack_name_the_full_key() -> None:
    raw = toy_config()
    del raw["t5_config_dict"]["decoder"]["hidden_size"]
    with pytest.raises(CheckpointError, match=r"t5_config_dict.decoder.hidden_size: missing"):
        parse_config(raw, "config.json")


def test_a_directory_without_a_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        read_config(tmp_path)
    write_config(tmp_path, toy_config())
    assert read_config(tmp_path).audio_vocab_size == 256


def test_every_reference_config_is_read(fixtures: Path) -> None:
    for variant in sorted((fixtures / "model" / "variants").glob("*/config.json")):
        config = read_config(variant.parent)
        raw = json.loads(variant.read_text())
        assert config.progress_scale == raw["progress_scale"]
        assert config.encoder.layers == raw["t5_config_dict"]["encoder"]["num_hidden_layers"]


def test_a_checkpoint_may_ask_for_words_instead_of_figures() -> None:
    assert parsed().text_normaliser is None
    assert parsed(text_normaliser="english_words").text_normaliser == "english_words"
