"""The decoder's static memory: a slot for every row that is being spoken.

Letters: R slots, L layers, K key/value heads, F frames of capacity, T text tokens of capacity, D head size.

Rows that speak stand in the first slots without a gap. Then a step reads views of the memory, never copies, and its
cost follows the rows and the frames that are there, not the capacity. The price: when a row leaves, the last row moves
into its slot, one copy of what that row has said so far; or, where steps gain from the order of their rows (`traced`),
each of those behind it moves down by one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from voice_core.decoding.prefill import Prefilled
from voice_core.model.config import StackConfig
from voice_core.model.network import CrossMemory


def slot_bytes(stack: StackConfig, frames: int, tokens: int, dtype: torch.dtype) -> int:
    """Return what one slot takes: keys and values, 2 · L · K · (F + T) · D numbers."""
    return 2 * stack.layers * stack.kv_heads * (frames + tokens) * stack.head_dim * dtype.itemsize


class Slots:
    """Keys and values of every slot; R times `slot_bytes` in all."""

    def __init__(
        self, stack: StackConfig, slots: int, frames: int, tokens: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        def memory(length: int) -> Tensor:
            shape = (stack.layers, 2, slots, stack.kv_heads, length, stack.head_dim)
            # Zeros, because a masked value is weighted by 0, and 0 · NaN of untouched memory would be NaN.
            return torch.zeros(shape, device=device, dtype=dtype)

        self.slots, self.frames, self.tokens = slots, frames, tokens
        self.of_frames = memory(frames)  # [L, 2, R, K, F, D] keys and values side by side, so that one write takes both
        self.keys, self.values = self.of_frames.unbind(1)  # [L, R, K, F, D]
        self.text = CrossMemory(*memory(tokens).unbind(1))  # [L, R, K, T, D]

    @property
    def nbytes(self) -> int:
        """Bytes that the slots take."""
        return sum(memory.nbytes for memory in (self.keys, self.values, *self.text))

    def fill(self, slot: int, row: Prefilled) -> None:
        """Store what a new row brings with it; what lies behind it is written over frame by frame."""
        tokens = row.text.keys.shape[2]
        if row.heard is not None:
            length = row.heard.keys.shape[2]
            self.keys[:, slot, :, :length] = row.heard.keys
            self.values[:, slot, :, :length] = row.heard.values
        self.text.keys[:, slot, :, :tokens] = row.text.keys
        self.text.values[:, slot, :, :tokens] = row.text.values

    def move(self, source: int, target: int, frames: int, tokens: int) -> None:
        """Take a row from one slot to another that is clear, with all that it has filled."""
        for memory, length in self._memories(frames, tokens):
            memory[:, target, :, :length] = memory[:, source, :, :length]
        self.clear(source, frames, tokens)

    def clear(self, slot: int, frames: int | None = None, tokens: int | None = None) -> None:
        """Forget a slot, or so much of its beginning.

        Whoever leaves a slot takes its numbers along. They may be none, and then 0 · NaN would reach the next row there
        through the mask; the host looks too seldom to know.
        """
        for memory, length in self._memories(frames, tokens):
            memory[:, slot, :, :length] = 0.0

    def text_view(self, rows: int, tokens: int) -> CrossMemory:
        """Return what the first `rows` slots read of their texts, views of [L, rows, K, tokens, D]."""
        return CrossMemory(self.text.keys[:, :rows, :, :tokens], self.text.values[:, :rows, :, :tokens])

    def _memories(self, frames: int | None, tokens: int | None) -> tuple[tuple[Tensor, int | None], ...]:
        return (self.keys, frames), (self.values, frames), (self.text.keys, tokens), (self.text.values, tokens)


class StepMemory:
    """The slots during one step: a row's new key goes to its own place, attention reads up to the longest row."""

    def __init__(self, slots: Slots, place: Tensor, longest_frames: int) -> None:
        """`place` [B] is where each row's new frame belongs."""
        self._slots = slots
        self._rows = len(place)
        self._frames = longest_frames
        kv_heads = slots.keys.shape[2]
        heads = torch.arange(self._rows * kv_heads, device=place.device).view(self._rows, -1)
        # [B * K] Where the new frames are in a layer, were it [R * K * F, D]: one index, one operation.
        self._new = (heads * slots.frames + place[:, None]).flatten()

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []
        for memory, new in ((self._slots.keys[layer], keys), (self._slots.values[layer], values)):
            size = memory.shape[-1]
            memory.view(-1, size).index_copy_(0, self._new, new.reshape(-1, size))
            seen.append(memory[: self._rows, :, : self._frames])
        return seen[0], seen[1]
