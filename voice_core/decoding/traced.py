"""A CPU's decode step as a few computations that run without Python.

Letters: B rows of a step, R slots, L layers, H hidden, N attention heads, K key/value heads, D head size, F frames so
far, T text tokens, V ids of the speaker, C candidates.

A small model's step is two hundred operations of a few microseconds each. Half of its time goes to Python, and between
any two of them another thread may take Python's lock and keep it. So the parts of a step are traced once, when the
first decoder of a network is made, and torch's own interpreter then runs each in one call, without the lock. Sizes are
read from what goes in, so one trace serves them all. The arithmetic is the network's, in fewer operations: there is no
dimension for the one new position of a row, and a norm with its sum takes four of them instead of nine.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voice_core.decoding.graphs import Shape
from voice_core.decoding.noise import uniform
from voice_core.decoding.sampling import Demand, Drawn, draw_from, few_best, kept_of, ties_beyond
from voice_core.decoding.slots import Slots
from voice_core.decoding.state import TOO_EARLY_LOGIT, RowState
from voice_core.model.network import DecoderLayer, Network, RMSNorm, rotation_at, step_positions, weigh
from voice_core.model.packing import PackedLinear

logger = logging.getLogger(__name__)

WARM_UP_RUNS = 3  # torch's interpreter prepares a trace in its first two runs

# The product of a packed layer. The tracer can't record the operator itself, for its list of optional numbers.
PRODUCT = """
graph(%x : Tensor, %packed : Tensor, %bias : Tensor?):
  %nothing : str = prim::Constant[value="none"]()
  %algorithm : str = prim::Constant[value=""]()
  %numbers : Scalar?[] = prim::ListConstruct()
  %product : Tensor = mkldnn::_linear_pointwise(%x, %packed, %bias, %nothing, %numbers, %algorithm)
  return (%product)
