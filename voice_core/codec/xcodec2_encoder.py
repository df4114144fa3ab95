"""XCodec2's encoder: what is said (a speech model's hidden states) and how it sounds (convolutions), in one code.

The network is put together from the parts in transformers; weights come from the checkpoint in the original's format,
which the decoder is read from too. Both published checkpoints share these weights.

Letters in shape comments: N samples, T codes, each with a spectrum of its own (two 10 ms frames side by side).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voice_core.audio.waveform import Waveform
from voice_core.codec.checkpoint import read_weights, require_equal_shapes
from voice_core.errors import CheckpointError

SAMPLE_RATE = 16000  # Hz, whatever rate the codec decodes to
SAMPLES_PER_CODE = 320
SPEECH_LAYERS = 16  # of the speech model's 24: the codes follow the hidden states after the 16th
LEVELS = 4  # of each of a code's scalars
NEXT_POSITIONS = 8  # how far ahead the speech model's attention tells positions apart; its code fixes it
MEL_BANDS = 80
FEATURE_PADDING_SAMPLES = SAMPLES_PER_CODE // 2  # each side, so that there is a spectrum for every code

_ENCODER_KEY = re.compile(
    r"semantic_model\.|SemanticEncoder_module\.|CodecEnc\.|fc_prior\.|generator\.quantizer\.project_"
)
_LATER_LAYER = re.compile(r"semantic_model\.encoder\.layers\.(\d+)\.")
_DECIDING_KEY = re.compile(r"fc_prior\.bias|generator\.quantizer\.project_in\.")

# Where an original module's weights belong in ours, blocks of the acoustic encoder apart.
_NEW_PREFIXES = {
    "semantic_model.": "semantic_encoder.",
    "SemanticEncoder_module.initial_conv.": "semantic_adapter.conv1.",
    "SemanticEncoder_module.residual_blocks.1.": "semantic_adapter.conv2.",
    "SemanticEncoder_module.residual_blocks.3.": "semantic_adapter.conv3.",
    "SemanticEncoder_module.final_conv.": "semantic_adapter.conv4.",
    "fc_prior.": "fc_encoder.",
    "generator.quantizer.": "quantizer.",
    "CodecEnc.conv_blocks.0.": "acoustic_encoder.conv1.",
    "CodecEnc.conv_final_block.0.": "acoustic_encoder.snake1.",
    "CodecEnc.conv_final_block.1.": "acoustic_encoder.conv2.",
}
_BLOCK = re.compile(r"CodecEnc\.conv_blocks\.(\d+)\.block\.(\d)\.(?:block\.(\d)\.)?(.+)")
_BLOCK_PARTS = ("res_unit1", "res_unit2", "res_unit3", "snake1", "conv1")
_UNIT_PARTS = ("snake1", "conv1", "snake2", "conv2")


def decides_codes(key: str) -> bool:
    """Whether a tensor is one of the small ones that no other codec shares."""
    return bool(_DECIDING_KEY.match(key))


class XCodec2Encoder:
    """The encoding half of an XCodec2 on a device, float32; 442 million parameters in the published models."""

    def __init__(self, network: _Network, device: str | torch.device = "cpu") -> None:
        from transformers import SeamlessM4TFeatureExtractor  # slow to import, and rarely needed

        self._network = network.to(device).eval().requires_grad_(False)
        self._device = torch.device(device)
        extractor: Any = SeamlessM4TFeatureExtractor  # untyped
        self._features = extractor(feature_size=MEL_BANDS, num_mel_bins=MEL_BANDS, padding_value=1.0)

    @classmethod
    def load(cls, directory: Path, device: str | torch.device = "cpu") -> XCodec2Encoder:
        """Load a checkpoint in the original's format; CheckpointError if it has no encoder or a broken one."""
        file, stored = read_weights(directory, _belongs_to_encoder)
        if not any(key.startswith("CodecEnc.") for key in stored):
            raise CheckpointError(str(file), "", "holds no encoder: this codec can't learn voices")
        network = _Network(_sizes(file, stored))
        weights = {_new_name(key): tensor for key, tensor in stored.items()}
        require_equal_shapes(file, network.state_dict(), weights)
        network.load_state_dict(weights, assign=True)
        return cls(network, device)

    @property
    def sample_rate(self) -> int:
        return SAMPLE_RATE

    @torch.inference_mode()
    def encode(self, recording: Waveform) -> tuple[int, ...]:
        """Return floor(N / 320) + 1 codes.

        One recording at a time: the speech model's features are normalised over the recording, and nothing in the
        acoustic half knows of padding.
        """
        assert recording.sample_rate == SAMPLE_RATE, f"{recording.sample_rate} Hz"
        missing = (
            SAMPLES_PER_CODE - len(recording.samples) % SAMPLES_PER_CODE
        )  # a whole code more where none is missing
        samples = np.pad(recording.samples, (0, missing))
        heard = self._features(np.pad(samples, FEATURE_PADDING_SAMPLES), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        spectra: Tensor = heard["input_features"].to(self._device)  # [1, T, 2 * MEL_BANDS]
        sound = torch.from_numpy(samples)[None, None].to(self._device)  # [1, 1, N]
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # 10 bits would choose other codes
            codes: Tensor = self._network(sound, spectra)
        return tuple(codes.tolist())


class _Network(nn.Module):
    """The modules of XCodec2's encoding half, under the names that transformers gives them."""

    def __init__(self, config: Any) -> None:
        from transformers import Wav2Vec2BertModel
        from transformers.models.xcodec2 import modeling_xcodec2 as parts

        super().__init__()
        both = config.hidden_size + config.semantic_model_config.hidden_size
        self.semantic_encoder = Wav2Vec2BertModel(config.semantic_model_config)
        self.semantic_adapter = parts.Xcodec2SemanticAdapter(config)
        self.acoustic_encoder = parts.Xcodec2Encoder(config)
        self.fc_encoder = nn.Linear(both, both)
        self.quantizer = parts.Xcodec2Quantizer(config)

    def forward(self, sound: Tensor, spectra: Tensor) -> Tensor:
        """Return the codes [T] of a sound [1, 1, N] and its spectra [1, T, 160]."""
        said = self.semantic_encoder(spectra).last_hidden_state.transpose(1, 2)  # [1, channels, T]
        heard = self.acoustic_encoder(sound)  # [1, channels, T]
        both = torch.cat([self.semantic_adapter(said), heard], dim=1)
        codes: Tensor
        _, codes = self.quantizer(self.fc_encoder(both.transpose(1, 2)))  # [1, T, 1]
        return codes[0, :, 0]


def _belongs_to_encoder(key: str) -> bool:
    if key.endswith((".filter", ".masked_spec_embed")) or not _ENCODER_KEY.match(key):
        return False  # filters are computed; the embedding hides spectra in training
    layer = _LATER_LAYER.match(key)
    return layer is None or int(layer[1]) < SPEECH_LAYERS


def _new_name(key: str) -> str:
    """Return the name that a tensor of the original has in `_Network`."""
    if block := _BLOCK.fullmatch(key):
        number, part, unit_part, rest = block.groups()
        within = f"{_UNIT_PARTS[int(unit_part)]}." if unit_part else ""
        name = f"acoustic_encoder.block.{int(number) - 1}.{_BLOCK_PARTS[int(part)]}.{within}{rest}"
    else:
        original = next((prefix for prefix in _NEW_PREFIXES if key.startswith(prefix)), "")
        name = _NEW_PREFIXES.get(original, "") + key.removeprefix(original)
    return re.sub(r"\.act\.bias$", ".act.beta", name)  # newer checkpoints call an activation's beta its bias


def _sizes(file: Path, weights: dict[str, Tensor]) -> Any:
    """Return the configuration of the parts, as the weights' shapes tell it."""
    from transformers import Wav2Vec2BertConfig, Xcodec2Config

    def shape(key: str) -> torch.Size:
        if key not in weights:
            raise CheckpointError(str(file), key, "is missing")
        return weights[key].shape

    layer = "semantic_model.encoder.layers.0"
    hidden, features = shape("semantic_model.feature_projection.projection.weight")
    positions, head_channels = shape(f"{layer}.self_attn.distance_embedding.weight")
    speech = Wav2Vec2BertConfig(
        hidden_size=hidden,
        num_hidden_layers=SPEECH_LAYERS,
        num_attention_heads=hidden // head_channels,
        intermediate_size=shape(f"{layer}.ffn1.intermediate_dense.weight")[0],
        feature_projection_input_dim=features,
        output_hidden_size=hidden,
        conv_depthwise_kernel_size=shape(f"{layer}.conv_module.depthwise_conv.weight")[2],
        left_max_position_embeddings=positions - 1 - NEXT_POSITIONS,
        right_max_position_embeddings=NEXT_POSITIONS,
        apply_spec_augment=False,
        mask_time_prob=0.0,
    )
    downsampling = sorted(key for key in weights if re.fullmatch(r"CodecEnc\.conv_blocks\.\d+\.block\.4\.weight", key))
    scalars, quantized = shape("generator.quantizer.project_in.weight")
    return Xcodec2Config(
        hidden_size=shape("CodecEnc.conv_final_block.1.weight")[0],
        encoder_hidden_size=shape("CodecEnc.conv_blocks.0.weight")[0],
        downsampling_ratios=[shape(key)[2] // 2 for key in downsampling],  # a kernel spans two strides
        quantization_dim=quantized,
        quantization_levels=[LEVELS] * scalars,
        semantic_model_config=speech,
        num_attention_heads=1,  # of the decoder, which isn't built
    )
