"""Speaks many rows at once: admit, step, retire over slots.

Letters: B rows of a call, R slots, T text tokens, P prompt frames (its separator included), V ids of the speaker.

    decoder = BatchDecoder(network, max_rows=16, max_frames=2600, max_tokens=512)
    decoder.admit(rows)          # one encoder pass over the distinct texts, one prefill, the first code of each row
    while decoder.live_rows:
        decoder.step()           # one more code for every row
        for number, spoken in decoder.retire(): …

The rules of decoding (start code, progress positions, earliest end, budget, argmax-end) are the reference's batch form.
What a row says depends on the row alone: neither its neighbours nor the order of admission enter its noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from voice_core.decoding.noise import uniform
from voice_core.decoding.rows import Row, SpokenRow
from voice_core.decoding.sampling import Options, candidates_needed, draw
from voice_core.decoding.slots import PrefillMemory, Slots, StepMemory
from voice_core.errors import RequestError
from voice_core.model.network import CrossMemory, Masks, Network, additive, prefill_positions, step_positions
from voice_core.seeds import row_key
from voice_core.speech import FinishReason

TOO_EARLY_LOGIT = -1e4  # what the reference puts in place of the end code's logit while a row may not end yet


@dataclass
class _Live:
    """The host's side of a row in a slot."""

    number: int  # given out at admission
    row: Row
    candidates: int  # bound of its sorted ids
    steps: int = 0  # codes drawn so far

    @property
    def filled_frames(self) -> int:
        """Decoder positions in the slot: start code, prompt and all drawn codes but the last."""
        return self.row.prompt_frames + self.steps


