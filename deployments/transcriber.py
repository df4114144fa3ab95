"""The deployment that writes down what recordings say; there is one where the settings name a Whisper."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import ray
from ray import serve

from deployments import logs
from deployments.settings import Settings
from voice_core.upkeep import keep_memory_low

if TYPE_CHECKING:  # torch comes with it, and a replica pays for that only when it is first asked
    from voice_core.voices.transcriber import Transcriber as Whisper


@serve.deployment(max_ongoing_requests=4, graceful_shutdown_timeout_s=60, graceful_shutdown_wait_loop_s=0.2)
class Transcriber:
    """Transcribes one recording at a time, on a GPU if its `ray_actor_options` give it one."""

    def __init__(self, settings: Settings) -> None:
        logs.set_up(texts=settings.log_texts)
        keep_memory_low()
        self._settings = settings
        self._whisper: Whisper | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="whisper")

    async def transcribe(self, audio: bytes, language: str | None, field: str) -> str:
        """Return what is said in a recording that the encoder has taken; the request's `field` could have told it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transcribe, audio, language, field)

    def _transcribe(self, audio: bytes, language: str | None, field: str) -> str:
        from voice_core.voices.reference import read_reference
        from voice_core.voices.transcriber import Transcriber as Whisper

        if self._whisper is None:
            assert self._settings.whisper_model is not None, "this deployment is made only where there is a Whisper"
            self._whisper = Whisper(self._settings.whisper_model, "cuda" if ray.get_gpu_ids() else "cpu")
        recording = read_reference(audio, self._settings.reference_limits, field="audio")
        return self._whisper.transcribe(recording, language, field=field)
