"""The deployment at the door: serves the HTTP interface over the handles of the other deployments."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette

from deployments import logs, metrics, traces
from deployments.api import SpeechApi
from deployments.composer import Composed
from deployments.fan_out import PendingReply
from deployments.figures import figures
from deployments.fleet import Running
from deployments.settings import Settings
from deployments.visit import current_visit
from voice_core.speech import LearnedReference, ModelFacts, Segment, Speech
from voice_core.upkeep import keep_memory_low

if TYPE_CHECKING:  # torch comes with it
    from voice_core.decoding.engine import EngineCounters

Handle = DeploymentHandle[Any]

logger = logging.getLogger("ray.serve")


class ServeCrew:
    """The deployments behind the ingress, asked through their handles."""

    def __init__(
        self, synthesizer: Handle, composer: Handle, voice_encoder: Handle, transcriber: Handle | None
    ) -> None:
        self._synthesizer = synthesizer
        self._composer = composer
        self._voice_encoder = voice_encoder
        self._transcriber = transcriber

    def facts(self) -> PendingReply[ModelFacts]:
        return cast(PendingReply[ModelFacts], self._synthesizer.facts.remote())

    def speak(self, segment: Segment) -> PendingReply[list[Speech]]:
        reply = self._synthesizer.speak.remote(segment, current_visit().seconds_left, traces.traceparent())
        return cast(PendingReply[list[Speech]], reply)

    def compose(self, speeches: Sequence[Speech], audio_format: str, pause_seconds: float) -> PendingReply[Composed]:
        reply = self._composer.compose.remote(speeches, audio_format, pause_seconds, traces.traceparent())
        return cast(PendingReply[Composed], reply)

    def learn(self, file: bytes, field: str) -> PendingReply[LearnedReference]:
        return cast(PendingReply[LearnedReference], self._voice_encoder.learn.remote(file, field))

    def transcribe(self, audio: bytes, language: str | None, field: str) -> PendingReply[str]:
        assert self._transcriber is not None, "asked only where the settings name a Whisper"
        return cast(PendingReply[str], self._transcriber.transcribe.remote(audio, language, field))

    async def forget(self, recording_hash: str) -> None:
        try:
            await self._voice_encoder.broadcast("forget", recording_hash).results_async()
        except RayActorError:
            logger.info("A replica that died has forgotten too")

    def composer_answers(self) -> PendingReply[bool]:
        return cast(PendingReply[bool], self._composer.answers.remote())

    async def decoders(self) -> dict[str, Any]:
        told: list[EngineCounters] = await self._synthesizer.broadcast("counters").results_async()
        summed = {"rows_active", "rows_waiting", "rows_spoken", "steps"}
        return {"replicas": len(told)} | {name: sum(getattr(one, name) for one in told) for name in sorted(summed)}

    def deployments(self) -> dict[str, Any]:
        application = serve.status().applications[serve.get_replica_context().app_name]
        return {
            name: {"status": str(deployment.status.value), **deployment.replica_states}
            for name, deployment in application.deployments.items()
        }

    def figures(self) -> str:
        return figures()

    def running(self) -> Running:
        application = serve.status().applications[serve.get_replica_context().app_name]

        def count(deployment: str) -> int:
            states = application.deployments[deployment].replica_states
            return sum(replicas for state, replicas in states.items() if state == "RUNNING")

        return Running(
            synthesizers=count(self._synthesizer.deployment_name),
            composers=count(self._composer.deployment_name),
            ingresses=count(serve.get_replica_context().deployment),
        )


@serve.deployment(
    max_ongoing_requests=256,  # requests that wait for their speech cost an ingress next to nothing
    graceful_shutdown_timeout_s=150,  # longer than the synthesizer's: it waits for it
    graceful_shutdown_wait_loop_s=0.2,
)
@serve.ingress()
class Ingress:
    """Serves the HTTP interface over the application's other deployments."""

    def __init__(
        self,
        settings: Settings,
        synthesizer: Handle,
        composer: Handle,
        voice_encoder: Handle,
        transcriber: Handle | None,
    ) -> None:
        logs.set_up(texts=settings.log_texts)
        keep_memory_low()
        metrics.use(metrics.RayMeter())
        traces.set_up(settings.traces, "Ingress")
        self._api = SpeechApi(settings, ServeCrew(synthesizer, composer, voice_encoder, transcriber))

    def __serve_build_asgi_app__(self) -> Starlette:
        return self._api.routes()

    async def drain(self) -> None:
        """For whoever stops the service: Serve stops all deployments at once, also those we still need."""
        await self._api.drain()
