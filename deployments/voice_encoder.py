"""The deployment that learns voices: reads recordings and turns them into the codec's codes, away from the decoder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import ray
from ray import serve

from deployments import logs
from deployments.settings import Settings
from voice_core.speech import LearnedReference
from voice_core.upkeep import keep_memory_low

if TYPE_CHECKING:  # torch comes with it, and a replica pays for that only when it is first asked
    from voice_core.voices.learning import Learner

Result = TypeVar("Result")


@serve.deployment(max_ongoing_requests=8, graceful_shutdown_timeout_s=60, graceful_shutdown_wait_loop_s=0.2)
class VoiceEncoder:
    """Learns recordings one at a time; who asks for the same one meanwhile finds it known.

    It computes on a GPU if its `ray_actor_options` give it one, else on a CPU.
    """

    def __init__(self, settings: Settings) -> None:
        logs.set_up(texts=settings.log_texts)
        keep_memory_low()
        self._settings = settings
        self._learner: Learner | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")

    async def learn(self, file: bytes, field: str) -> LearnedReference:
        """Return what is to be known of the recording in `file`, which came in the request's `field`."""
        return await self._ask(lambda learner: learner.learn(file, field=field))

    async def encoded(self) -> int:
        """Return how many recordings went through the encoder; those known already didn't."""
        return await self._ask(lambda learner: learner.encoded)

    async def forget(self, recording_hash: str) -> None:
        """Keep nothing of a recording; waits for no other that is being learned."""
        if self._learner is not None:
            self._learner.forget(recording_hash)

    async def _ask(self, question: Callable[[Learner], Result]) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: question(self._loaded()))

    def _loaded(self) -> Learner:
        if self._learner is None:
            from voice_core.synthesizer import codec_directory
            from voice_core.voices.learning import Learner

            device = "cuda" if ray.get_gpu_ids() else "cpu"
            directory = codec_directory(self._settings.model, self._settings.codec)
            self._learner = Learner(directory, self._settings.reference_limits, device)
        return self._learner
