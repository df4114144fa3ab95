"""Speaks many rows at once: admit, step, retire over slots.

Letters: B rows of a step, R slots, V ids of the speaker.

    decoder = BatchDecoder(network, max_rows=16, max_frames=2600, max_tokens=512)
    decoder.admit(rows)          # one encoder pass over the distinct texts, one prefill of the prompts
    while decoder.live_rows:
        decoder.step()           # one more code for every row
        for number, spoken in decoder.retire(): …

The rules of decoding (start code, progress positions, earliest end, budget, argmax-end) are the reference's batch form.
What a row says depends on the row alone: neither its neighbours nor the order of admission enter its noise.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

import torch

from voice_core.decoding import trial
from voice_core.decoding.fused import fused_step
from voice_core.decoding.graphs import Computation, Recorder, Recordings, Shape, shapes_up_to
from voice_core.decoding.plain import PlainStep
from voice_core.decoding.prefill import Prefilled, prefill
from voice_core.decoding.rows import Row, SpokenRow
from voice_core.decoding.sampling import Demand
from voice_core.decoding.slots import Slots
from voice_core.decoding.state import REASONS, RowState
from voice_core.decoding.traced import Length, traced_step
from voice_core.errors import RequestError, SynthesisError
from voice_core.model.network import Network

logger = logging.getLogger(__name__)

# On a GPU the host looks only so often which rows ended: asking makes it wait for the step.
GPU_STEPS_BETWEEN_LOOKS = 4

# With `deterministic` attention reads up to a multiple of this, so that a CPU splits its sums alike at every length. A
# GPU splits them by the length, so there it reads everything; its kernels for masks want multiples, too.
ATTENTION_BLOCK = 64

# What recorded draws give room to: any top_k up to 112, and everything else. See Demand.
RECORDED_CANDIDATES = 128

Outcome = SpokenRow | SynthesisError


@dataclass(frozen=True)
class _Live:
    """The host's side of a row in a slot."""

    number: int  # given out at admission
    row: Row
    entered_at: int  # the decoder's step count then

    def filled_frames(self, steps: int) -> int:
        """Return the decoder positions in the slot: start code, prompt and all drawn codes but the last."""
        return self.row.prefilled_frames + steps - self.entered_at


@dataclass(frozen=True)
class _Crowd:
    """What a step must know of its rows together; changes only when a row comes or goes."""

    lead_frames: int  # filled positions of the longest row, less the decoder's step count
    text_tokens: int  # of the longest text
    demand: Demand

    @classmethod
    def of(cls, live: Sequence[_Live], vocab_size: int, *, search_ties: bool) -> _Crowd:
        return cls(
            max((row.filled_frames(0) for row in live), default=0),
            max((len(row.row.text_ids) for row in live), default=1),
            Demand.of([row.row.sampling for row in live], vocab_size, search_ties=search_ties),
        )

    def needs(self, rows: int, steps: int) -> Shape:
        """Return what the decoder's step after so many steps has to compute for so many rows."""
        return Shape(rows, self.lead_frames + steps + 1, self.text_tokens)


