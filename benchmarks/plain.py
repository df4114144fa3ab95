"""A plain decoder to compare with, in the style of the reference: transformers' own layers called step by step.

Its cache grows by concatenation, its masks are built anew in every step, the whole vocabulary is sorted for every draw,
and every row is computed until the last one has ended. Its arithmetic is the product's, so greedy codes are equal.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.models.t5gemma.configuration_t5gemma import T5GemmaModuleConfig
from transformers.models.t5gemma.modeling_t5gemma import (
    T5GemmaCrossAttention,
    T5GemmaDecoder,
    T5GemmaEncoder,
    apply_rotary_pos_emb,
)

from voice_core.decoding.decoder import BatchDecoder
from voice_core.decoding.rows import Row
from voice_core.model.checkpoint import WEIGHTS_FILE, save_network
from voice_core.model.config import ModelConfig, StackConfig
from voice_core.model.network import Network
from voice_core.speech import Sampling


class RotatedCrossAttention(T5GemmaCrossAttention):  # type: ignore[misc]
    """Cross-attention with rotary positions of text and frames; the original has none."""

    positions: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]  # cos and sin of the queries, and of the keys

    def forward(self, hidden_states, attention_mask, encoder_hidden_states, past_key_values=None, **kwargs):  # type: ignore[no-untyped-def]
        rows, length, _ = hidden_states.shape
        queries = self.q_proj(hidden_states).view(rows, length, -1, self.head_dim).transpose(1, 2)
        of_queries, of_keys = self.positions
        queries, _ = apply_rotary_pos_emb(queries, queries, *of_queries)
        cache = past_key_values.cross_attention_cache
        if past_key_values.is_updated.get(self.layer_idx):
            keys, values = cache.layers[self.layer_idx].keys, cache.layers[self.layer_idx].values
        else:
            keys = self.k_proj(encoder_hidden_states).view(rows, -1, self.config.num_key_value_heads, self.head_dim)
            values = self.v_proj(encoder_hidden_states).view(keys.shape).transpose(1, 2)
            keys, _ = apply_rotary_pos_emb(keys.transpose(1, 2), keys.transpose(1, 2), *of_keys)
            keys, values = cache.update(keys, values, self.layer_idx)
            past_key_values.is_updated[self.layer_idx] = True
        keys, values = (x.repeat_interleave(self.num_key_value_groups, dim=1) for x in (keys, values))
        out = nn.functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=attention_mask, scale=self.scaling
        )
        return self.o_proj(out.transpose(1, 2).reshape(rows, length, -1)), None


class PlainDecoder:
    """Speaks rows of equal options, all of them until the last has ended."""

    def __init__(self, network: Network) -> None:
        """Copy the weights of an unpacked network."""
        self.config = network.config
        self._encoder = T5GemmaEncoder(_module_config(self.config.encoder, self.config, is_decoder=False))
        self._decoder = T5GemmaDecoder(_module_config(self.config.decoder, self.config, is_decoder=True))
        for index, layer in enumerate(self._decoder.layers):
            layer.cross_attn = RotatedCrossAttention(self._decoder.config, index)
        self._audio_embedding = nn.Embedding(self.config.code_vocab_size, self.config.decoder.hidden_size)
        self._head = copy.deepcopy(network.head)  # packing the network would pack a shared one too
        self._load(network)
        for part in (self._encoder, self._decoder, self._audio_embedding):
            part.eval().requires_grad_(False)
        for part in (self._encoder, self._decoder):
            part.config._attn_implementation = "sdpa"  # as the reference runs; there is no soft cap here

    def _load(self, network: Network) -> None:
        with TemporaryDirectory() as directory:
            save_network(network, Path(directory), torch.float32)
            weights = load_file(Path(directory) / WEIGHTS_FILE)
        for name, part in (("encoder", self._encoder), ("decoder", self._decoder)):
            prefix = f"backbone.model.{name}."
            own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
            missing, unexpected = part.load_state_dict(own, strict=False)
            assert not unexpected
            assert set(missing) <= {"embed_tokens.weight"}  # of the decoder, which embeds codes
        self._audio_embedding.weight.data = weights["audio_embedding.0.weight"]

    def check_against(self, network: Network) -> None:
        """Make sure that both compute the same: greedy codes of a few rows must be equal."""
        text = tuple(2 + index % 40 for index in range(30))
        rows = [Row(text[: 10 + 5 * index], 14 + 3 * index, sampling=Sampling(1.0, 1, 1.0)) for index in range(3)]
        decoder = BatchDecoder(network, max_rows=3, max_frames=60, max_tokens=60)
        assert self.speak(rows) == [list(row.ids) for row in decoder.speak(rows)]

    @torch.inference_mode()
    def speak(self, rows: Sequence[Row]) -> list[list[int]]:
        """Return the codes of each row; all rows must have the same sampling options and no prompt."""
        sampling, config = rows[0].sampling, self.config
        text_ids, text_mask = _padded([row.text_ids for row in rows])
        text_positions = _text_positions(text_mask, config.progress_scale)
        memory = self._encoder(
            input_ids=text_ids, attention_mask=text_mask, position_ids=text_positions
        ).last_hidden_state
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        totals = torch.tensor([row.total_frames() for row in rows])
        last_steps = torch.tensor([row.last_step(config) for row in rows])
        codes = torch.full((len(rows),), config.start_code)
        finished = torch.zeros(len(rows), dtype=torch.bool)
        spoken: list[Tensor] = []
        step = 0
        while not finished.all():
            positions = (step / (totals - 1).clamp(min=1) * config.progress_scale)[:, None]
            hidden = self._step(codes, positions, step, cache, memory, text_mask, text_positions)
            logits = self._head(hidden)
            if step < config.earliest_end_frame:
                logits[:, config.end_code] = -1e4
            codes = _draw(logits, sampling.top_k, sampling.top_p, sampling.temperature)
            over = (codes == config.end_code) | (logits.argmax(-1) == config.end_code) | (step > last_steps)
            codes = torch.where(over, config.end_code, codes)
            spoken.append(torch.where(finished, config.end_code, codes))
            finished |= over
            step += 1
        columns = torch.stack(spoken, dim=1).tolist()
        return [column[: column.index(config.end_code)] for column in columns]

    def _step(
        self,
        codes: Tensor,
        positions: Tensor,
        step: int,
        cache: EncoderDecoderCache,
        memory: Tensor,
        text_mask: Tensor,
        text_positions: Tensor,
    ) -> Tensor:
        embedded = self._audio_embedding(codes[:, None])
        rotary = self._decoder.rotary_emb
        of_both = rotary(embedded, positions), rotary(embedded, text_positions)
        for layer in self._decoder.layers:
            layer.cross_attn.positions = of_both
        hidden: Tensor = self._decoder(
            inputs_embeds=embedded,
            attention_mask=torch.ones(len(codes), step + 1, dtype=torch.long),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            encoder_hidden_states=memory,
            encoder_attention_mask=text_mask,
        ).last_hidden_state
        return hidden[:, -1]


def _draw(logits: Tensor, top_k: int, top_p: float, temperature: float) -> Tensor:
    """The usual filters over the whole vocabulary, then one draw from the global generator."""
    logits = logits / temperature
    if top_k > 0:
        logits[logits < logits.topk(top_k)[0][..., -1, None]] = -torch.inf
    if top_p < 1:
        ordered, order = logits.sort(descending=True)
        removed = ordered.softmax(-1).cumsum(-1) > top_p
        removed[..., 1:] = removed[..., :-1].clone()
        removed[..., 0] = False
        logits = logits.masked_fill(removed.scatter(1, order, removed), -torch.inf)
    return torch.multinomial(logits.softmax(-1), num_samples=1)[:, 0]


def _text_positions(text_mask: Tensor, scale: float) -> Tensor:
    lengths = text_mask.sum(1, keepdim=True)
    index = torch.arange(text_mask.shape[1], dtype=torch.float32)
    return (index / (lengths - 1).clamp(min=1) * scale) * text_mask


def _padded(texts: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, texts))
    ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
    return ids, mask


def _module_config(stack: StackConfig, config: ModelConfig, *, is_decoder: bool) -> T5GemmaModuleConfig:
    module_config = T5GemmaModuleConfig(
        hidden_size=stack.hidden_size,
        intermediate_size=stack.intermediate_size,
        num_hidden_layers=stack.layers,
        num_attention_heads=stack.heads,
        num_key_value_heads=stack.kv_heads,
        head_dim=stack.head_dim,
        query_pre_attn_scalar=round(stack.attention_scale**-2),
        vocab_size=8 if is_decoder else config.text_vocab_size,
        layer_types=["full_attention"] * stack.layers,
        attn_logit_softcapping=None,
        is_decoder=is_decoder,
        dropout_rate=0.0,
    )
    module_config.cross_attention_hidden_size = stack.memory_size
    module_config._attn_implementation = "eager"  # the class refuses sdpa; its layers take it, see below
    return module_config
