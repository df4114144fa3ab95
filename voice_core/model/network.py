"""The network: T5Gemma's encoder and decoder with progress-monitored rotary positions, and the speaker's head.

Letters in shape comments: B rows, T text tokens, S new decoder positions, F decoder positions so far, H hidden,
N attention heads, K key/value heads, D head size, L layers, V ids of the speaker (codec codes and special ids).

Module layout and arithmetic follow T5Gemma (RMSNorm with gain 1 + w before and after every block, grouped
key/value heads, gated GELU), with query/key/value and gate/up projections fused. Nothing here knows about caches
or sampling; the modules are differentiable, so the training program uses the very same ones.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voice_core.model.config import ModelConfig, StackConfig


class Rotation(NamedTuple):
    """Rotary angles of a pass; float32 always, because progress positions run up to 2000."""

    cos: Tensor  # [B, 1, S, D], the angles twice
    sin: Tensor  # [B, 1, S, D], those of the first half negated


class CrossMemory(NamedTuple):
    """What cross-attention reads: keys and values of every decoder layer, made once per text."""

    keys: Tensor  # [L, B, K, T, D], rotated by the text's own positions
    values: Tensor  # [L, B, K, T, D]


class SelfMemory(Protocol):
    """Where the decoder's self-attention keeps what it has seen."""

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values [B, K, S, D] and return all that the new queries may look at, [B, K, F, D] each."""


class NoMemory:
    """For a pass that sees a whole sequence at once: there is nothing before it."""

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return keys, values


# A computation that pauses after every layer, so that whoever runs it can do something else in between.
Pieces = Generator[None, None, Tensor]

Result = TypeVar("Result")


def whole(pieces: Generator[None, None, Result]) -> Result:
    """Run a computation to its end without a pause."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            result: Result = end.value
            return result