class BatchDecoder:
    """Slots, and the three verbs over them; not thread-safe, one thread owns it."""

    def __init__(
        self,
        network: Network,
        *,
        max_rows: int,
        max_frames: int,
        max_tokens: int,
        deterministic: bool = False,
        recorder: Recorder | None = None,
        traced: bool = True,
    ) -> None:
        """Reserve memory for `max_rows` rows of `max_frames` decoder positions and `max_tokens` text tokens.

        With `deterministic` every step computes all slots and every text is read alone: a row's codes then are the
        same to the bit whatever else is in flight, at the price of all slots in every step. With a `recorder` the
        steps are recorded here and played back from then on; nothing else may use the device meanwhile. Else
        they are `traced`, and run without Python, where that can be: on a CPU, in float32.
        """
        self.network = network
        self.config = network.config
        self.deterministic = deterministic
        self._on_gpu = network.device.type == "cuda"
        if self._on_gpu:
            # cuDNN's attention compiles a plan for every new length, and nearly every admission has one.
            torch.backends.cuda.enable_cudnn_sdp(False)
        self.steps_between_looks = GPU_STEPS_BETWEEN_LOOKS if self._on_gpu else 1
        self.max_frames = max_frames
        # A row that ended goes on until somebody looks.
        frames = max_frames + self.steps_between_looks
        if deterministic or self._on_gpu:
            frames, max_tokens = _rounded_up(frames), _rounded_up(max_tokens)
        self.slots = Slots(self.config.decoder, max_rows, frames, max_tokens, network.device, network.dtype)
        self.steps = 0  # decoder steps so far
        self.row_steps = 0  # codes drawn so far
        self._thought = False  # in a step whose draw failed: the rows' hidden states are those that it draws from
        self._numbers = count()
        self._live: list[_Live] = []  # slot by slot
        self._state = RowState(max_rows, frames, self.config, network.device, network.dtype)
        self._plain = PlainStep(network, self.slots, self._state)
        self._fused = fused_step(network, self.slots, self._state)
        if self._fused is not None and not trial.works(self._fused, self.slots, self._state, self._plain):
            self._fused = None
        self._traced = traced_step(network, self.slots, self._state) if traced and recorder is None else None
        self._look_around()
        self._recordings = Recordings()
        self._prepared_shapes: list[Shape] = []
        self._prepared_demands: list[Demand] = []
        if recorder is not None or self._fused is not None:
            self._prepare(recorder)

    @torch.inference_mode()
    def _prepare(self, recorder: Recorder | None) -> None:
        """Record both halves of a step apart: for each shape the one, for each row count and demand the other.

        Without a recorder, or where it fails, kernels are compiled at least, before anybody waits for them.
        """
        vocab_size = self.config.code_vocab_size
        most = Shape(self.slots.slots, self.slots.frames, self.slots.tokens)
        shapes = [most] if self.deterministic else shapes_up_to(most)
        if self._fused is not None:
            shapes = self._fused.shapes(shapes)
            few = self._fused.demands
        else:
            few = [Demand(min(RECORDED_CANDIDATES, vocab_size), min_p=False, search_ties=False)]
        demands = [*few, Demand(vocab_size, min_p=True, search_ties=False)]
        parts: dict[Hashable, Computation] = {shape: partial(self._think, shape) for shape in shapes}
        for rows in dict.fromkeys(shape.rows for shape in shapes):
            parts |= {(rows, demand): partial(self._draw, slice(0, rows), demand) for demand in demands}
        if recorder is not None:
            self._recordings.record(parts, recorder)
        if not self.recorded and self._fused is not None and not _all_run(parts.values()):
            self._fused = None
        if self.recorded or self._fused is not None:
            self._prepared_shapes, self._prepared_demands = shapes, demands

    def _look_around(self) -> None:
        """Note what changes when a row comes or goes."""
        self._crowd = _Crowd.of(self._live, self.config.code_vocab_size, search_ties=not self._on_gpu)
        if self._traced is not None:
            # With `deterministic` all rows read as far.
            apart = [] if self.deterministic else self._live
            self._traced.look_around([Length(live.filled_frames(0), len(live.row.text_ids)) for live in apart])

    @property
    def recorded(self) -> bool:
        """Whether steps are played back."""
        return len(self._recordings) > 0

    @property
    def fused(self) -> bool:
        """Whether steps are computed by a GPU's own kernels."""
        return self._fused is not None

    @property
    def traced(self) -> bool:
        """Whether steps run without Python."""
        return self._traced is not None

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
        if max(row.text_ids) >= self.config.text_vocab_size:
            reason = f"the tokenizer gives id {max(row.text_ids)}, the model knows {self.config.text_vocab_size}"
            raise SynthesisError(f"tokenizer and model don't belong together: {reason}")
        if len(row.text_ids) > self.slots.tokens:
            tokens = f"{len(row.text_ids)} tokens with its voice prompt"
            raise RequestError("input", f"a segment has {tokens}, at most {self.slots.tokens} fit")
        if (frames := row.capacity_frames(self.config)) > self.max_frames:
            raise RequestError("seconds", f"a row needs {frames} frames, at most {self.max_frames} fit")

    def admit(self, rows: Sequence[Row]) -> list[int]:
        """Give each row a slot; return the numbers that `retire` will use for them.

        Raises RequestError for a row that can't fit; then no row of the call was admitted.
        """
        admission = self.admission(rows)
        while True:
            try:
                next(admission)
            except StopIteration as end:
                numbers: list[int] = end.value
                return numbers

    @torch.inference_mode()
    def admission(self, rows: Sequence[Row]) -> Generator[None, None, list[int]]:
        """Admit in small pieces: whoever runs it may step and retire between them, but not admit others."""
        for row in rows:
            self.check(row)
        reading = None if self._traced is None else self._traced.reading
        prefilled = yield from prefill(self.network, rows, apart=self.deterministic, reading=reading)
        assert len(rows) <= self.free_slots, "more rows than free slots"
        entering = [_Live(next(self._numbers), row, self.steps) for row in rows]
        try:
            self._enter(entering, prefilled)
        except BaseException:  # no memory for the first draw, say: those who speak already must not notice
            numbers = {live.number for live in entering}
            for slot in reversed([slot for slot, live in enumerate(self._live) if live.number in numbers]):
                self._vacate(slot)
            self._look_around()
            raise
        return [live.number for live in entering]

    def _enter(self, entering: Sequence[_Live], prefilled: Sequence[Prefilled]) -> None:
        """Fill slots, and draw the first codes of those who have heard a prompt."""
        assert not (self._live and self._thought), "a step that failed is tried again before others enter"
        self._thought = False
        self._live, before = self._in_order([*self._live, *entering]), self._live
        slots = {live.number: slot for slot, live in enumerate(self._live)}
        for slot, live in reversed([*enumerate(before)]):  # whoever makes room goes up
            if slots[live.number] != slot:
                self._move(live, slot, slots[live.number])
        for live, brought in zip(entering, prefilled, strict=True):
            slot = slots[live.number]
            self.slots.fill(slot, brought)
            if brought.heard is not None:
                self._state.hidden[slot] = brought.heard.hidden
        for run in _runs(sorted(slots[live.number] for live in entering), longest=len(entering)):
            self._state.enter(run.start, [live.row for live in self._live[run]])
        self._look_around()
        drawing = sorted(slots[live.number] for live in entering if live.row.prefilled_frames)
        for run in _runs(drawing, longest=1 if self.deterministic else len(entering)):
            self._draw(run, self._demand())
        self.row_steps += len(drawing)

    def _in_order(self, live: list[_Live]) -> list[_Live]:
        """Return who stands in which slot: whoever has more frames first, where steps gain from it."""
        if self._traced is None:
            return live
        return sorted(live, key=lambda row: -row.filled_frames(0))

    @torch.inference_mode()
    def step(self) -> None:
        """Draw one more code for every live row.

        A step that failed for want of memory may be tried again once some rows were cancelled, before others enter.
        """
        shape, demand = self._shape(), self._demand()
        if not self._thought:
            self._recordings.play(shape, partial(self._think, shape))
            self._thought = True
        self._recordings.play((shape.rows, demand), partial(self._draw, slice(0, shape.rows), demand))
        self._thought = False
        self.steps += 1
        self.row_steps += len(self._live)

    def _shape(self) -> Shape:
        """Return what the next step computes: what the rows need, or more where shapes are fixed."""
        needed = self._crowd.needs(len(self._live), self.steps)
        if self._prepared_shapes:
            return next(shape for shape in self._prepared_shapes if shape.holds(needed))
        if not self.deterministic:
            return needed
        if self._on_gpu:
            return Shape(self.slots.slots, self.slots.frames, self.slots.tokens)
        return Shape(self.slots.slots, _rounded_up(needed.frames), _rounded_up(needed.text_tokens))

    def _demand(self) -> Demand:
        needed = self._crowd.demand
        if self.deterministic and self._on_gpu:
            # Its sums of probabilities round by how many candidates there are: what the neighbours ask must not matter.
            vocab_size = self.config.code_vocab_size
            needed = Demand(vocab_size, min_p=True, search_ties=False)
        return next((demand for demand in self._prepared_demands if demand.holds(needed)), needed)

    def _think(self, shape: Shape) -> None:
        """Take the last codes in; the hidden states that the next ones are drawn from go to the rows' state."""
        (self._fused or self._traced or self._plain).think(shape)

    def _draw(self, rows: slice, demand: Demand) -> None:
        """Draw a code from the hidden state of each of the rows and note which of them end with it."""
        drawn = any(step.draw(rows, demand) for step in (self._fused, self._traced) if step is not None)
        if not drawn:
            self._plain.draw(rows, demand)

    def retire(self) -> list[tuple[int, Outcome]]:
        """Take out the rows that ended and return their numbers with what they said.

        On a GPU it looks only every few steps; a row that ended in between has said nothing more.
        """
        if not self._live or self.steps % self.steps_between_looks:
            return []
        ended = self._state.ended[: len(self._live)].tolist()
        leaving = [slot for slot, end in enumerate(ended) if end]
        return [self._leave(slot) for slot in reversed(leaving)][::-1]

    def cancel(self, number: int) -> Outcome | None:
        """Take out a row whatever it still had to say; None if it is not here any more."""
        for slot, live in enumerate(self._live):
            if live.number == number:
                self._state.cancel(slot)
                return self._leave(slot)[1]
        return None

    def speak(self, rows: Sequence[Row]) -> list[SpokenRow]:
        """Speak all rows, as many at a time as there are slots, and return what they said in their order.

        Raises the SynthesisError of a row that failed.
        """
        assert not self._live, "speak needs an idle decoder"
        waiting = list(enumerate(rows))
        places: dict[int, int] = {}
        spoken: dict[int, SpokenRow] = {}
        while waiting or self._live:
            entering, waiting = waiting[: self.free_slots], waiting[self.free_slots :]
            if entering:
                numbers = self.admit([row for _, row in entering])
                places.update(zip(numbers, (place for place, _ in entering), strict=True))
            for number, outcome in self.retire():
                if isinstance(outcome, SynthesisError):
                    raise outcome
                spoken[places[number]] = outcome
            if self._live:
                self.step()
        return [spoken[place] for place in range(len(rows))]

    def _leave(self, slot: int) -> tuple[int, Outcome]:
        """Take a row out of its slot."""
        live, outcome = self._live[slot], self._outcome(slot)
        self._vacate(slot)
        self._look_around()
        return live.number, outcome

    def _vacate(self, slot: int) -> None:
        """Close the gap: the last row moves into the slot or, where they stand in order, all behind it move down."""
        self.slots.clear(slot, *self._lengths(self._live[slot]))
        last, ordered = len(self._live) - 1, self._traced is not None
        moving = range(slot + 1, last + 1)
        for source in moving if ordered else moving[-1:]:
            target = source - 1 if ordered else slot
            self._move(self._live[source], source, target)
            self._live[target] = self._live[source]
        self._live.pop()
        self._state.vacate(last)

    def _move(self, live: _Live, source: int, target: int) -> None:
        self.slots.move(source, target, *self._lengths(live))
        self._state.move(source, target)

    def _lengths(self, live: _Live) -> Length:
        """Return how much a row may have written in its slot, the frame of a step half done included."""
        return Length(live.filled_frames(self.steps) + 1, len(live.row.text_ids))

    def _outcome(self, slot: int) -> Outcome:
        reason = REASONS[int(self._state.reason[slot])]
        if reason is None:
            return SynthesisError("the model's logits were no numbers; is its precision right for these weights?")
        # The draw that ended the row is not speech; a cancelled row's last draw is.
        length = int(self._state.length[slot])
        shift = self.config.code_shift
        ids = tuple(code - shift for code in self._state.codes[slot, :length].tolist())
        return SpokenRow(ids, reason, self.config.audio_vocab_size)


def _all_run(computations: Iterable[Computation]) -> bool:
    """Run them; if one fails, say so, and leave the others."""
    try:
        for compute in computations:
            compute()
    except Exception as error:  # of a compiler, a driver, a limit of the GPU: whichever it is, torch goes on
        reason = "Decode steps are computed by torch, which takes longer, because the kernels weren't trusted: %s"
        logger.warning(reason, error, exc_info=True)
        return False
    return True


def _rounded_up(length: int) -> int:
    return -(-length // ATTENTION_BLOCK) * ATTENTION_BLOCK


def _runs(slots: Sequence[int], longest: int) -> list[slice]:
    """Return sorted slots as stretches without a gap."""
    runs: list[slice] = []
    for slot in slots:
        if runs and runs[-1].stop == slot and slot - runs[-1].start < longest:
            runs[-1] = slice(runs[-1].start, slot + 1)
        else:
            runs.append(slice(slot, slot + 1))
    return runs