"""

Traced = Callable[..., Any]  # takes tensors, gives tensors


class TracedStep:
    """The traced parts of a decoder's step, over its slots and state."""

    def __init__(self, network: Network, slots: Slots, state: RowState) -> None:
        """Trace the network's step, unless that was done before; nobody may speak yet."""
        self._slots, self._state = slots, state
        self._packed = [linear.packed for linear in _packed_linears(network)] or [torch.empty(0)]  # never an empty list
        kv_heads = network.config.decoder.kv_heads
        self._places = torch.arange(slots.frames)
        self._ids = torch.arange(network.config.code_vocab_size)
        # [R, 2 K] Where a slot's keys and values begin in a layer's memory, were it [2 * R * K * F, D].
        heads = torch.arange(slots.slots * kv_heads).view(-1, kv_heads) * slots.frames
        self._begins = torch.cat((heads, heads + heads.numel() * slots.frames), dim=1)
        self._memories = list(slots.of_frames.flatten(1, -2))  # [2 * R * K * F, D] of each layer
        self._views: dict[tuple[str, int, int], list[Any]] = {}  # of slots and state; hold until a row comes or goes
        traces = _TRACES.get(network)
        if traces is None or traces.packed != len(self._packed):
            traces = _TRACES[network] = _Traces(network, state, *self._examples())
        self._traces = traces

    def look_around(self) -> None:
        """Note that a row came or went."""
        self._views.clear()

    def think(self, shape: Shape) -> None:
        """Take the last codes in, see BatchDecoder._think."""
        key = ("think", shape.rows, shape.text_tokens)
        if key not in self._views:
            self._views[key] = self._thinking_of(shape.rows, shape.text_tokens)
        self._traces.think(self._places[: shape.frames], *self._views[key])

    def draw(self, rows: slice, demand: Demand) -> bool:
        """Draw a code for each of the rows and note it, see BatchDecoder._draw.

        False, and nothing is noted, if that takes no candidates or all, or if more ids tie than were looked at.
        """
        if not 1 < demand.candidates < len(self._ids):
            return False
        key = ("draw", rows.start, rows.stop)
        if key not in self._views:
            self._views[key] = [column[rows] for column in self._state.columns]
        columns = self._views[key]
        draw = self._traces.draw_likely if demand.min_p else self._traces.draw
        *drawn, ties = draw(self._ids[: demand.candidates], self._packed, *columns)
        if demand.search_ties and ties:
            return False
        self._traces.record(*drawn, *columns)
        return True

    def _thinking_of(self, rows: int, text_tokens: int) -> list[Any]:
        """Return what a step reads and writes of so many rows and so much of their texts."""
        slots, state = self._slots, self._state
        unseen = torch.arange(text_tokens) >= state.text_tokens[:rows, None]  # [B, T] the padding, visible to nobody
        return [
            self._packed,
            self._memories,
            slots.keys[:, :rows],
            slots.values[:, :rows],
            *slots.text_view(rows, text_tokens),
            unseen[:, None, None].float().masked_fill(unseen[:, None, None], -torch.inf),
            self._begins[:rows],
            *(column[:rows] for column in (state.last_code, state.filled, state.occupied, state.total_frames)),
            state.hidden[:rows],
        ]

    def _examples(self) -> tuple[list[Any], list[Any]]:
        """Return what may be thought of and drawn while nobody speaks."""
        rows = min(2, self._slots.slots)
        candidates = self._ids[: max(1, len(self._ids) // 2)]
        thinking = [self._places, *self._thinking_of(rows, self._slots.tokens)]
        return thinking, [candidates, self._packed, *(column[:rows] for column in self._state.columns)]


def traced_step(network: Network, slots: Slots, state: RowState) -> TracedStep | None:
    """Return the traced step of a decoder where there can be one."""
    if network.device.type != "cpu" or network.dtype != torch.float32:
        return None
    try:
        return TracedStep(network, slots, state)
    except Exception as error:  # the tracer of another torch, say; speech without it is slower but right
        logger.warning("The decode step could not be traced, it runs in Python: %s", error, exc_info=True)
        return None


class _Traces:
    """The parts of a network's step, traced with examples of what goes into them."""

    def __init__(self, network: Network, state: RowState, thinking: list[Any], drawing: list[Any]) -> None:
        start = time.perf_counter()
        self.packed = len(drawing[1])  # matrices
        with warnings.catch_warnings(), torch.inference_mode():
            # torch would have us compile instead: that takes longer than a hundred requests, and needs a C++ compiler.
            warnings.filterwarnings("ignore", r"`torch\.jit", DeprecationWarning)
            self.think = _traced(_thinking(network), thinking)
            self.draw = _traced(_drawing(network, state, min_p=False), drawing)
            self.draw_likely = _traced(_drawing(network, state, min_p=True), drawing)
            *drawn, _ = self.draw(*drawing)
            self.record = _traced(_recording(state), [*drawn, *drawing[2:]])
        logger.info("Traced the decode step in %.2f s", time.perf_counter() - start)


# By network: decoders of the same network share them.
_TRACES: WeakKeyDictionary[Network, _Traces] = WeakKeyDictionary()


def _packed_linears(network: Network) -> list[PackedLinear]:
    modules = [*network.decoder.modules(), *network.head.modules()]
    return [module for module in modules if isinstance(module, PackedLinear)]


def _traced(compute: Traced, examples: Sequence[Any]) -> Traced:
    trace: Traced = torch.jit.trace(compute, tuple(examples), check_trace=False)  # type: ignore[no-untyped-call]
    for _ in range(WARM_UP_RUNS):
        trace(*examples)
    return trace


class _Products:
    """Linear layers while they are traced: the tracer takes packed matrices only from outside."""

    def __init__(self, network: Network) -> None:
        self._packed_linears = _packed_linears(network)
        self._product: Any = torch._C._create_function_from_graph("product", torch._C.parse_ir(PRODUCT))
        self._packed: dict[PackedLinear, Tensor] = {}

    def use(self, packed: Sequence[Tensor]) -> None:
        """Take the matrices from here from now on."""
        self._packed = dict(zip(self._packed_linears, packed, strict=False))

    def __call__(self, linear: nn.Module, x: Tensor) -> Tensor:
        """Return [B, out] of x [B, in]."""
        if isinstance(linear, PackedLinear):
            packed: Tensor = self._product(x, self._packed[linear], linear.bias)
            return packed
        plain: Tensor = linear(x)
        return plain


class _Norm:
    """An RMSNorm: x · √H · gain / √(x · x + H · eps)."""

    def __init__(self, norm: RMSNorm, size: int) -> None:
        self._gain: Tensor = norm.gain * size**0.5
        self._least = torch.tensor((size * norm.eps) ** 0.5)

    def __call__(self, x: Tensor) -> Tensor:
        """Return x [B, H] normed."""
        return (x * self._gain).div_(self._divisor(x))

    def add(self, x: Tensor, added: Tensor) -> Tensor:
        """Return x and what is normed before it is added, both [B, H]."""
        total: Tensor = torch.addcdiv(x, added * self._gain, self._divisor(added))
        return total

    def _divisor(self, x: Tensor) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return torch.hypot(lengths, self._least)


def _thinking(network: Network) -> Traced:
    """Return the function that takes one new position of every row in; it writes frames, hidden states and places."""
    decoder, config = network.decoder, network.config
    stack = config.decoder
    heads, kv_heads, size = stack.heads, stack.kv_heads, stack.head_dim
    norms = {norm: _Norm(norm, stack.hidden_size) for norm in decoder.modules() if isinstance(norm, RMSNorm)}
    product = _Products(network)
    nothing, never = torch.zeros(()), torch.tensor(-torch.inf)

    def turn(x: Tensor, cos: Tensor, sin: Tensor) -> None:
        """Turn [B, N, D] by its row's position, in place; see `rotate`."""
        aside = x.roll(size // 2, -1)
        x.mul_(cos).addcmul_(aside, sin)

    def attended(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Return [B, N * D] of queries [B, N, D]; those that share a key/value head are its positions."""
        queries = queries.view(-1, kv_heads, heads // kv_heads, size)
        return weigh(queries, keys, values, mask, stack.attention_scale, stack.softcap).reshape(-1, heads * size)

    def think(
        places: Tensor,  # [F] 0, 1, 2 …
        packed: list[Tensor],
        memories: list[Tensor],  # [2 * R * K * F of the slots, D] of each layer
        keys: Tensor,  # [L, B, K, F of the slots, D]
        values: Tensor,
        text_keys: Tensor,  # [L, B, K, T, D]
        text_values: Tensor,
        text_mask: Tensor,  # [B, 1, 1, T]
        begins: Tensor,  # [B, 2 K]
        codes: Tensor,  # [B]
        filled: Tensor,  # [B]
        occupied: Tensor,  # [B]
        total_frames: Tensor,  # [B]
        hidden: Tensor,  # [B, H]
    ) -> Tensor:
        product.use(packed)
        frames = places.shape[0]
        seen_keys, seen_values = keys.narrow(3, 0, frames).unbind(0), values.narrow(3, 0, frames).unbind(0)
        of_text = text_keys.unbind(0), text_values.unbind(0)
        last = filled[:, None]
        new = (begins + last).view(-1)
        masks: dict[int | None, Tensor] = {}
        for window in set(stack.windows):
            seen = places <= last if window is None else (places <= last) & (places > last - window)
            masks[window] = torch.where(seen, nothing, never)[:, None, None]
        cos, sin = (
            angles.squeeze(1) for angles in rotation_at(step_positions(config, filled, total_frames)[:, None], stack)
        )  # [B, 1, D]
        x = F.embedding(codes, decoder.embedding.weight) * stack.hidden_size**0.5
        for index, (layer, window) in enumerate(zip(decoder.layers, stack.windows, strict=True)):
            assert isinstance(layer, DecoderLayer)
            joined = product(layer.attention.qkv, norms[layer.before_attention](x))
            joined = joined.view(-1, heads + 2 * kv_heads, size)
            turn(joined.narrow(1, 0, heads + kv_heads), cos, sin)
            memories[index].index_copy_(0, new, joined.narrow(1, heads, 2 * kv_heads).reshape(-1, size))
            heard = attended(joined.narrow(1, 0, heads), seen_keys[index], seen_values[index], masks[window])
            x = norms[layer.after_attention].add(x, product(layer.attention.out, heard))

            queries = product(layer.cross.query, norms[layer.before_cross](x)).view(-1, heads, size)
            if config.progress_rope:
                turn(queries, cos, sin)
            read = attended(queries, of_text[0][index], of_text[1][index], text_mask)
            x = norms[layer.after_cross].add(x, product(layer.cross.out, read))

            gate, up = product(layer.mlp.gate_up, norms[layer.before_mlp](x)).chunk(2, dim=-1)
            x = norms[layer.after_mlp].add(x, product(layer.mlp.down, F.gelu(gate, approximate="tanh").mul_(up)))
        filled.add_(occupied)
        return hidden.copy_(norms[decoder.norm](x))

    return think


def _drawing(network: Network, state: RowState, *, min_p: bool) -> Traced:
    """Return the function that draws from the rows' hidden states and tells if more ids tie than it looked at."""
    config, product = network.config, _Products(network)

    def draw(candidates: Tensor, packed: list[Tensor], *columns: Tensor) -> tuple[Tensor, ...]:
        product.use(packed)
        rows = state.of_columns(columns)
        first, activation, last = network.head
        logits = product(last, activation(product(first, rows.hidden)))
        logits.select(1, config.end_code).masked_fill_(rows.steps < config.earliest_end_frame, TOO_EARLY_LOGIT)
        best = few_best(logits, rows.options, candidates.shape[0])
        kept = kept_of(best, logits, rows.options, min_p=min_p)
        drawn = draw_from(best, kept, rows.options, uniform(rows.keys, rows.steps))
        return *drawn, ties_beyond(best, rows.options, config.code_vocab_size)

    return draw


def _recording(state: RowState) -> Traced:
    """Return the function that notes what was drawn."""

    def record(ids: Tensor, best: Tensor, broken: Tensor, *columns: Tensor) -> Tensor:
        rows = state.of_columns(columns)
        rows.record(slice(None), Drawn(ids, best, broken))
        return rows.ended

    return record
