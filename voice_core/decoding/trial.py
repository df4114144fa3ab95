"""Whether a fused step can be trusted here: before it speaks, it computes a step that torch computes too.

Kernels are compiled for the GPU and by the Triton that are there; neither needs to be one that anybody has tried. What
can't be compiled, started or believed is left to torch, and the log says so: speech is slower then, but right.

Trained weights may carry a rounding through all layers until it is large (T5Gemma's encoder in bfloat16 has been seen
0.1 of its norm away from itself in float32, with every layer right by itself). So the first layers are held to what one
of them rounds, and what comes after all of them may be as far from torch as torch is from itself with fewer rows.

Letters: B rows, L layers, K heads, D head dimensions, V ids of the speaker.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from voice_core.decoding.fused import FusedStep
from voice_core.decoding.graphs import Shape
from voice_core.decoding.noise import uniform
from voice_core.decoding.plain import PlainStep
from voice_core.decoding.sampling import Demand, draw
from voice_core.decoding.slots import Slots
from voice_core.decoding.state import RowState

logger = logging.getLogger(__name__)

ROWS = (4, 32, 64, 128)  # with memories of different lengths; kernels are others for more rows
# Of what both compute, in norms; hidden states of the full model's 26 layers in bfloat16 were 0.018 apart on an H200.
MOST_APART = 0.05
FIRST_LAYERS = 2  # the second one's keys and values are the first that all kernels of a layer have a part in
OWN_NOISE = 3.0  # times as far apart as torch is from itself may the last layers be,
MOST_APART_AT_ALL = 0.5  # and no further: what is computed wrong is about as far as what isn't computed


@torch.inference_mode()
def works(fused: FusedStep, slots: Slots, state: RowState, plain: PlainStep) -> bool:
    """Tell if the fused step thinks and draws as torch does; slots and state must be empty, and are so afterwards."""
    try:
        faults: list[str] = []
        for rows in sorted({min(rows, slots.slots) for rows in ROWS}):
            with _company(slots, state, rows) as shape:
                faults += _faults(fused, slots, state, plain, shape)
    except Exception as error:  # of a compiler, a driver, a limit of the GPU: whichever it is, torch goes on
        faults = [repr(error)]
    for fault in faults:
        logger.warning(
            "Decode steps are computed by torch, which takes longer, because the kernels weren't trusted: %s", fault
        )
    return not faults


def _faults(fused: FusedStep, slots: Slots, state: RowState, plain: PlainStep, shape: Shape) -> Iterator[str]:
    """Compare both computations of a step; what one leaves behind is spoilt before the other."""
    rows = slice(0, shape.rows)
    place = torch.arange(shape.rows, device=state.filled.device)
    new: Any = (slice(None), place, slice(None), state.filled[rows])  # frames [B, L, K, D] of memory [L, R, K, F, D]
    results: tuple[tuple[str, Tensor, Any], ...] = (
        ("keys", slots.keys, new),
        ("values", slots.values, new),
        ("hidden states", state.hidden, rows),
    )
    plain.think(shape)
    expected = [kept[at].float().clone() for _, kept, at in results]
    most = [MOST_APART] * len(results)
    for few in {1, shape.rows // 2} - {0, shape.rows}:
        plain.think(shape._replace(rows=few))
        noise = [
            _distance(kept[at][:few].float(), whole[:few])
            for (_, kept, at), whole in zip(results, expected, strict=True)
        ]
        most = [min(max(one, OWN_NOISE * own), MOST_APART_AT_ALL) for one, own in zip(most, noise, strict=True)]
    for _, kept, at in results:
        kept[at] = torch.nan
    fused.think(shape)
    for (name, kept, at), theirs, allowed in zip(results, expected, most, strict=True):
        ours = kept[at].float()
        if name != "hidden states":
            yield from _apart(f"first layers' {name}", ours[:, :FIRST_LAYERS], theirs[:, :FIRST_LAYERS])
        yield from _apart(name, ours, theirs, allowed)
    state.hidden[rows] = expected[-1].to(state.hidden.dtype)
    logits = fused.logits(rows)  # [B, V]
    possible = torch.arange(logits.shape[1], device=logits.device) != plain.end_code  # it is too early for an end
    yield from _apart("logits", logits[:, possible], plain.logits(rows)[:, possible])
    for demand in fused.demands:
        state.last_code[rows] = -1
        everything = Demand(logits.shape[1], min_p=False, search_ties=False)
        drawn = draw(logits, state.options.rows(rows), uniform(state.keys[rows], state.steps[rows]), everything)
        fused.pick(rows, demand)
        if not torch.equal(drawn.ids, state.last_code[rows]):
            yield f"of {demand.candidates} candidates others are drawn"


def _apart(name: str, ours: Tensor, theirs: Tensor, most: float = MOST_APART) -> Iterator[str]:
    apart = _distance(ours, theirs)
    if not apart < most:
        yield f"{len(ours)} rows' {name} are {apart:.3f} of their norm apart, at most {most:.3f} may be"


def _distance(ours: Tensor, theirs: Tensor) -> float:
    """Return how far they are apart, as a share of the norm."""
    return float((ours - theirs).norm() / theirs.norm())


@contextmanager
def _company(slots: Slots, state: RowState, rows: int) -> Iterator[Shape]:
    """Put rows into the first slots that are in the middle of their speech, and take them out again."""
    generator = torch.Generator(state.hidden.device).manual_seed(0)
    before = [(column, column.clone()) for column in state.columns]
    try:
        for memory in (slots.keys, slots.values, *slots.text):
            memory[:, :rows].normal_(generator=generator)
        place = torch.arange(rows, device=state.filled.device)
        state.filled[:rows] = (slots.frames - 1) // (place + 1)
        state.total_frames[:rows] = slots.frames
        state.text_tokens[:rows] = (slots.tokens // (place + 1)).clamp(min=1)  # no row is without text
        state.last_code[:rows] = place
        state.keys[:rows] = place
        yield Shape(rows, slots.frames, slots.tokens)
    finally:
        for column, content in before:
            column.copy_(content)
        for slot in range(rows):
            slots.clear(slot)
