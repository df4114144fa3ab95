"""What a T5Gemma-TTS checkpoint says about itself: its config.json, read once and checked. No torch here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voice_core.errors import CheckpointError
from voice_core.speech import NORMALISERS

MODEL_TYPE = "t5gemma_voice"

# Which attention implementations apply `attn_logit_softcapping`. The reference's sdpa swallows it silently, and the
# released checkpoints were trained that way, so for them a cap in the config must stay without effect.
APPLIES_SOFTCAP = {
    "sdpa": False,
    "eager": True,
    "flash_attention_2": True,
    "flash_attention_3": True,
    "flex_attention": True,
}


@dataclass(frozen=True)
class StackConfig:
    """One of the two transformer stacks, encoder or decoder."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    attention_scale: float  # query_pre_attn_scalar ** -0.5, not head_dim ** -0.5
    norm_eps: float
    rope_theta: float
    attention_bias: bool
    windows: tuple[int | None, ...]  # per layer: sliding window in positions, None sees everything
    softcap: float | None  # the cap that is in force, after the rule of APPLIES_SOFTCAP
    memory_size: int  # hidden size of the encoder output that cross-attention reads; unused in the encoder


@dataclass(frozen=True)
class ModelConfig:
    """Everything the network, the decoding rule and the text pipeline take from config.json."""

    encoder: StackConfig
    decoder: StackConfig
    text_vocab_size: int
    audio_vocab_size: int
    special_codes: int  # ids beside the codec's own: start, end, separator, …
    specials_first: bool  # special ids lie below the codec's codes instead of above them
    start_code: int  # first decoder input; never shifted
    end_code: int
    prompt_separator_code: int  # closes the voice prompt; shifted like a codec code
    text_separator_id: int  # stands between the prompt's transcript and the text
    text_prefix_id: int | None
    text_suffix_id: int | None
    frames_per_second: float
    progress_scale: float
    progress_rope: bool  # PM-RoPE: positions run 0..progress_scale over the target length
    extra_seconds: float  # how far a row may overrun its target
    guard_frames_per_token: int  # 0: no limit of frames by text length
    longest_seconds: float  # audio_max_length: the longest speech of the training data
    weights_dtype: str  # the dtype that the checkpoint was saved in, for `precision: auto`
    codec_name: str
    tokenizer_name: str | None
    text_normaliser: str | None  # one of NORMALISERS: how texts are written before the tokenizer sees them

    @property
    def code_vocab_size(self) -> int:
        """How many logits a step has: codec codes and special ids together."""
        return self.audio_vocab_size + self.special_codes

    @property
    def code_shift(self) -> int:
        """What is added to a codec code to get its id in the network."""
        return self.special_codes if self.specials_first else 0

    @property
    def earliest_end_frame(self) -> int:
        """The first step at which the model may end its speech; before it, it would end at once."""
        return int(self.frames_per_second) // 5 + 1

    @property
    def extra_frames(self) -> int:
        return int(self.frames_per_second * self.extra_seconds)


