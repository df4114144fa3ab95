"""What happens before a row's first step: its text is read, start code and voice prompt are taken in.

Letters: B rows of a group, L layers, K key/value heads, T text tokens, S decoder inputs (start code and prompt), D head
size, H hidden.

It pauses between layers and between stretches of a long prompt, because rows that are being spoken wait meanwhile. Rows
that share their text share an encoder row, those that share prompt and target too share all of it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voice_core.batching import padded_groups
from voice_core.decoding.rows import Row
from voice_core.decoding.traced_reading import TracedReading, rounded_tokens
from voice_core.model.network import CrossMemory, Masks, Network, additive, prefill_positions

MOST_POSITIONS = 2048  # of one padded batch through encoder or decoder: bounds its memory
MOST_TEXT_POSITIONS = 4096  # of texts that a group of prompts reads together: 0.4 GB at full size
STRETCH_FRAMES = 128  # of a prompt that are taken in between two pauses

# Of texts that one piece takes through a layer's MLP. On a CPU a layer of a text of a thousand tokens takes several
# steps of the rows that wait meanwhile; a GPU is done with it before the host has asked for more.
PIECE_POSITIONS = {"cpu": 256}

Start = tuple[tuple[int, ...], tuple[int, ...], int]  # what a row's first hidden state depends on


@dataclass(frozen=True)
class Heard:
    """What start code and prompt left."""

    hidden: Tensor  # [H] the hidden state that the row's first code is drawn from
    keys: Tensor  # [L, K, S, D]
    values: Tensor  # [L, K, S, D]


@dataclass(frozen=True)
class Prefilled:
    """What a row brings into its slot."""

    text: CrossMemory  # [L, K, T, D] each
    heard: Heard | None  # nothing without a prompt, see Row.prefilled_frames


def prefill(
    network: Network, rows: Sequence[Row], *, apart: bool, reading: TracedReading | None = None
) -> Generator[None, None, list[Prefilled]]:
    """Compute what each row brings into its slot, pausing now and then; texts are read by `reading`, if it is there.

    With `apart` every text and prompt goes through the network alone, so that the bits of its result do not depend on
    what it is admitted with.
    """
    most_items = 1 if apart else None
    texts = list(dict.fromkeys(row.text_ids for row in rows))
    memories: dict[tuple[int, ...], CrossMemory] = {}
    text_lengths = [len(text) for text in texts]
    padded_length = None if reading is None else rounded_tokens
    for group in padded_groups(
        text_lengths, most_positions=MOST_POSITIONS, most_items=most_items, padded_length=padded_length
    ):
        members = [texts[index] for index in group]
        memories.update(zip(members, (yield from _read(network, members, reading)), strict=True))
    starts: list[Start] = list(dict.fromkeys(start_of(row) for row in rows if row.prefilled_frames))
    lengths = [1 + len(prompt) for _, prompt, _ in starts]
    heard: dict[Start, Heard] = {}
    for group in padded_groups(lengths, most_positions=MOST_POSITIONS, most_items=most_items):
        at_once = max(1, MOST_TEXT_POSITIONS // max(len(starts[index][0]) for index in group))
        for begin in range(0, len(group), at_once):
            taken = [starts[index] for index in group[begin : begin + at_once]]
            texts_of_group = [memories[text] for text, _, _ in taken]
            heard.update(zip(taken, (yield from _take_in(network, taken, texts_of_group)), strict=True))
    return [Prefilled(memories[row.text_ids], heard.get(start_of(row))) for row in rows]


def start_of(row: Row) -> Start:
    """Return what is read for the row, and for others that bring the same only once."""
    return row.text_ids, row.prompt_codes, row.total_frames()


def _read(
    network: Network, texts: Sequence[tuple[int, ...]], reading: TracedReading | None
) -> Generator[None, None, list[CrossMemory]]:
    """Encode a padded group of texts; return what cross-attention reads of each, [L, K, T, D]."""
    text_ids, lengths = _padded(texts, network.device)
    most_positions = PIECE_POSITIONS.get(network.device.type)
    if reading is not None and most_positions is not None and text_ids.numel() <= most_positions:
        keys, values = yield from reading.read(network, text_ids, lengths)
    else:
        memory = yield from network.encoder.pieces(text_ids, lengths, most_positions)
        keys, values = yield from network.decoder.memorise_pieces(memory, lengths)
    return [
        CrossMemory(keys[:, index, :, : len(text)], values[:, index, :, : len(text)])
        for index, text in enumerate(texts)
    ]


def _take_in(
    network: Network, starts: Sequence[Start], texts: Sequence[CrossMemory]
) -> Generator[None, None, list[Heard]]:
    """Run a padded group of start codes and prompts through the decoder, stretch by stretch."""
    config, device = network.config, network.device
    inputs = [(config.start_code, *(code + config.code_shift for code in prompt)) for _, prompt, _ in starts]
    codes, lengths = _padded(inputs, device)  # [B, S]
    totals = torch.tensor([total for _, _, total in starts], device=device)
    positions = prefill_positions(config, codes.shape[1], totals)
    text, text_mask = _joined(texts, network.dtype)
    memory = _PromptMemory(network, *codes.shape)
    last_hidden = torch.zeros(len(starts), config.decoder.hidden_size, device=device, dtype=network.dtype)
    for begin in range(0, codes.shape[1], STRETCH_FRAMES):
        end = min(begin + STRETCH_FRAMES, codes.shape[1])
        memory.filled = begin
        stretch = slice(begin, end)
        masks = _causal_masks(network, begin, end)
        hidden = yield from network.decoder.pieces(
            codes[:, stretch], positions[:, stretch], masks, memory, text, text_mask
        )
        ends_here = (lengths > begin) & (lengths <= end)
        last_hidden[ends_here] = hidden[ends_here, lengths[ends_here] - 1 - begin]
    return [
        Heard(
            last_hidden[index],
            memory.keys[:, index, :, : len(codes_of_row)],
            memory.values[:, index, :, : len(codes_of_row)],
        )
        for index, codes_of_row in enumerate(inputs)
    ]


class _PromptMemory:
    """Keys and values [L, B, K, S, D] of prompts that come in stretches."""

    def __init__(self, network: Network, rows: int, length: int) -> None:
        stack = network.config.decoder
        shape = (stack.layers, rows, stack.kv_heads, length, stack.head_dim)
        self.keys = torch.empty(shape, device=network.device, dtype=network.dtype)
        self.values = torch.empty_like(self.keys)
        self.filled = 0  # inputs before the present stretch

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        end = self.filled + keys.shape[2]
        self.keys[layer, :, :, self.filled : end] = keys
        self.values[layer, :, :, self.filled : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


def _causal_masks(network: Network, begin: int, end: int) -> Masks:
    """A stretch sees itself and what came before it, never what comes after: so padding is seen by padding only."""
    keys = torch.arange(end, device=network.device)
    behind = keys[begin:, None] - keys  # [S, F] how far a key lies behind the query
    return {
        window: additive((behind >= 0) & (behind < (window or end)), network.dtype)[None, None]
        for window in set(network.config.decoder.windows)
    }


def _joined(texts: Sequence[CrossMemory], dtype: torch.dtype) -> tuple[CrossMemory, Tensor]:
    """Return the memories of a group padded together, [L, B, K, T, D], and their mask [B, 1, 1, T]."""
    lengths = [text.keys.shape[2] for text in texts]
    layers, kv_heads, _, size = texts[0].keys.shape
    shape = (layers, len(texts), kv_heads, max(lengths), size)
    joined = CrossMemory(texts[0].keys.new_zeros(shape), texts[0].values.new_zeros(shape))
    for index, text in enumerate(texts):
        joined.keys[:, index, :, : lengths[index]] = text.keys
        joined.values[:, index, :, : lengths[index]] = text.values
    device = joined.keys.device
    visible = torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]
    return joined, additive(visible[:, None, None, :], dtype)


def _padded(sequences: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the sequences padded with 0 on the right, [B, longest], and their lengths [B]."""
    longest = max(map(len, sequences))
    padded = [[*sequence, *[0] * (longest - len(sequence))] for sequence in sequences]
    lengths = [len(sequence) for sequence in sequences]
    return torch.tensor(padded, device=device), torch.tensor(lengths, device=device)
