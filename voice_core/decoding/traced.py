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
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from voice_core.decoding.graphs import Shape
from voice_core.decoding.noise import uniform
from voice_core.decoding.sampling import Demand, Drawn, draw_from, few_best, kept_of, ties_beyond
from voice_core.decoding.slots import Slots
from voice_core.decoding.state import TOO_EARLY_LOGIT, RowState
from voice_core.decoding.traced_reading import traced_reading
from voice_core.decoding.tracing import Norm, Products, matrices, packed_linears
from voice_core.model.network import DecoderLayer, Network, RMSNorm, rotation_at, step_positions, weigh
from voice_core.model.packing import PackedLinear
from voice_core.tracing import Traced, traced, tracing

logger = logging.getLogger(__name__)

# Attention of rows in a group reads as far as the longest of them. In how many groups a step's rows may be:
GROUPS = (1, 2, 4)
# What one more group costs, in numbers of a row's keys: some ten operations, while attention takes in 10 GB a second.
GROUP_PRICE_NUMBERS = 12_500

SEEN, UNSEEN = torch.zeros(()), torch.tensor(-torch.inf)  # in additive masks


class Length(NamedTuple):
    """How much attention reads of a row."""

    frames: int  # less than another row's by as many as it is behind it
    text_tokens: int


class TracedStep:
    """The traced parts of a decoder's step, over its slots and state."""

    def __init__(self, network: Network, slots: Slots, state: RowState) -> None:
        """Trace the network's step, unless that was done before; nobody may speak yet."""
        self._slots, self._state = slots, state
        self._packed = matrices(_packed_linears(network))
        kv_heads = network.config.decoder.kv_heads
        self._places = torch.arange(slots.frames)
        self._ids = torch.arange(network.config.code_vocab_size)
        # [R, 2 K] Where a slot's keys and values begin in a layer's memory, were it [2 * R * K * F, D].
        heads = torch.arange(slots.slots * kv_heads).view(-1, kv_heads) * slots.frames
        self._begins = torch.cat((heads, heads + heads.numel() * slots.frames), dim=1)
        self._memories = list(slots.of_frames.flatten(1, -2))  # [2 * R * K * F, D] of each layer
        self._group_price = GROUP_PRICE_NUMBERS / (kv_heads * network.config.decoder.head_dim)
        self._lengths: list[Length] = []
        # Of slots and state; they hold until a row comes or goes.
        self._thinking: tuple[Shape, list[int], list[Any]] | None = None
        self._drawing: dict[tuple[int, int], list[Tensor]] = {}
        examples = self._examples()
        traces = _TRACES.get(network)
        if traces is None or not traces.suit(*examples):
            traces = _TRACES[network] = _Traces(network, state, *examples)
        self._traces = traces
        self.reading = traced_reading(network)

    def look_around(self, lengths: Sequence[Length]) -> None:
        """Note that a row came or went; `lengths` are those of all rows that speak, if attention may differ by them."""
        self._lengths = list(lengths)
        self._thinking = None
        self._drawing.clear()

    def think(self, shape: Shape) -> None:
        """Take the last codes in, see PlainStep.think."""
        if self._thinking is None or self._thinking[0]._replace(frames=shape.frames) != shape:
            self._thinking = (shape, *self._thinking_of(shape))
        _, behind, views = self._thinking
        places = [self._places[: shape.frames - fewer] for fewer in behind]
        self._traces.think[len(behind)](places, *views)

    def draw(self, rows: slice, demand: Demand) -> bool:
        """Draw a code for each of the rows and note it, see PlainStep.draw.

        False, and nothing is noted, if that takes no candidates or all, or if more ids tie than were looked at.
        """
        if not 1 < demand.candidates < len(self._ids):
            return False
        key = (rows.start, rows.stop)
        columns = self._drawing.get(key)
        if columns is None:
            columns = self._drawing[key] = [column[rows] for column in self._state.columns]
        draw = self._traces.draw_likely if demand.min_p else self._traces.draw
        *drawn, ties = draw(self._ids[: demand.candidates], self._packed, *columns)
        if demand.search_ties and ties:
            return False
        self._traces.record(*drawn, *columns)
        return True

    def _thinking_of(self, shape: Shape) -> tuple[list[int], list[Any]]:
        """Return how many frames fewer than the longest row each group has, and what a step reads and writes."""
        lengths = self._lengths or [Length(0, shape.text_tokens)] * shape.rows
        groups = in_groups(lengths, self._group_price)
        most = lengths[0].frames
        behind = [most - max(length.frames for length in lengths[group]) for group in groups]
        texts = [(group, max(length.text_tokens for length in lengths[group])) for group in groups]
        return behind, self._reads_and_writes(shape.rows, texts)

    def _reads_and_writes(self, rows: int, texts: Sequence[tuple[slice, int]]) -> list[Any]:
        """Return the arguments of the traced step for rows in groups, each with the tokens of its longest text."""
        slots, state = self._slots, self._state
        masks = []
        for group, tokens in texts:
            unseen = (torch.arange(tokens) >= state.text_tokens[group, None])[:, None, None]  # [B, 1, 1, T] padding
            masks.append(unseen.float().masked_fill(unseen, -torch.inf))
        return [
            self._packed,
            self._memories,
            [slots.keys[:, group] for group, _ in texts],
            [slots.values[:, group] for group, _ in texts],
            [slots.text.keys[:, group, :, :tokens] for group, tokens in texts],
            [slots.text.values[:, group, :, :tokens] for group, tokens in texts],
            masks,
            self._begins[:rows],
            *(column[:rows] for column in (state.last_code, state.filled, state.occupied, state.total_frames)),
            state.hidden[:rows],
        ]

    def _examples(self) -> tuple[dict[int, list[Any]], list[Any]]:
        """Return what may be thought of, in so many groups, and what may be drawn while nobody speaks."""
        thinking: dict[int, list[Any]] = {}
        for count in GROUPS:
            if count <= self._slots.slots:
                groups = [slice(slot, slot + 1) for slot in range(count)]
                texts = [(group, self._slots.tokens) for group in groups]
                thinking[count] = [[self._places] * count, *self._reads_and_writes(count, texts)]
        rows = slice(0, min(2, self._slots.slots))
        candidates = self._ids[: max(1, len(self._ids) // 2)]
        return thinking, [candidates, self._packed, *(column[rows] for column in self._state.columns)]


def in_groups(lengths: Sequence[Length], price: float) -> list[slice]:
    """Return the rows, longest first, in the groups whose attention costs least: each reads as far as its longest row.

    The price of a group, in frames of one row, is what it costs to attend apart.
    """
    # By how many groups: for so many of the first rows, the cost, and where the last of the groups begins.
    costs = [[(0.0, 0)] + [(math.inf, 0)] * len(lengths)]
    tokens = [length.text_tokens for length in lengths]
    for _ in range(min(max(GROUPS), len(lengths))):
        before = costs[-1]
        row: list[tuple[float, int]] = [(math.inf, 0)]
        for end in range(1, len(lengths) + 1):
            best, most_tokens = (math.inf, 0), 0
            for begin in reversed(range(end)):
                most_tokens = max(most_tokens, tokens[begin])
                reading = (end - begin) * (lengths[begin].frames + most_tokens)
                best = min(best, (before[begin][0] + price + reading, begin))
            row.append(best)
        costs.append(row)
    count = min((count for count in GROUPS if count < len(costs)), key=lambda count: costs[count][-1][0])
    groups: list[slice] = []
    end = len(lengths)
    for row in reversed(costs[1 : count + 1]):
        groups.insert(0, slice(row[end][1], end))
        end = row[end][1]
    return groups


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

    def __init__(self, network: Network, state: RowState, thinking: dict[int, list[Any]], drawing: list[Any]) -> None:
        start = time.perf_counter()
        self._packed_matrices = len(drawing[1])
        with tracing():
            self.think = {groups: traced(_thinking(network), example) for groups, example in thinking.items()}
            self.draw = traced(_drawing(network, state, min_p=False), drawing)
            self.draw_likely = traced(_drawing(network, state, min_p=True), drawing)
            *drawn, _ = self.draw(*drawing)
            self.record = traced(_recording(state), [*drawn, *drawing[2:]])
        logger.info("Traced the decode step in %.2f s", time.perf_counter() - start)

    def suit(self, thinking: dict[int, list[Any]], drawing: list[Any]) -> bool:
        """Tell if these are traces of what such examples are of: as many groups, and as many packed matrices."""
        return self.think.keys() >= thinking.keys() and self._packed_matrices == len(drawing[1])


# By network: decoders of the same network share them.
_TRACES: WeakKeyDictionary[Network, _Traces] = WeakKeyDictionary()


def _packed_linears(network: Network) -> list[PackedLinear]:
    return packed_linears(network.decoder, network.head)


def _thinking(network: Network) -> Traced:
    """Return the function that takes one new position of every row in; it writes frames, hidden states and places."""
    decoder, config = network.decoder, network.config
    stack = config.decoder
    heads, kv_heads, size = stack.heads, stack.kv_heads, stack.head_dim
    norms = {norm: Norm(norm, stack.hidden_size) for norm in decoder.modules() if isinstance(norm, RMSNorm)}
    product = Products(_packed_linears(network), few_rows=True)

    def turn(x: Tensor, cos: Tensor, sin: Tensor) -> None:
        """Turn [B, N, D] by its row's position, in place; see `rotate`."""
        aside = x.roll(size // 2, -1)
        x.mul_(cos).addcmul_(aside, sin)

    def attended(queries: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
        """Return [B, N * D] of queries [B, N, D]; those that share a key/value head are its positions."""
        queries = queries.view(-1, kv_heads, heads // kv_heads, size)
        of_groups = [queries] if len(keys) == 1 else queries.split_with_sizes([of_group.shape[0] for of_group in keys])
        heard = [
            weigh(*of_group, stack.attention_scale, stack.softcap).reshape(-1, heads * size)
            for of_group in zip(of_groups, keys, values, masks, strict=True)
        ]
        return heard[0] if len(heard) == 1 else torch.cat(heard)

    # Everything of a group comes in lists of groups.
    def think(
        places: list[Tensor],  # [F] 0, 1, 2 …
        packed: list[Tensor],
        memories: list[Tensor],  # [2 * R * K * F of the slots, D] of each layer
        keys: list[Tensor],  # [L, B of the group, K, F of the slots, D]
        values: list[Tensor],
        text_keys: list[Tensor],  # [L, B of the group, K, T, D]
        text_values: list[Tensor],
        text_masks: list[Tensor],  # [B of the group, 1, 1, T]
        begins: Tensor,  # [B, 2 K]
        codes: Tensor,  # [B]
        filled: Tensor,  # [B]
        occupied: Tensor,  # [B]
        total_frames: Tensor,  # [B]
        hidden: Tensor,  # [B, H]
    ) -> Tensor:
        product.use(packed)
        # [layer][group]
        frames = [of_group.shape[0] for of_group in places]
        seen_keys = _by_layer([mine.narrow(3, 0, until) for mine, until in zip(keys, frames, strict=True)])
        seen_values = _by_layer([mine.narrow(3, 0, until) for mine, until in zip(values, frames, strict=True)])
        of_text = _by_layer(text_keys), _by_layer(text_values)
        last = filled[:, None]
        masks = _masks(places, last.split_with_sizes([of_group.shape[1] for of_group in keys]), set(stack.windows))
        new = (begins + last).view(-1)
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
            read = attended(queries, of_text[0][index], of_text[1][index], text_masks)
            x = norms[layer.after_cross].add(x, product(layer.cross.out, read))

            gate, up = product(layer.mlp.gate_up, norms[layer.before_mlp](x)).chunk(2, dim=-1)
            x = norms[layer.after_mlp].add(x, product(layer.mlp.down, F.gelu(gate, approximate="tanh").mul_(up)))
        normed = norms[decoder.norm](x)
        filled.add_(occupied)  # when nothing can fail any more: a step without memory is tried again
        return hidden.copy_(normed)

    return think


def _by_layer(groups: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Return for every layer what the groups [L, …] have of it."""
    return list(zip(*(of_group.unbind(0) for of_group in groups), strict=True))


def _masks(
    places: Sequence[Tensor], last: Sequence[Tensor], windows: Iterable[int | None]
) -> dict[int | None, list[Tensor]]:
    """Return additive masks [B, 1, 1, F] of every group by window; `last` [B, 1] are the places of the new frames."""
    masks: dict[int | None, list[Tensor]] = {}
    for window in windows:
        masks[window] = []
        for place, end in zip(places, last, strict=True):
            seen = place <= end if window is None else (place <= end) & (place > end - window)
            masks[window].append(torch.where(seen, SEEN, UNSEEN)[:, None, None])
    return masks


def _drawing(network: Network, state: RowState, *, min_p: bool) -> Traced:
    """Return the function that draws from the rows' hidden states and tells if more ids tie than it looked at."""
    config, product = network.config, Products(_packed_linears(network), few_rows=True)
    head = network.head  # not the network: what is traced is kept for as long as the network lives

    def draw(candidates: Tensor, packed: list[Tensor], *columns: Tensor) -> tuple[Tensor, ...]:
        product.use(packed)
        rows = state.of_columns(columns)
        first, activation, last = head
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
