"""A synthesizer with a switch: rows are admitted in flight, or gathered as the reference's batch functions gather."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from deployments.settings import Admission, Settings
from deployments.synthesizer import Synthesizer
from voice_core.decoding.engine import Engine, RowHandle
from voice_core.decoding.rows import SpokenRow
from voice_core.speech import Segment, Speech

INFLIGHT, GATHER, EARLY = "inflight", "gather", "early"

# The door's window where rows wait anyway: with the default of 5 ms, which suits admission in flight, a request's own
# segments may miss their pass by a moment and wait for the next; with this one none did.
GATHER_SECONDS = 0.02


class Pass:
    """Rows that were taken into an idle decoder together."""

    def __init__(self, handles: Sequence[RowHandle]) -> None:
        self._speaking = len(handles)
        self.ended: Future[None] = Future()  # done with the last of the rows
        self.ended.set_running_or_notify_cancel()  # a segment that is called off must not call off its neighbours
        for handle in handles:
            handle.future.add_done_callback(self._one_ended)

    def _one_ended(self, _: Future[SpokenRow]) -> None:
        """Count in the decoder's thread, which alone ends rows."""
        self._speaking -= 1
        if not self._speaking:
            self.ended.set_result(None)


def note_passes(engine: Engine) -> dict[tuple[str, int], Pass]:
    """Return the latest pass of each segment, by its request and its place there; the engine fills it from now on.

    Where rows aren't admitted in flight every admission is a pass. The rows are noted when they get their slots, in the
    decoder's own thread, so that the next pass can't be taken for theirs.
    """
    passes: dict[tuple[str, int], Pass] = {}
    begin_admission = engine._begin_admission

    def noted() -> bool:
        begun = begin_admission()
        if begun:
            started = Pass(engine._entering)
            passes.update({(handle.request, handle.row.segment_index): started for handle in engine._entering})
        return begun

    engine._begin_admission = noted  # type: ignore[method-assign]
    return passes


def switched() -> Any:
    """Return the synthesizer with the switch."""
    plain: Any = Synthesizer

    class Switched(plain.func_or_class):  # type: ignore[misc]
        def __init__(self, settings: Settings) -> None:
            super().__init__(settings)
            self._leave_together = False
            self._passes = note_passes(self._decoder._engine)

        async def admit(self, mode: str) -> None:
            """Admit rows so from now on; the house must be empty.

            With `early` and `gather` they wait until all that are being spoken have ended; with `gather` all segments
            leave when the last row of their pass has ended, too.
            """
            self._decoder._engine._in_flight = mode == INFLIGHT
            self._leave_together = mode == GATHER
            admission = Admission() if mode == INFLIGHT else Admission(window_seconds=GATHER_SECONDS)
            self.reconfigure(admission.model_dump())

        async def speak(self, segment: Segment, *told: Any) -> list[Speech]:
            speeches: list[Speech] = await super().speak(segment, *told)
            own_pass = self._passes.pop((segment.request, segment.index))
            if self._leave_together:
                await asyncio.wrap_future(own_pass.ended)
            return speeches

    return plain.options(func_or_class=Switched, name="Synthesizer")
