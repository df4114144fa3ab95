"""The device's side of the rows: one entry a slot in every column, so that a step asks the host for nothing.

Letters: R slots, F frames of capacity, H hidden.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from voice_core.decoding.rows import Row
from voice_core.decoding.sampling import Drawn, Options
from voice_core.model.config import ModelConfig
from voice_core.seeds import row_key
from voice_core.speech import FinishReason, Sampling

TOO_EARLY_LOGIT = -1e4  # what the reference puts in place of the end code's logit while a row may not end yet

# What a row's `reason` stands for; None is a row whose logits were no numbers.
REASONS = (FinishReason.STOP, FinishReason.LENGTH, FinishReason.CANCELLED, None)
STOP, LENGTH, CANCELLED, BROKEN = range(4)


class RowState:
    """Columns [R] of all slots; entries of slots without a row are stale, but always valid numbers.

    A step may compute such slots too. They are not `occupied`, so their entries go nowhere.
    """

    def __init__(self, slots: int, frames: int, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        def integers(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        self._config = config
        self.occupied = integers(slots)  # 1 where a row speaks, else 0
        self.hidden = torch.zeros(slots, config.decoder.hidden_size, device=device, dtype=dtype)  # [R, H] to draw from
        self.filled = integers(slots)  # decoder positions in the slot
        self.total_frames = integers(slots)  # the denominator of progress, plus one
        self.text_tokens = integers(slots) + 1
        self.steps = integers(slots)  # codes drawn
        self.last_step = integers(slots)  # after it the budget is used up
        self.last_code = integers(slots)  # id to be fed next
        self.codes = integers(slots, frames)  # [R, F] all drawn ids
        self.keys = integers(slots)  # of the noise
        self.ended = torch.zeros(slots, dtype=torch.bool, device=device)
        self.length = integers(slots)  # codes that are speech, once the row has ended
        self.reason = integers(slots)  # index into REASONS
        self.options = Options.of([Sampling()] * slots, config.code_vocab_size, device)

    def enter(self, first: int, rows: Sequence[Row]) -> None:
        """Fill the entries of new rows, which stand in the slots from `first` on."""
        config, slots = self._config, slice(first, first + len(rows))

        def column(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=self.filled.device)

        self.occupied[slots] = 1
        self.filled[slots] = column([row.prefilled_frames for row in rows])
        self.last_code[slots] = config.start_code  # for those who have heard nothing yet
        self.total_frames[slots] = column([row.total_frames() for row in rows])
        self.text_tokens[slots] = column([len(row.text_ids) for row in rows])
        self.last_step[slots] = column([row.last_step(config) for row in rows])
        self.keys[slots] = column([row_key(row.seed, row.segment_index) for row in rows])
        self.steps[slots] = 0
        self.ended[slots] = False
        new = Options.of([row.sampling for row in rows], config.code_vocab_size, self.filled.device)
        for mine, theirs in zip(self.options, new, strict=True):
            mine[slots] = theirs

    def of_columns(self, columns: Sequence[Tensor]) -> RowState:
        """Return a state of other columns, in the order of `columns`: views of these, say."""
        state = copy.copy(self)
        names = [name for name, value in vars(self).items() if isinstance(value, Tensor)]
        vars(state).update(zip(names, columns, strict=False))
        state.options = Options(*columns[len(names) :])
        return state

    def record(self, rows: slice, drawn: Drawn) -> None:
        """Note what was drawn for the slots of the slice."""
        steps, end_code = self.steps[rows], self._config.end_code
        # The row also ends where the end code is the likeliest, whatever was drawn.
        stops = (drawn.ids == end_code) | (drawn.best == end_code)
        ending = (stops | drawn.broken | (steps > self.last_step[rows])) & ~self.ended[rows]
        reason = torch.where(drawn.broken, BROKEN, torch.where(stops, STOP, LENGTH))
        self.reason[rows] = torch.where(ending, reason, self.reason[rows])
        self.length[rows] = torch.where(ending, steps, self.length[rows])
        self.ended[rows] |= ending
        self.codes[rows].scatter_(1, steps[:, None], drawn.ids[:, None])
        self.last_code[rows] = drawn.ids
        self.steps[rows] += self.occupied[rows]

    def vacate(self, slot: int) -> None:
        """Note that nobody speaks in a slot any more."""
        self.occupied[slot] = 0
        self.filled[slot] = 0  # a place that every window sees: a softmax over nothing is no number

    def cancel(self, slot: int) -> None:
        """End a row here, unless it has ended already."""
        if not self.ended[slot]:
            self.reason[slot] = CANCELLED
            self.length[slot] = self.steps[slot]

    @property
    def columns(self) -> list[Tensor]:
        """All there is of the slots."""
        return [*(value for value in vars(self).values() if isinstance(value, Tensor)), *self.options]

    def move(self, source: int, target: int) -> None:
        """Copy all entries of one slot over another's."""
        for column in self.columns:
            column[target] = column[source]
