"""The deployment that owns a decoder: gathers the segments of all requests and speaks them together."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray import serve

from deployments import logs, metrics, traces
from deployments.logs import tell
from deployments.settings import Admission, Settings
from deployments.workload import Workload
from voice_core.speech import ModelFacts, Segment, Speech
from voice_core.upkeep import keep_memory_low

if TYPE_CHECKING:  # torch comes with it, and only a replica may pay for that
    from voice_core.decoding.engine import EngineCounters
    from voice_core.synthesizer import SpeechTicket
    from voice_core.synthesizer import Synthesizer as Decoder

logger = logging.getLogger("ray.serve")

# The decoder's thread gives Python's lock away several times a step (hundreds of times where steps aren't traced) and
# must get it back each time. Whoever is busy with Python code meanwhile (the event loop, mostly) may keep it so long;
# before steps were traced, Python's default of 5 ms made a step of 5 ms take 29, this one 13.
SWITCH_SECONDS = 0.0005


GRACE_SECONDS = 1.0  # so that it's the ingress that tells the client

FIGURES_SECONDS = 1.0  # between two tellings of what the decoder does


@dataclass
class Arrival:
    """A segment at the door, and its ticket once the decoder has taken it."""

    segment: Segment
    ticket: SpeechTicket | None = None


def load_decoder(settings: Settings) -> Decoder:
    """Load what speaks, as the settings say."""
    from voice_core.synthesizer import Synthesizer as Decoder

    return Decoder.load(
        settings.model,
        codec=settings.codec,
        device=settings.device,
        precision=settings.precision,
        max_rows=settings.max_rows,
        longest_segment_seconds=settings.longest_segment_seconds,
        longest_reference_seconds=settings.longest_reference_seconds,
        in_flight=settings.in_flight,
        largest_share=settings.largest_share,
        deterministic=settings.deterministic,
        cuda_graphs=settings.cuda_graphs == "auto",
    )


def watch(decoder: Decoder) -> None:
    """Tell now and then what the decoder does, while it does something; where it breaks down, leave the process.

    Serve would ask such a replica three times for its health before it gave it up, and meanwhile calls would come to
    where the queue is shortest. That a process is gone is known at once, and its calls are made again.
    """
    slots = decoder.facts.max_rows
    before = decoder.counters
    while decoder.alive:
        time.sleep(FIGURES_SECONDS)
        now = decoder.counters
        steps, frames = now.steps - before.steps, now.row_steps - before.row_steps
        metrics.count("voice_decoder_steps_total", steps)
        metrics.count("voice_decoder_frames_total", frames)
        metrics.observe("voice_row_occupancy", frames / (steps * slots) if steps else 0.0)
        metrics.observe("voice_rows_active", now.rows_active)
        metrics.observe("voice_rows_waiting", now.rows_waiting)
        before = now
    if decoder.failure is not None:  # not if it was closed
        logger.critical("The process ends, because %s", decoder.failure)
        os._exit(1)  # an exception would end this thread only


@serve.deployment(
    max_ongoing_requests=160,  # segments; more than rows, so that the decoder has something to share out fairly
    user_config=Admission().model_dump(),
    health_check_period_s=2,  # /readyz believes the controller while a replica is too busy to be asked
    health_check_timeout_s=30,
    graceful_shutdown_timeout_s=120,  # a drained replica finishes what it speaks
    graceful_shutdown_wait_loop_s=0.2,
    max_constructor_retry_count=3,
)
class Synthesizer:
    """Speaks segments: one arrives, waits for the others of its moment, and comes back as speech."""

    def __init__(self, settings: Settings) -> None:
        import torch

        logs.set_up(texts=settings.log_texts)
        keep_memory_low()

        if settings.device == "cpu":
            torch.set_num_threads(settings.cpu_threads)
        sys.setswitchinterval(SWITCH_SECONDS)
        self._decoder = load_decoder(settings)
        self._workload = Workload(self._decoder.facts)
        logger.info("Speaks with %s", self._decoder.facts)
        metrics.use(metrics.RayMeter())
        traces.set_up(settings.traces, "Synthesizer")
        threading.Thread(target=watch, args=(self._decoder,), name="figures", daemon=True).start()

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        admission = Admission.model_validate(user_config)
        door: Any = self._admit  # the batch decorator's setters have no types
        door.set_max_batch_size(admission.segments)
        door.set_batch_wait_timeout_s(admission.window_seconds)

    async def speak(
        self, segment: Segment, seconds_left: float = math.inf, traceparent: str | None = None
    ) -> list[Speech]:
        """Return one speech for every seed of the segment.

        After `seconds_left` nobody waits for it, and its rows go: also those of an ingress that has died meanwhile.
        """
        arrival = Arrival(segment)
        began = time.monotonic()
        try:
            limit_seconds = None if seconds_left == math.inf else seconds_left + GRACE_SECONDS
            with self._workload.take(segment), traces.span("segment", traceparent, index=segment.index):
                async with asyncio.timeout(limit_seconds):
                    ticket = await self._admit(arrival)
                    speeches = await asyncio.wrap_future(ticket.future)
                traces.phases(ticket.phases)
        except (asyncio.CancelledError, TimeoutError):
            if arrival.ticket is not None:
                arrival.ticket.cancel()
            raise
        tell(
            "spoke a segment",
            logging.DEBUG,
            visit=segment.request,
            segment=segment.index,
            rows=len(segment.seeds),
            seconds=round(time.monotonic() - began, 4),
            audio_seconds=round(sum(speech.seconds for speech in speeches), 3),
            finish_reasons=[str(speech.finish_reason) for speech in speeches],
            **{f"{phase}_seconds": round(end - start, 4) for phase, (start, end) in ticket.phases.items()},
        )
        return speeches

    @serve.batch
    async def _admit(self, arrivals: list[Arrival]) -> list[SpeechTicket]:
        """Hand the segments of one moment to the decoder together.

        It returns tickets, not speech: so no batch waits for the one before it, no segment waits for a longer
        neighbour, and neither failure nor cancellation of one segment can reach the others of its batch.
        """
        tickets = self._decoder.submit([arrival.segment for arrival in arrivals])
        for arrival, ticket in zip(arrivals, tickets, strict=True):
            arrival.ticket = ticket
        return tickets

    async def facts(self) -> ModelFacts:
        self.check_health()
        return self._decoder.facts

    async def counters(self) -> EngineCounters:
        return self._decoder.counters

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Serve's controller what deployments.autoscaling decides on.

        On the event loop, which alone changes the workload: Serve would run a plain function in a thread.
        """
        return self._workload.report(self._decoder.counters)

    def check_health(self) -> None:
        """Serve replaces a replica whose decoder can't speak any more, if its process has not left by itself."""
        if not self._decoder.alive:
            raise RuntimeError(self._decoder.failure or "the decoder's thread has ended")
