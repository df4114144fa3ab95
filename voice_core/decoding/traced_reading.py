"""How texts are read on a CPU before they are spoken, layer by layer without Python.

Letters: B texts, T tokens, H hidden, N attention heads, K key/value heads, D head size, L layers of the decoder.

Who is being spoken waits meanwhile, and a text of sixty letters is read in a few hundred operations; see `traced`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from voice_core.decoding.tracing import Norm, Products, matrices, packed_linears
from voice_core.model.config import ModelConfig, StackConfig
from voice_core.model.network import (
    CrossMemory,
    DecoderLayer,
    EncoderLayer,
    Masks,
    Network,
    RMSNorm,
    Rotation,
    embed,
    rotation_at,
    text_positions,
    weigh,
)
from voice_core.model.packing import rounded_up
from voice_core.tracing import Traced, traced, tracing

logger = logging.getLogger(__name__)


class TracedReading:
    """The traced layers of a network that read."""

    def __init__(self, network: Network) -> None:
        start = time.perf_counter()
        encoder, decoder = network.encoder, network.decoder
        lengths = torch.tensor([8, 5])
        x, rotation, masks = self._begin(network, torch.ones(2, 8, dtype=torch.int64), lengths)
        self._layers: list[tuple[Traced, list[Tensor]]] = []  # with their packed matrices
        self._memories: list[tuple[Traced, list[Tensor]]] = []
        with tracing():
            for layer, window in zip(encoder.layers, encoder.config.encoder.windows, strict=True):
                assert isinstance(layer, EncoderLayer)
                packed = matrices(packed_linears(layer))
                reading = _reading(layer, encoder.config.encoder)
                self._layers.append((traced(reading, [x, *rotation, masks[window], packed]), packed))
            for layer in decoder.layers:
                assert isinstance(layer, DecoderLayer)
                packed = matrices(packed_linears(layer.cross.key_value))
                turning = self._turning(network, lengths, 8)
                self._memories.append((traced(_memorising(layer, decoder.config), [x, *turning, packed]), packed))
        logger.info("Traced the reading of texts in %.2f s", time.perf_counter() - start)

    def read(self, network: Network, text_ids: Tensor, text_lengths: Tensor) -> Generator[None, None, CrossMemory]:
        """Return what cross-attention reads of texts [B, T], padded on the right; pauses after every layer."""
        tokens = rounded_tokens(*text_ids.shape)
        text_ids = F.pad(text_ids, (0, tokens - text_ids.shape[1]))
        x, rotation, masks = self._begin(network, text_ids, text_lengths)
        for (layer, packed), window in zip(self._layers, network.config.encoder.windows, strict=True):
            x = layer(x, *rotation, masks[window], packed)
            yield
        memory: Tensor = network.encoder.norm(x)
        turning = self._turning(network, text_lengths, tokens)
        keys, values = [], []
        for memorise, packed in self._memories:
            of_layer = memorise(memory, *turning, packed)
            keys.append(of_layer[0])
            values.append(of_layer[1])
            yield
        return CrossMemory(torch.stack(keys), torch.stack(values))

    @staticmethod
    def _begin(network: Network, text_ids: Tensor, text_lengths: Tensor) -> tuple[Tensor, Rotation, Masks]:
        """Return what the first layer takes."""
        encoder, tokens = network.encoder, text_ids.shape[1]
        rotation = rotation_at(text_positions(network.config, text_lengths, tokens), network.config.encoder)
        x = embed(encoder.embedding, text_ids)
        return x, rotation, encoder.masks(text_lengths, tokens, x.dtype)

    @staticmethod
    def _turning(network: Network, text_lengths: Tensor, tokens: int) -> Rotation:
        return rotation_at(text_positions(network.config, text_lengths, tokens), network.config.decoder)


# By network: decoders of the same network share them.
_READINGS: WeakKeyDictionary[Network, TracedReading] = WeakKeyDictionary()


def traced_reading(network: Network) -> TracedReading:
    """Return the traced layers of a network; trace them, unless that was done before."""
    if network not in _READINGS:
        _READINGS[network] = TracedReading(network)
    return _READINGS[network]


def rounded_tokens(texts: int, tokens: int) -> int:
    """Return the tokens that so many texts are padded to, so that packed layers meet few counts of rows.

    At most an eighth more; where no such number will do, as for an odd number of many texts, the next multiple of 8.
    """
    for padded in range(tokens, tokens + tokens // 8 + 1):
        if rounded_up(texts * padded) == texts * padded:
            return padded
    return -(-tokens // 8) * 8


def _reading(layer: EncoderLayer, stack: StackConfig) -> Traced:
    """Return the function of one layer of the encoder, [B, T, H] of x [B, T, H]."""
    product = Products(packed_linears(layer))
    norms = {norm: Norm(norm, stack.hidden_size) for norm in layer.modules() if isinstance(norm, RMSNorm)}
    heads, kv_heads, size = stack.heads, stack.kv_heads, stack.head_dim
    shared = heads // kv_heads

    def read(x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, packed: list[Tensor]) -> Tensor:
        product.use(packed)
        joined = product(layer.attention.qkv, norms[layer.before_attention](x))
        joined = torch.unflatten(joined, -1, (heads + 2 * kv_heads, size)).transpose(1, 2)  # [B, N + 2 K, T, D]
        turned = _turned(joined.narrow(1, 0, heads + kv_heads), cos, sin, size)
        keys = turned.narrow(1, heads, kv_heads).repeat_interleave(shared, dim=1)
        values = joined.narrow(1, heads + kv_heads, kv_heads).repeat_interleave(shared, dim=1)
        heard = weigh(turned.narrow(1, 0, heads), keys, values, mask, stack.attention_scale, stack.softcap)
        x = norms[layer.after_attention].add(x, product(layer.attention.out, heard.transpose(1, 2).flatten(2)))
        gate, up = product(layer.mlp.gate_up, norms[layer.before_mlp](x)).chunk(2, dim=-1)
        return norms[layer.after_mlp].add(x, product(layer.mlp.down, F.gelu(gate, approximate="tanh").mul_(up)))

    return read


def _memorising(layer: DecoderLayer, config: ModelConfig) -> Traced:
    """Return the function that makes keys and values [B, K, T, D] of the encoder's memory [B, T, H]."""
    product = Products(packed_linears(layer.cross.key_value))
    kv_heads, size = config.decoder.kv_heads, config.decoder.head_dim

    def memorise(memory: Tensor, cos: Tensor, sin: Tensor, packed: list[Tensor]) -> tuple[Tensor, Tensor]:
        product.use(packed)
        joined = product(layer.cross.key_value, memory)
        joined = torch.unflatten(joined, -1, (2 * kv_heads, size)).transpose(1, 2)
        keys, values = joined.narrow(1, 0, kv_heads), joined.narrow(1, kv_heads, kv_heads)
        return (_turned(keys, cos, sin, size) if config.progress_rope else keys.clone()), values.clone()

    return memorise


def _turned(x: Tensor, cos: Tensor, sin: Tensor, size: int) -> Tensor:
    """Turn [B, N, T, D] by its positions, see `rotate`."""
    return torch.addcmul(x * cos, x.roll(size // 2, -1), sin)
