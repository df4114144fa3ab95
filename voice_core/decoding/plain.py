"""A decode step by torch, operation by operation: on any device, for every model and whatever the rows ask for.

Letters: B rows of a step, F decoder positions, T text tokens, V ids of the speaker.
"""

from __future__ import annotations

import torch
from torch import Tensor

from voice_core.decoding.graphs import Shape
from voice_core.decoding.noise import uniform
from voice_core.decoding.sampling import Demand, draw
from voice_core.decoding.slots import Slots, StepMemory
from voice_core.decoding.state import TOO_EARLY_LOGIT, RowState
from voice_core.model.network import Masks, Network, additive, step_positions, whole


class PlainStep:
    """The two halves of a step over slots and state."""

    def __init__(self, network: Network, slots: Slots, state: RowState) -> None:
        self._network, self._slots, self._state = network, slots, state
        self.end_code = network.config.end_code

    def think(self, shape: Shape) -> None:
        """Take the last codes in; the hidden states that the next ones are drawn from go to the rows' state."""
        rows, state = slice(0, shape.rows), self._state
        place = state.filled[rows]  # [B]
        hidden = whole(
            self._network.decoder.pieces(
                state.last_code[rows, None],
                step_positions(self._network.config, place, state.total_frames[rows])[:, None],
                self._masks(place, shape.frames),
                StepMemory(self._slots, place, shape.frames),
                self._slots.text_view(shape.rows, shape.text_tokens),
                self._text_mask(state.text_tokens[rows], shape.text_tokens),
            )
        )
        state.hidden[rows] = hidden[:, 0]
        state.filled[rows] += state.occupied[rows]

    def draw(self, rows: slice, demand: Demand) -> None:
        """Draw a code from the hidden state of each of the rows and note which of them end with it."""
        state = self._state
        noise = uniform(state.keys[rows], state.steps[rows])
        state.record(rows, draw(self.logits(rows), state.options.rows(rows), noise, demand))

    def logits(self, rows: slice) -> Tensor:
        """Return what the rows' hidden states say next, [B, V] float32; too early ends are put down."""
        state = self._state
        logits: Tensor = self._network.head(state.hidden[rows]).float()  # sums need float32, also in bf16 models
        too_early = state.steps[rows] < self._network.config.earliest_end_frame
        logits[:, self.end_code] = logits[:, self.end_code].masked_fill(too_early, TOO_EARLY_LOGIT)
        return logits

    def _masks(self, place: Tensor, longest: int) -> Masks:
        """A row sees its own frames up to the new one; a sliding layer only the last `window` of them."""
        index = torch.arange(longest, device=place.device)
        visible = (index <= place[:, None])[:, None, None, :]  # [B, 1, 1, F]
        masks: dict[int | None, Tensor | None] = {}
        for window in set(self._network.config.decoder.windows):
            seen = visible
            if window is not None and window < longest:
                seen = visible & (index > place[:, None] - window)[:, None, None, :]
            masks[window] = additive(seen, self._network.dtype)
        return masks

    def _text_mask(self, lengths: Tensor, tokens: int) -> Tensor:
        """The padding of a text is visible to nobody: additive mask [B, 1, 1, T]."""
        visible = torch.arange(tokens, device=lengths.device) < lengths[:, None]
        return additive(visible[:, None, None, :], self._network.dtype)