class BatchDecoder:
    """Slots, and the three verbs over them; not thread-safe, one thread owns it."""

    def __init__(self, network: Network, *, max_rows: int, max_frames: int, max_tokens: int) -> None:
        """Reserve memory for `max_rows` rows of `max_frames` decoder positions and `max_tokens` text tokens."""
        self.network = network
        self.config = network.config
        self.slots = Slots(self.config.decoder, max_rows, max_frames, max_tokens, network.device, network.dtype)
        self.steps = 0  # decoder steps so far
        self.row_steps = 0  # codes drawn so far
        self._numbers = count()
        self._live: list[_Live] = []  # slot by slot
        self._state = _State.empty(max_rows, max_frames, self.config.code_vocab_size, network.device)

    @property
    def live_rows(self) -> int:
        return len(self._live)

    @property
    def free_slots(self) -> int:
        return self.slots.slots - len(self._live)

    def check(self, row: Row) -> None:
        """Raise RequestError for a row that can never be spoken here."""
        if not row.text_ids:
            raise RequestError("input", "holds nothing that this voice's tokenizer knows")
        if len(row.text_ids) > self.slots.tokens:
            tokens = f"{len(row.text_ids)} tokens with its voice prompt"
            raise RequestError("input", f"a segment has {tokens}, at most {self.slots.tokens} fit")
        if (frames := row.capacity_frames(self.config)) > self.slots.frames:
            raise RequestError("seconds", f"a row needs {frames} frames, at most {self.slots.frames} fit")

    @torch.inference_mode()
    def admit(self, rows: Sequence[Row]) -> list[int]:
        """Give each row a slot and draw its first code; return the numbers that `retire` will use for them.

        Raises RequestError for a row that can't fit; then no row of the call was admitted.
        """
        assert len(rows) <= self.free_slots, "more rows than free slots"
        if not rows:
            return []
        for row in rows:
            self.check(row)
        first = len(self._live)
        slots = torch.arange(first, first + len(rows), device=self.network.device)
        hidden = self._prefill(rows, slots)
        for row in rows:
            candidates = candidates_needed(row.sampling, self.config.code_vocab_size)
            self._live.append(_Live(next(self._numbers), row, candidates))
        self._state.enter(slots, rows, self)
        self._draw(hidden, slice(first, len(self._live)))
        return [live.number for live in self._live[first:]]

    @torch.inference_mode()
    def step(self) -> None:
        """Draw one more code for every live row."""
        rows, state = len(self._live), self._state
        place = state.filled[:rows]  # [B]
        longest = max(live.filled_frames for live in self._live) + 1
        text_tokens = max(len(live.row.text_ids) for live in self._live)
        hidden = self.network.decoder(
            state.last_code[:rows, None],
            step_positions(self.config, place, state.total_frames[:rows])[:, None],
            self._step_masks(place, longest),
            StepMemory(self.slots, place, longest),
            self.slots.text_view(rows, text_tokens),
            self._text_mask(state.text_tokens[:rows], text_tokens),
        )[:, 0]
        state.filled[:rows] += 1
        self.steps += 1
        self._draw(hidden, slice(0, rows))

    def retire(self) -> list[tuple[int, SpokenRow]]:
        """Take out the rows that ended and return their numbers with what they said."""
        ended = self._state.ended[: len(self._live)].tolist()
        leaving = [slot for slot, end in enumerate(ended) if end]
        return [self._leave(slot) for slot in reversed(leaving)][::-1]

    def cancel(self, number: int) -> SpokenRow | None:
        """Take out a row whatever it still had to say; None if it is not here any more."""
        for slot, live in enumerate(self._live):
            if live.number == number:
                if not self._state.ended[slot]:
                    self._state.reason[slot] = _CANCELLED
                return self._leave(slot)[1]
        return None

    def speak(self, rows: Sequence[Row]) -> list[SpokenRow]:
        """Speak all rows, as many at a time as there are slots, and return what they said in their order."""
        assert not self._live, "speak needs an idle decoder"
        waiting = list(enumerate(rows))
        places: dict[int, int] = {}
        spoken: dict[int, SpokenRow] = {}
        while waiting or self._live:
            entering, waiting = waiting[: self.free_slots], waiting[self.free_slots :]
            numbers = self.admit([row for _, row in entering])
            places.update(zip(numbers, (place for place, _ in entering), strict=True))
            for number, row in self.retire():
                spoken[places[number]] = row
            if self._live:
                self.step()
        return [spoken[place] for place in range(len(rows))]

    def _prefill(self, rows: Sequence[Row], slots: Tensor) -> Tensor:
        """Read the texts, take in start code and prompt, fill the slots; return the last hidden states [B, H].

        Rows that share their text share an encoder row; those that share prompt and target too share a prefill row.
        """
        texts = list(dict.fromkeys(row.text_ids for row in rows))
        starts = list(dict.fromkeys(_start(row) for row in rows))
        device = self.network.device
        text_ids, text_lengths = _padded(texts, device)  # [texts, T]
        memory = self.network.encoder(text_ids, text_lengths)
        text = self.network.decoder.memorise(memory, text_lengths)  # [L, texts, …]
        of_text = torch.tensor([texts.index(start[0]) for start in starts], device=device)
        start_text = CrossMemory(text.keys[:, of_text], text.values[:, of_text])

        shift = self.config.code_shift
        inputs = [(self.config.start_code, *(code + shift for code in prompt)) for _, prompt, _ in starts]
        codes, lengths = _padded(inputs, device)  # [starts, P + 1]
        totals = torch.tensor([total for _, _, total in starts], device=device)
        prefill = PrefillMemory()
        hidden = self.network.decoder(
            codes,
            prefill_positions(self.config, codes.shape[1], totals),
            self._prefill_masks(codes.shape[1]),
            prefill,
            start_text,
            self._text_mask(text_lengths[of_text], text_ids.shape[1]),
        )
        of_start = torch.tensor([starts.index(_start(row)) for row in rows], device=device)
        keys, values = prefill.stacked()
        self.slots.write_prefill(slots, keys[:, of_start], values[:, of_start])
        of_row = of_text[of_start]
        self.slots.write_text(slots, CrossMemory(text.keys[:, of_row], text.values[:, of_row]))
        last: Tensor = hidden[torch.arange(len(starts), device=device), lengths - 1]
        return last[of_start]

    def _draw(self, hidden: Tensor, rows: slice) -> None:
        """Draw a code for each row of the slice from its hidden state [B, H] and note which rows end with it."""
        state = self._state
        end_code = self.config.end_code
        logits = self.network.head(hidden).float()  # [B, V]; float32 sums of probabilities also in bf16 models
        too_early = state.steps[rows] < self.config.earliest_end_frame
        logits[:, end_code] = logits[:, end_code].masked_fill(too_early, TOO_EARLY_LOGIT)
        live = self._live[rows]
        candidates = max(row.candidates for row in live)
        drawn = draw(logits, state.options.rows(rows), uniform(state.keys[rows], state.steps[rows]), candidates)
        # The row also ends where the end code is the likeliest, whatever was drawn.
        stops = (drawn.ids == end_code) | (drawn.best == end_code)
        state.record(rows, drawn.ids, stops)
        for row in live:
            row.steps += 1
        self.row_steps += len(live)

    def _leave(self, slot: int) -> tuple[int, SpokenRow]:
        """Free a slot: the last row moves into it."""
        live, state = self._live[slot], self._state
        reason = _REASONS[int(state.reason[slot])]
        # The draw that ended the row is not speech; a cancelled row's last draw is.
        length = live.steps - (reason is not FinishReason.CANCELLED)
        shift = self.config.code_shift
        ids = tuple(code - shift for code in state.codes[slot, :length].tolist())
        last = len(self._live) - 1
        if slot != last:
            moving = self._live[last]
            self.slots.move(last, slot, moving.filled_frames, len(moving.row.text_ids))
            state.move(last, slot)
            self._live[slot] = moving
        self._live.pop()
        return live.number, SpokenRow(ids, reason, self.config.audio_vocab_size)

    def _step_masks(self, place: Tensor, longest: int) -> Masks:
        """A row sees its own frames up to the new one; a sliding layer only the last `window` of them."""
        index = torch.arange(longest, device=place.device)
        visible = (index <= place[:, None])[:, None, None, :]  # [B, 1, 1, F]
        masks: dict[int | None, Tensor | None] = {}
        for window in set(self.config.decoder.windows):
            seen = visible
            if window is not None and window < longest:
                seen = visible & (index > place[:, None] - window)[:, None, None, :]
            masks[window] = additive(seen, self.network.dtype)
        return masks

    def _prefill_masks(self, length: int) -> Masks:
        """Causal, so the padding on the right is seen by nothing but padding."""
        index = torch.arange(length, device=self.network.device)
        ahead = index[:, None] - index  # [S, S] how far the key lies behind the query
        return {
            window: additive((ahead >= 0) & (ahead < (window or length)), self.network.dtype)[None, None]
            for window in set(self.config.decoder.windows)
        }

    def _text_mask(self, lengths: Tensor, tokens: int) -> Tensor:
        """The padding of a text is visible to nobody: additive mask [B, 1, 1, T]."""
        visible = torch.arange(tokens, device=lengths.device) < lengths[:, None]
        return additive(visible[:, None, None, :], self.network.dtype)