def read_config(directory: Path) -> ModelConfig:
    """Return the configuration of the checkpoint in `directory`; raises CheckpointError naming the key."""
    file = directory / "config.json"
    try:
        return parse_config(json.loads(file.read_text(encoding="utf-8")), str(file))
    except FileNotFoundError:
        raise CheckpointError(str(file), "", "no such file; a checkpoint needs a config.json") from None
    except OSError as error:
        raise CheckpointError(str(file), "", f"can't be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(str(file), "", f"not valid JSON ({error})") from None


def parse_config(raw: Any, file: str) -> ModelConfig:
    """Return the configuration that `raw`, the parsed config.json, describes; `file` names it in errors."""
    if not isinstance(raw, Mapping):
        raise CheckpointError(file, "", f"holds {_kind(raw)}, not an object")
    top = _Fields(raw, file, "")
    if (model_type := top.text("model_type")) != MODEL_TYPE:
        raise CheckpointError(file, "model_type", f"is {model_type!r}, only {MODEL_TYPE!r} can be spoken")
    if top.integer("n_codebooks", 1) != 1:
        raise CheckpointError(file, "n_codebooks", "only one codebook is supported")
    if (kind := top.text("text_input_type", "text")) != "text":
        raise CheckpointError(file, "text_input_type", f"is {kind!r}, only 'text' can be read")
    if raw.get("quantization_config") is not None:
        raise CheckpointError(file, "quantization_config", "quantised weights can't be read; take the whole checkpoint")
    t5 = top.section("t5_config_dict")
    softcap_applies = _softcap_applies(top)
    encoder = _stack(t5.section("encoder"), softcap_applies, memory_size=None)
    decoder = _stack(t5.section("decoder"), softcap_applies, memory_size=encoder.hidden_size)

    # The conventional layout of the special ids, for exports that leave some of them out.
    vocab = top.count("audio_vocab_size")
    end_of_generation = top.integer("eog", vocab + 1)
    end_of_speech = top.integer("eos", vocab + 3)
    config = ModelConfig(
        encoder=encoder,
        decoder=decoder,
        text_vocab_size=t5.section("encoder").count("vocab_size"),
        audio_vocab_size=vocab,
        special_codes=top.count("n_special", 5),
        specials_first=bool(top.integer("special_first", 0)),
        start_code=top.integer("empty_token", vocab),
        end_code=end_of_speech if end_of_speech > 0 else end_of_generation,
        prompt_separator_code=top.integer("y_sep_token", vocab + 4),
        text_separator_id=top.integer("x_sep_token", 255999),
        text_prefix_id=top.integer("add_bos_to_text", 0) or None,
        text_suffix_id=top.integer("add_eos_to_text", 0) or None,
        frames_per_second=top.positive("encodec_sr", 50.0),
        progress_scale=top.positive("progress_scale", 2000.0),
        progress_rope=bool(top.integer("use_pm_rope", 1)),
        extra_seconds=top.number("extra_cutoff", 5.0),
        guard_frames_per_token=top.integer("text_guard_frames_per_token", 0),
        longest_seconds=top.positive("audio_max_length", 40.0),
        weights_dtype=top.text("dtype", top.text("torch_dtype", top.text("precision", "float32"))),
        codec_name=top.text("xcodec2_model_name", "NandemoGHS/Anime-XCodec2-44.1kHz-v2"),
        # The exporter writes null where the tokenizer is that of the text model that the weights grew from.
        tokenizer_name=top.text("text_tokenizer_name", "") or top.text("t5gemma_model_name", "") or None,
        text_normaliser=_text_normaliser(top),
    )
    _check(config, file)
    return config


def _text_normaliser(top: _Fields) -> str | None:
    normaliser = top.text("text_normaliser", "") or None
    if normaliser is not None and normaliser not in NORMALISERS:
        known = ", ".join(sorted(NORMALISERS))
        raise CheckpointError(top.file, "text_normaliser", f"is {normaliser!r}, known are {known}")
    return normaliser


def _softcap_applies(top: _Fields) -> bool:
    implementation = top.text("attn_implementation", "sdpa")
    if implementation not in APPLIES_SOFTCAP:
        known = ", ".join(APPLIES_SOFTCAP)
        raise CheckpointError(top.file, "attn_implementation", f"is {implementation!r}, known are {known}")
    return APPLIES_SOFTCAP[implementation]


def _stack(section: _Fields, softcap_applies: bool, memory_size: int | None) -> StackConfig:
    if (activation := section.text("hidden_activation", "gelu_pytorch_tanh")) != "gelu_pytorch_tanh":
        raise CheckpointError(section.file, f"{section.path}hidden_activation", f"{activation!r} is not supported")
    hidden_size = section.count("hidden_size")
    heads = section.count("num_attention_heads")
    layers = section.count("num_hidden_layers")
    head_dim = section.count("head_dim", hidden_size // heads)
    cap = section.number("attn_logit_softcapping", 0.0)
    return StackConfig(
        hidden_size=hidden_size,
        intermediate_size=section.count("intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=section.count("num_key_value_heads", heads),
        head_dim=head_dim,
        attention_scale=section.positive("query_pre_attn_scalar", head_dim) ** -0.5,
        norm_eps=section.positive("rms_norm_eps", 1e-6),
        rope_theta=_rope_theta(section),
        attention_bias=section.flag("attention_bias", False),
        windows=_windows(section, layers),
        softcap=cap if softcap_applies and cap > 0 else None,
        memory_size=section.count("cross_attention_hidden_size", memory_size or hidden_size),
    )


def _windows(section: _Fields, layers: int) -> tuple[int | None, ...]:
    # T5Gemma's own default alternates, beginning with a sliding layer.
    default = ["sliding_attention" if i % 2 == 0 else "full_attention" for i in range(layers)]
    kinds = section.raw.get("layer_types") or default
    known = ("sliding_attention", "full_attention")
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in known for kind in kinds):
        raise CheckpointError(section.file, f"{section.path}layer_types", f"{kinds!r} does not fit {layers} layers")
    window = section.count("sliding_window", 4096)
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _rope_theta(section: _Fields) -> float:
    """Return the rotary base, which older exports write flat and newer ones under `rope_parameters`."""
    scaling = section.raw.get("rope_scaling")
    if scaling is not None:
        raise CheckpointError(section.file, f"{section.path}rope_scaling", f"{scaling!r} is not supported")
    if section.raw.get("rope_parameters") is None:
        return section.positive("rope_theta", 10000.0)
    nested = section.section("rope_parameters")
    if (kind := nested.text("rope_type", "default")) != "default":
        raise CheckpointError(section.file, f"{nested.path}rope_type", f"{kind!r} is not supported")
    return nested.positive("rope_theta", 10000.0)


def _check(config: ModelConfig, file: str) -> None:
    codes = {
        "empty_token": config.start_code,
        "eos": config.end_code,
        "y_sep_token": config.prompt_separator_code + config.code_shift,
    }
    for key, code in codes.items():
        if not 0 <= code < config.code_vocab_size:
            raise CheckpointError(file, key, f"{code} lies outside the {config.code_vocab_size} ids of the speaker")
    tokens = {
        "x_sep_token": config.text_separator_id,
        "add_bos_to_text": config.text_prefix_id,
        "add_eos_to_text": config.text_suffix_id,
    }
    for key, token in tokens.items():
        if token is not None and not 0 <= token < config.text_vocab_size:
            raise CheckpointError(file, key, f"{token} lies outside the {config.text_vocab_size} ids of the text")
    for key, amount in {
        "extra_cutoff": config.extra_seconds,
        "text_guard_frames_per_token": config.guard_frames_per_token,
    }.items():
        if amount < 0:
            raise CheckpointError(file, key, f"{amount} must not be negative")
    for side, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        if stack.heads % stack.kv_heads or stack.head_dim % 2:
            raise CheckpointError(
                file,
                f"t5_config_dict.{side}",
                f"{stack.heads} heads of {stack.head_dim} can't share {stack.kv_heads} key/value heads",
            )


def _is_finite(value: Any) -> bool:
    """Tell if a value is a number that a float can hold; JSON writes whole ones of any length."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:
        return False


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"{value!r:.40}"


class _Fields:
    """A section of the config whose reading errors name the file and the full key; null counts as absent."""

    def __init__(self, raw: Mapping[str, Any], file: str, path: str) -> None:
        self.raw = raw
        self.file = file
        self.path = path

    def section(self, key: str) -> _Fields:
        value = self.raw.get(key)
        if not isinstance(value, Mapping):
            raise CheckpointError(self.file, self.path + key, "missing, or not an object")
        return _Fields(value, self.file, f"{self.path}{key}.")

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._value(key, default)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]  # one entry a codebook; there is one
        if not _is_finite(value) or int(value) != value:
            raise CheckpointError(self.file, self.path + key, f"{value!r} is not a whole number")
        return int(value)

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        if isinstance(value, bool) or not _is_finite(value):
            raise CheckpointError(self.file, self.path + key, f"{value!r} is not a number")
        return float(value)

    def positive(self, key: str, default: float) -> float:
        if (value := self.number(key, default)) <= 0:
            raise CheckpointError(self.file, self.path + key, f"{value:g} must be positive")
        return value

    def count(self, key: str, default: int | None = None) -> int:
        if (value := self.integer(key, default)) < 1:
            raise CheckpointError(self.file, self.path + key, f"{value} must be at least 1")
        return value

    def flag(self, key: str, default: bool) -> bool:
        return bool(self._value(key, default))

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise CheckpointError(self.file, self.path + key, f"{value!r} is not a text")
        return value

    def _value(self, key: str, default: Any) -> Any:
        value = self.raw.get(key)
        if value is None:
            value = default
        if value is None:
            raise CheckpointError(self.file, self.path + key, "missing")
        return value
