"""The files of the embedded voice's checkpoint beside its weights: config.json and the tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.features import CODES_PER_VOICE
from training.teacher import SAMPLE_RATE, VOICES
from training.texts import LETTERS, PUNCTUATION

CONFIG_FILE = "config.json"
PAD_ID = 0
SPACE_ID = 1  # also what stands before and after every text, and between a prompt's transcript and the text

HEAD_DIM = 48
LONGEST_SECONDS = 8.0
TEXT_NORMALISER = "english_words"  # voice_core.text.spoken_english


@dataclass(frozen=True)
class VoiceSize:
    """How large the network is."""

    hidden: int = 192
    inner: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    codes: int = CODES_PER_VOICE * len(VOICES)


QUICK_SIZE = VoiceSize(hidden=32, inner=64, encoder_layers=1, decoder_layers=1, heads=2, kv_heads=1)


def write_voice_files(directory: Path, size: VoiceSize) -> None:
    """Write config.json and the tokenizer's files into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    files = {
        CONFIG_FILE: voice_config(size),
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": "<pad>",
            "unk_token": "<pad>",
            "model_max_length": 512,
        },
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def voice_config(size: VoiceSize) -> dict[str, Any]:
    """Return the config.json of a voice, in the reference's format."""
    vocabulary = len(_vocabulary())
    decoder = {"is_decoder": True, "cross_attention_hidden_size": size.hidden}
    return {
        "model_type": "t5gemma_voice",
        "architectures": ["T5GemmaVoiceForConditionalGeneration"],
        "is_encoder_decoder": True,
        "t5gemma_model_name": "embedded",
        "text_tokenizer_name": None,
        "text_normaliser": TEXT_NORMALISER,
        "t5_config_dict": {
            "model_type": "t5gemma",
            "is_encoder_decoder": True,
            "dropout_rate": 0.0,
            "vocab_size": vocabulary,
            "encoder": _stack(size, size.encoder_layers) | {"is_decoder": False},
            "decoder": _stack(size, size.decoder_layers) | decoder,
        },
        "attn_implementation": "sdpa",
        "precision": "float32",
        "dtype": "float16",
        "prune_text_modules": 2,
        "use_pm_rope": 1,
        "tie_word_embeddings": False,
        "tie_input_output_embeddings": False,
        "text_input_type": "text",
        "n_codebooks": 1,
        "audio_vocab_size": size.codes,
        "n_special": 5,
        "empty_token": size.codes,
        "eog": size.codes + 1,
        "audio_pad_token": size.codes + 2,
        "eos": size.codes + 3,
        "y_sep_token": size.codes + 4,
        "x_sep_token": SPACE_ID,
        "audio_mask_token": 1024,
        "special_first": 0,
        "encodec_sr": 50.0,
        "progress_scale": 2000.0,
        "progress_lookahead_secs": 2.0,
        "extra_cutoff": 1.0,
        "text_guard_frames_per_token": 0,
        "add_eos_to_text": SPACE_ID,
        "add_bos_to_text": SPACE_ID,
        "parallel_pattern": 0,
        "audio_max_length": LONGEST_SECONDS,
        "audio_tokenizer": "xcodec2",
        "xcodec2_model_name": "codec",
        "codec_audio_sr": SAMPLE_RATE,
    }


def _stack(size: VoiceSize, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": len(_vocabulary()),
        "hidden_size": size.hidden,
        "intermediate_size": size.inner,
        "num_hidden_layers": layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": HEAD_DIM,
        "query_pre_attn_scalar": HEAD_DIM,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "layer_types": ["full_attention"] * layers,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-06,
        "max_position_embeddings": 4096,
        "sliding_window": 4096,
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "pad_token_id": PAD_ID,
        "bos_token_id": SPACE_ID,
        "eos_token_id": SPACE_ID,
    }


def _vocabulary() -> dict[str, int]:
    return {symbol: number for number, symbol in enumerate(["<pad>", " ", *LETTERS, *"',.?!:;-"])}


def _tokenizer() -> dict[str, Any]:
    """One id a character; whatever isn't a letter or a known mark is dropped."""
    assert set(PUNCTUATION) == set("',.?!:;-")
    unknown = {"type": "Replace", "pattern": {"Regex": r"[^ a-z',.?!:;\-]"}, "content": ""}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}, unknown]},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": r"[\s\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": _vocabulary(), "unk_token": "<pad>"},
    }