_REASONS = (FinishReason.STOP, FinishReason.LENGTH, FinishReason.CANCELLED)
_STOP, _LENGTH, _CANCELLED = range(3)


@dataclass
class _State:
    """The device's side of all slots: one entry a slot."""

    filled: Tensor  # [R] int64 decoder positions in the slot
    total_frames: Tensor  # [R] int64 denominator of progress, plus one
    text_tokens: Tensor  # [R] int64
    steps: Tensor  # [R] int64 codes drawn
    last_step: Tensor  # [R] int64 the step after which the budget is used up
    last_code: Tensor  # [R] int64 id to be fed next
    codes: Tensor  # [R, F] int64 all drawn ids
    keys: Tensor  # [R] int64 of the noise
    ended: Tensor  # [R] bool
    reason: Tensor  # [R] int64 index into _REASONS
    options: Options

    @classmethod
    def empty(cls, slots: int, frames: int, vocab_size: int, device: torch.device) -> _State:
        def integers(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        options = Options.of([Row((), 0).sampling] * slots, vocab_size, device)
        return cls(
            filled=integers(slots),
            total_frames=integers(slots),
            text_tokens=integers(slots),
            steps=integers(slots),
            last_step=integers(slots),
            last_code=integers(slots),
            codes=integers(slots, frames),
            keys=integers(slots),
            ended=torch.zeros(slots, dtype=torch.bool, device=device),
            reason=integers(slots),
            options=options,
        )

    def enter(self, slots: Tensor, rows: Sequence[Row], decoder: BatchDecoder) -> None:
        """Fill the entries of new rows."""
        config, device = decoder.config, slots.device

        def column(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device)

        self.filled[slots] = column([row.prompt_frames + 1 for row in rows])
        self.total_frames[slots] = column([row.total_frames() for row in rows])
        self.text_tokens[slots] = column([len(row.text_ids) for row in rows])
        self.last_step[slots] = column([row.last_step(config) for row in rows])
        self.keys[slots] = column([row_key(row.seed, row.segment_index) for row in rows])
        self.steps[slots] = 0
        self.ended[slots] = False
        new = Options.of([row.sampling for row in rows], config.code_vocab_size, device)
        for mine, theirs in zip(self.options, new, strict=True):
            mine[slots] = theirs

    def record(self, rows: slice, drawn: Tensor, stops: Tensor) -> None:
        """Note the drawn ids [B] of the slice and which of its rows end, by themselves or by their budget."""
        steps = self.steps[rows]
        over = steps > self.last_step[rows]
        self.codes[rows].scatter_(1, steps[:, None], drawn[:, None])
        self.reason[rows] = torch.where(stops, _STOP, _LENGTH)
        self.ended[rows] = stops | over
        self.last_code[rows] = drawn
        self.steps[rows] += 1

    def move(self, source: int, target: int) -> None:
        for column in (
            self.filled,
            self.total_frames,
            self.text_tokens,
            self.steps,
            self.last_step,
            self.last_code,
            self.codes,
            self.keys,
            self.ended,
            self.reason,
            *self.options,
        ):
            column[target] = column[source]


def _start(row: Row) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Return what a row's prefill depends on."""
    return row.text_ids, row.prompt_codes, row.total_frames()


def _padded(sequences: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the sequences padded with 0 on the right, [B, longest], and their lengths [B]."""
    longest = max(map(len, sequences))
    padded = [[*sequence, *[0] * (longest - len(sequence))] for sequence in sequences]
    lengths = [len(sequence) for sequence in sequences]
    return torch.tensor(padded, device=device), torch.tensor(lengths, device=device)
