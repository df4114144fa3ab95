"""The decoder's static memory: a slot for every row that is being spoken.

Letters: R slots, L layers, K key/value heads, F frames of capacity, T text tokens of capacity, D head size.

Rows that speak stand in the first slots without a gap. Then a step reads views of the memory, never copies, and its
cost follows the rows and the frames that are there, not the capacity. The price: when a row leaves, the last row moves
into its slot, one copy of what that row has said so far.
"""

from __future__ import annotations

import torch
from torch import Tensor

from voice_core.model.config import StackConfig
from voice_core.model.network import CrossMemory


class Slots:
    """Keys and values of every slot; 2 · L · R · K · (F + T) · D numbers in all."""

    def __init__(
        self,
        stack: StackConfig,
        slots: int,
        frames: int,
        tokens: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        def memory(length: int) -> Tensor:
            shape = (stack.layers, slots, stack.kv_heads, length, stack.head_dim)
            # Zeros, because a masked value is weighted by 0, and 0 · NaN of untouched memory would be NaN.
            return torch.zeros(shape, device=device, dtype=dtype)

        self.slots, self.frames, self.tokens = slots, frames, tokens
        self.keys, self.values = memory(frames), memory(frames)  # [L, R, K, F, D]
        self.text = CrossMemory(memory(tokens), memory(tokens))  # [L, R, K, T, D]

    def write_prefill(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys and values [L, B, K, S, D] of a prefill; what lies beyond a row's own prompt is written over."""
        length = keys.shape[3]
        self.keys[:, slots, :, :length] = keys
        self.values[:, slots, :, :length] = values

    def write_text(self, slots: Tensor, text: CrossMemory) -> None:
        """Store the cross-attention memory of new rows, [L, B, K, T, D]."""
        length = text.keys.shape[3]
        self.text.keys[:, slots, :, :length] = text.keys
        self.text.values[:, slots, :, :length] = text.values

    def move(self, source: int, target: int, frames: int, tokens: int) -> None:
        """Copy one slot over another, as far as it is filled."""
        for memory, length in (
            (self.keys, frames),
            (self.values, frames),
            (self.text.keys, tokens),
            (self.text.values, tokens),
        ):
            memory[:, target, :, :length] = memory[:, source, :, :length]

    def text_view(self, rows: int, tokens: int) -> CrossMemory:
        """Return what the first `rows` slots read of their texts, views of [L, rows, K, tokens, D]."""
        return CrossMemory(self.text.keys[:, :rows, :, :tokens], self.text.values[:, :rows, :, :tokens])


class PrefillMemory:
    """Collects the keys and values of a prefill, layer by layer."""

    def __init__(self) -> None:
        self._layers: list[tuple[Tensor, Tensor]] = []

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self._layers.append((keys, values))
        return keys, values

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Return keys and values [L, B, K, S, D]."""
        return torch.stack([k for k, _ in self._layers]), torch.stack([v for _, v in self._layers])


class StepMemory:
    """The slots during one step: a row's new key goes to its own place, attention reads up to the longest row."""

    def __init__(self, slots: Slots, place: Tensor, longest_frames: int) -> None:
        self._slots = slots
        self._place = place  # [B] where each row's new frame belongs
        self._rows = torch.arange(len(place), device=place.device)
        self._frames = longest_frames

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []
        for memory, new in ((self._slots.keys[layer], keys), (self._slots.values[layer], values)):
            memory[self._rows, :, self._place] = new[:, :, 0]
            seen.append(memory[: len(self._rows), :, : self._frames])
        return seen[0], seen[1]