# By sliding window (None: no window): additive mask [B, 1, S, F], or None where everything is visible.
Masks = Mapping[int | None, Tensor | None]


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, softcap: float | None
) -> Tensor:
    """Return the attention output [B, S, N * D] for queries [B, N, S, D] over keys and values [B, K, F, D]."""
    rows, heads, length, _ = queries.shape
    kv_heads = keys.shape[1]
    if length == 1:
        # The queries that share a key/value head become its query positions: no key is copied.
        queries = queries.view(rows, kv_heads, heads // kv_heads, -1)
    elif heads != kv_heads:
        keys = keys.repeat_interleave(heads // kv_heads, dim=1)
        values = values.repeat_interleave(heads // kv_heads, dim=1)
    out = weigh(queries, keys, values, mask, scale, softcap)
    if length == 1:
        return out.reshape(rows, 1, -1)
    return out.transpose(1, 2).reshape(rows, length, -1)


def weigh(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, softcap: float | None
) -> Tensor:
    """Return [B, K, S, D]: the values [B, K, F, D], weighted for queries [B, K, S, D] by their keys [B, K, F, D]."""
    if softcap is None:
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
    scores = torch.tanh(queries @ keys.transpose(-1, -2) * (scale / softcap)) * softcap
    scores = scores if mask is None else scores + mask
    return scores.softmax(-1, dtype=torch.float32).to(values.dtype) @ values


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn [B, N, S, D] by its positions; the halves of D are the pairs."""
    cos, sin = rotation
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin).to(x.dtype)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a boolean mask into one to be added to attention scores."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, -torch.inf)


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32; `gain` is the checkpoint's weight plus one."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(size, dtype=torch.float32))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.gain.shape, self.gain, self.eps).to(x.dtype)


class GatedMLP(nn.Module):
    """down(gelu(gate(x)) * up(x)), gate and up in one product."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        out: Tensor = self.down(F.gelu(gate, approximate="tanh") * up)
        return out


class SelfAttention(nn.Module):
    """Attention of a sequence to itself, queries, keys and values in one product."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        width = (config.heads + 2 * config.kv_heads) * config.head_dim
        self.qkv = nn.Linear(config.hidden_size, width, bias=config.attention_bias)
        self.out = nn.Linear(config.heads * config.head_dim, config.hidden_size, bias=config.attention_bias)

    def forward(self, x: Tensor, rotation: Rotation, mask: Tensor | None, memory: SelfMemory, layer: int) -> Tensor:
        rows, length, _ = x.shape
        heads, kv_heads = self.config.heads, self.config.kv_heads
        joined = self.qkv(x).view(rows, length, heads + 2 * kv_heads, -1).transpose(1, 2)
        rotated = rotate(joined[:, : heads + kv_heads], rotation)
        queries, keys = rotated[:, :heads], rotated[:, heads:]
        keys, values = memory.extend(layer, keys, joined[:, heads + kv_heads :])
        scale, softcap = self.config.attention_scale, self.config.softcap
        out: Tensor = self.out(attend(queries, keys, values, mask, scale, softcap))
        return out


class CrossAttention(nn.Module):
    """Attention to the text; its keys and values are made once per text, apart from the frames."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        bias, size = config.attention_bias, config.head_dim
        self.query = nn.Linear(config.hidden_size, config.heads * size, bias=bias)
        self.key_value = nn.Linear(config.memory_size, 2 * config.kv_heads * size, bias=bias)
        self.out = nn.Linear(config.heads * size, config.hidden_size, bias=bias)

    def memorise(self, memory: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor]:
        """Return keys and values [B, K, T, D] of the encoder output [B, T, H]."""
        rows, tokens, _ = memory.shape
        joined = self.key_value(memory).view(rows, tokens, 2 * self.config.kv_heads, -1).transpose(1, 2)
        keys, values = joined.chunk(2, dim=1)
        return (keys if rotation is None else rotate(keys, rotation)), values

    def forward(
        self, x: Tensor, rotation: Rotation | None, keys: Tensor, values: Tensor, mask: Tensor | None
    ) -> Tensor:
        rows, length, _ = x.shape
        queries = self.query(x).view(rows, length, self.config.heads, -1).transpose(1, 2)
        queries = queries if rotation is None else rotate(queries, rotation)
        scale, softcap = self.config.attention_scale, self.config.softcap
        out: Tensor = self.out(attend(queries, keys, values, mask, scale, softcap))
        return out


class EncoderLayer(nn.Module):
    """Self-attention and MLP, each between two norms."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.norm_eps
        self.before_attention, self.after_attention = RMSNorm(size, eps), RMSNorm(size, eps)
        self.attention = SelfAttention(config)
        self.before_mlp, self.after_mlp = RMSNorm(size, eps), RMSNorm(size, eps)
        self.mlp = GatedMLP(config)

    def pieces(self, x: Tensor, rotation: Rotation, mask: Tensor | None, most_positions: int | None) -> Pieces:
        """Return [B, T, H] of x [B, T, H]; long texts go through the MLP in stretches of `most_positions`."""
        heard = self.attention(self.before_attention(x), rotation, mask, NoMemory(), 0)
        x = x + self.after_attention(heard)
        tokens = x.shape[1]
        most_tokens = max(1, most_positions // len(x)) if most_positions else tokens
        if tokens <= most_tokens:
            return x + self._through_mlp(x)
        done = []
        for begin in range(0, tokens, most_tokens):
            yield
            stretch = x[:, begin : begin + most_tokens]
            done.append(stretch + self._through_mlp(stretch))
        return torch.cat(done, dim=1)

    def _through_mlp(self, x: Tensor) -> Tensor:
        out: Tensor = self.after_mlp(self.mlp(self.before_mlp(x)))
        return out


class DecoderLayer(EncoderLayer):
    """The same with cross-attention to the text in the middle."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__(config)
        size, eps = config.hidden_size, config.norm_eps
        self.before_cross, self.after_cross = RMSNorm(size, eps), RMSNorm(size, eps)
        self.cross = CrossAttention(config)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation,
        mask: Tensor | None,
        memory: SelfMemory,
        layer: int,
        text: CrossMemory,
        text_rotation: Rotation | None,
        text_mask: Tensor | None,
    ) -> Tensor:
        x = x + self.after_attention(self.attention(self.before_attention(x), rotation, mask, memory, layer))
        keys, values = text.keys[layer], text.values[layer]
        x = x + self.after_cross(self.cross(self.before_cross(x), text_rotation, keys, values, text_mask))
        return x + self._through_mlp(x)


class Encoder(nn.Module):
    """Text ids to memory."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        stack = config.encoder
        self.config = config
        self.embedding = nn.Embedding(config.text_vocab_size, stack.hidden_size)
        self.layers = nn.ModuleList(EncoderLayer(stack) for _ in range(stack.layers))
        self.norm = RMSNorm(stack.hidden_size, stack.norm_eps)

    def forward(self, text_ids: Tensor, text_lengths: Tensor) -> Tensor:
        """Return the memory [B, T, H] of text ids [B, T], padded on the right, whose lengths are [B]."""
        return whole(self.pieces(text_ids, text_lengths))

    def pieces(self, text_ids: Tensor, text_lengths: Tensor, most_positions: int | None = None) -> Pieces:
        """Do the same with pauses: after every layer, and in it after `most_positions` of the texts."""
        positions = text_positions(self.config, text_lengths, text_ids.shape[1])
        rotation = rotation_at(positions, self.config.encoder)
        x = embed(self.embedding, text_ids)
        masks = self.masks(text_lengths, text_ids.shape[1], x.dtype)
        for layer, window in zip(self.layers, self.config.encoder.windows, strict=True):
            assert isinstance(layer, EncoderLayer)
            x = yield from layer.pieces(x, rotation, masks[window], most_positions)
            yield
        memory: Tensor = self.norm(x)
        return memory

    def masks(self, text_lengths: Tensor, tokens: int, dtype: torch.dtype) -> Masks:
        """The text is visible in both directions, its padding never, and a sliding layer sees a window of it."""
        place = torch.arange(tokens, device=text_lengths.device)
        real = (place < text_lengths[:, None])[:, None, None, :]  # [B, 1, 1, T]
        masks: dict[int | None, Tensor | None] = {}
        for window in set(self.config.encoder.windows):
            visible = real
            if window is not None and window < tokens:
                visible = real & ((place[:, None] - place).abs() < window)
                # A padded query may see nothing in its window; let it see itself, or its NaN would spread.
                visible = visible | torch.eye(tokens, dtype=torch.bool, device=place.device)
            masks[window] = additive(visible, dtype)
        return masks


class Decoder(nn.Module):
    """Codes and memory to hidden states."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        stack = config.decoder
        self.config = config
        self.embedding = nn.Embedding(config.code_vocab_size, stack.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(stack) for _ in range(stack.layers))
        self.norm = RMSNorm(stack.hidden_size, stack.norm_eps)

    def memorise(self, memory: Tensor, text_lengths: Tensor) -> CrossMemory:
        """Return what cross-attention will read of the encoder's memory [B, T, H]."""
        return whole(self.memorise_pieces(memory, text_lengths))

    def memorise_pieces(self, memory: Tensor, text_lengths: Tensor) -> Generator[None, None, CrossMemory]:
        rotation = None
        if self.config.progress_rope:
            positions = text_positions(self.config, text_lengths, memory.shape[1])
            rotation = rotation_at(positions, self.config.decoder)
        keys, values = [], []
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            of_layer = layer.cross.memorise(memory, rotation)
            keys.append(of_layer[0])
            values.append(of_layer[1])
            yield
        return CrossMemory(torch.stack(keys), torch.stack(values))

    def pieces(
        self,
        codes: Tensor,
        positions: Tensor,
        masks: Masks,
        memory: SelfMemory,
        text: CrossMemory,
        text_mask: Tensor | None,
    ) -> Pieces:
        """Return hidden states [B, S, H] of codes [B, S] at float positions [B, S]; text_mask is [B, 1, 1, T]."""
        rotation = rotation_at(positions, self.config.decoder)
        text_rotation = rotation if self.config.progress_rope else None
        x = embed(self.embedding, codes)
        for index, (layer, window) in enumerate(zip(self.layers, self.config.decoder.windows, strict=True)):
            x = layer(x, rotation, masks[window], memory, index, text, text_rotation, text_mask)
            yield
        hidden: Tensor = self.norm(x)
        return hidden


class Network(nn.Module):
    """A T5Gemma-TTS model: encoder, decoder and the head that turns hidden states into logits."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        size = config.decoder.hidden_size
        self.head = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.Linear(size, config.code_vocab_size))

    @property
    def device(self) -> torch.device:
        return self.encoder.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.encoder.embedding.weight.dtype


def embed(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    """Look up [B, S, H], scaled by √H rounded to the weights' dtype, as T5Gemma does."""
    x: Tensor = embedding(ids)
    return x * torch.tensor(x.shape[-1] ** 0.5, dtype=x.dtype)


def text_positions(config: ModelConfig, text_lengths: Tensor, tokens: int) -> Tensor:
    """Return the positions [B, T] of text tokens: progress from 0 to progress_scale, or plain counts; pads get 0."""
    place = torch.arange(tokens, device=text_lengths.device, dtype=torch.float32).expand(len(text_lengths), -1)
    if config.progress_rope:
        place = place / (text_lengths[:, None] - 1).clamp(min=1) * config.progress_scale
    return place.masked_fill(torch.arange(tokens, device=place.device) >= text_lengths[:, None], 0.0)


def prefill_positions(config: ModelConfig, inputs: int, total_frames: Tensor) -> Tensor:
    """Return the float32 positions [B, S] of a row's first decoder inputs: start code and prompt.

    `total_frames` [B] is how many inputs each row expects in all, the denominator of progress plus one.
    """
    index = torch.arange(inputs, device=total_frames.device, dtype=torch.float32).expand(len(total_frames), -1)
    if not config.progress_rope:
        return index
    return index / (total_frames[:, None] - 1).clamp(min=1) * config.progress_scale


def step_positions(config: ModelConfig, index: Tensor, total_frames: Tensor) -> Tensor:
    """Return the float32 position [B] of the decoder input number `index` [B] of each row; see prefill_positions.

    The reference's batch form multiplies by a float32 reciprocal here and divides in the prefill. The two are one bit
    apart now and then, and at positions near 2000 one bit moves logits by 2e-3; so ours does the same.
    """
    if not config.progress_rope:
        return index.float()
    progress = index.float() * (total_frames - 1).clamp(min=1).float().reciprocal() * config.progress_scale
    return progress.clamp(max=config.progress_scale)


def rotation_at(positions: Tensor, config: StackConfig) -> Rotation:
    """Return the rotary angles at positions [B, S]."""
    half = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=positions.device) / config.head_dim
    angles = positions[:, None, :, None].float() * (1.0 / config.rope_theta**half)
    cos, sin = angles.cos(), angles.sin()
    return Rotation(torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1))
