"""The HTTP interface: what arrives, who is asked, what goes back. Knows how to ask, not who answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route, WebSocketRoute

from deployments import dub_api, figures, live, metrics, openapi, voices_api
from deployments.answers import Take, answer
from deployments.body import FORM, JSON, content_type, read_body, read_form, require_content_type, too_large
from deployments.composer import Composed
from deployments.docs_page import Docs
from deployments.door import Door, Work, chosen_priority
from deployments.dub_api import DubApi
from deployments.errors import api_error, error_response
from deployments.estimates import estimated
from deployments.fan_out import PendingReply, all_of, ask_each, in_order
from deployments.fleet import Fleet, FleetHandles
from deployments.live import LiveApi
from deployments.page_routes import page_routes
from deployments.reception import Reception
from deployments.script import Script, written
from deployments.segment_cache import open_cache
from deployments.settings import Settings
from deployments.shapes import Alive, ModelList, ModelObject, Ready
from deployments.speaking import Speaker, Utterance
from deployments.speech_request import SpeechRequest
from deployments.status_page import ingress_status, status_answer, version
from deployments.streaming import streamed_answer
from deployments.visit import current_visit
from deployments.voice_desk import VoiceCrew, VoiceDesk
from deployments.voices_api import VoicesApi
from voice_core.speech import ModelFacts, Segment, Speech

FILES_AT_ONCE = 4  # of one request; the samples of another one are composed in between
FIGURES_SECONDS = 1.0  # between two tellings of what is in flight
OWNER = "voice-serve"
RECORDING_FIELD = b'"reference_audio"'  # a body without it has no reason to be large

Endpoint = Callable[[Request], Awaitable[Response]]


class Crew(FleetHandles, VoiceCrew, Protocol):
    """The deployments behind the door, as calls that can be awaited and cancelled."""

    def speak(self, segment: Segment) -> PendingReply[list[Speech]]: ...

    def compose(
        self, speeches: Sequence[Speech], audio_format: str, pause_seconds: float
    ) -> PendingReply[Composed]: ...

    async def decoders(self) -> dict[str, Any]:
        """Return what the decoders of all synthesizers do, added up."""

    def deployments(self) -> dict[str, Any]:
        """Return the state of every deployment. Blocks, so it is called in a thread."""

    def figures(self) -> str:
        """Return the metrics of all replicas. Blocks, so it is called in a thread."""


class SpeechApi:
    """OpenAI's speech endpoint and what belongs around it."""

    def __init__(self, settings: Settings, crew: Crew) -> None:
        self._settings = settings
        self._crew = crew
        self._door = Door(settings)
        self._fleet = Fleet(crew, largest_share=settings.largest_share)
        self._desk = VoiceDesk(settings, crew)
        self._speaker = Speaker(crew.speak, open_cache(settings.segment_cache, settings.segment_cache_bytes))
        self._live = LiveApi(settings, self._desk, self._door, self._fleet, self._speaker)
        self._voices = VoicesApi(settings, self._desk, self._door, self._fleet)
        self._dubs = DubApi(settings, self._desk, self._door, self._fleet, self._speaker)
        self._docs = Docs(settings)
        self._started_at = int(time.time())

    def routes(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/audio/speech", _guarded(self.speech), methods=["POST"]),
                Route("/v1/audio/speech/estimate", _guarded(self.estimate), methods=["POST"]),
                WebSocketRoute(live.PATH, self._live.session),
                Route(dub_api.PATH, _guarded(self._dubs.dub), methods=["POST"]),
                Route(voices_api.PATH, _guarded(self._voices.create), methods=["POST"]),
                Route(voices_api.PATH, _guarded(self._voices.voices), methods=["GET"]),
                Route(voices_api.PATH_OF_ONE, _guarded(self._voices.voice), methods=["GET"]),
                Route(voices_api.PATH_OF_ONE, _guarded(self._voices.delete), methods=["DELETE"]),
                Route(voices_api.PATH_OF_SAMPLE, _guarded(self._voices.sample), methods=["GET"]),
                Route("/v1/models", _guarded(self.models), methods=["GET"]),
                Route("/status", _guarded(self.status), methods=["GET"]),
                Route("/metrics", _guarded(self.metrics), methods=["GET"]),
                Route("/healthz", _guarded(self.healthz), methods=["GET"]),
                Route("/readyz", _guarded(self.readyz), methods=["GET"]),
                *page_routes(),
                Route(openapi.PATH, _guarded(self._docs.document), methods=["GET"]),
                Route(openapi.DOCS_PATH, _guarded(self._docs.page), methods=["GET"]),
            ],
            lifespan=self._life,
            middleware=[Middleware(Reception, settings=self._settings)],
            exception_handlers={HTTPException: _http_error},  # 404 and 405 come from the router
        )

    async def drain(self) -> None:
        """Take no new request for speech; return when the last one is done."""
        await self._door.close()

    async def speech(self, request: Request) -> Response:
        async with AsyncExitStack() as held:
            held.enter_context(self._door.let_in())
            wanted = await self._speech_request(request)
            current_visit().end_after(wanted.timeout_seconds)
            script, facts = await self._script(wanted)
            work = held.enter_context(self._door.take_on(script.work_seconds, script.rows, wanted.priority))
            spoken = self._spoken(wanted, script, facts, work)
            if wanted.stream_format is not None:
                return await streamed_answer(request, wanted, script, spoken, facts.sample_rate, held)
            takes = await self._compose(wanted, script, await all_of(spoken))
        return answer(request, wanted, script, takes)

    async def estimate(self, request: Request) -> Response:
        """Tell what a request for speech would take; nothing is spoken."""
        with self._door.let_in():
            wanted = await self._speech_request(request)
            current_visit().end_after(wanted.timeout_seconds)
            script, facts = await self._script(wanted)
        priority = chosen_priority(current_visit().key, wanted.priority)
        wait = self._door.expected_wait_seconds(script.work_seconds, current_visit().key, priority)
        spoken = self._door.expected_seconds(script.work_seconds, script.rows)
        return JSONResponse(estimated(script, facts, wait, wait + spoken))

    async def _script(self, wanted: SpeechRequest) -> tuple[Script, ModelFacts]:
        facts = await self._fleet.facts()
        self._door.has_rows(self._fleet.rows)
        prompt = await self._desk.prompt(wanted, facts)
        return await written(wanted, facts, prompt, self._settings.longest_speech_seconds), facts

    async def _speech_request(self, request: Request) -> SpeechRequest:
        """Read JSON or a form; with a recording in it, that takes a moment and isn't for the event loop."""
        settings = self._settings
        require_content_type(request, JSON, FORM)
        if content_type(request) == FORM:
            form = await read_form(request, largest_bytes=settings.largest_upload_bytes)
            wanted = SpeechRequest.from_form(form)
        else:
            body = await read_body(request, largest_bytes=settings.largest_upload_bytes)
            if len(body) > settings.largest_body_bytes and RECORDING_FIELD not in body:
                raise too_large(settings.largest_body_bytes)
            wanted = await asyncio.to_thread(SpeechRequest.from_json, body)
        wanted.check_length(settings.longest_text_characters)
        return wanted

    def _spoken(
        self, wanted: SpeechRequest, script: Script, facts: ModelFacts, work: Work
    ) -> AsyncGenerator[list[Utterance]]:
        """Speak all segments, a list of samples each; yield them in reading order.

        The first ones are begun first, and never so many at once that others can't get in between. Where sound is
        waited for, the first segment has a CPU to itself: a row less is a faster step there.
        """
        first_alone = wanted.stream_format is not None and facts.device == "cpu"
        first_done = False

        def at_once() -> int:
            if (first_alone and not first_done) or work.stands_back:
                return 1
            return self._fleet.segments_at_once(facts, samples=script.rows_of_each, wanted_rows=self._door.wanted_rows)

        async def speak(segment: Segment) -> list[Utterance]:
            nonlocal first_done
            utterances = await self._speaker.speak_for(work, segment, wanted.wishes, facts)
            first_done = True
            return utterances

        return in_order(speak, script.segments, at_once)

    async def _compose(self, wanted: SpeechRequest, script: Script, spoken: list[list[Utterance]]) -> list[Take]:
        """Make one file of every sample; `spoken` holds the samples of each segment."""
        samples = list(zip(*spoken, strict=True))

        def compose(utterances: Sequence[Utterance]) -> PendingReply[Composed]:
            speeches = [utterance.speech for utterance in utterances]
            return self._crew.compose(speeches, wanted.response_format, script.pause_seconds)

        composed = await ask_each(compose, samples, lambda: FILES_AT_ONCE)
        return [Take(*take) for take in zip(script.seeds, samples, composed, strict=True)]

    async def models(self, request: Request) -> Response:
        facts = await self._fleet.facts()
        created = self._started_at
        model: ModelObject = {"id": facts.model_id, "object": "model", "created": created, "owned_by": OWNER}
        listed: ModelList = {"object": "list", "data": [model]}
        return JSONResponse(listed)

    async def healthz(self, request: Request) -> Response:
        """The process answers; nothing is said about the model."""
        alive: Alive = {"status": "ok"}
        return JSONResponse(alive)

    async def readyz(self, request: Request) -> Response:
        """A request that came now would be spoken, at once or after those before it."""
        self._door.check_open()
        facts = await self._fleet.check_ready()
        ready: Ready = {"status": "ready", "model": facts.model_id}
        return JSONResponse(ready)

    async def status(self, request: Request) -> Response:
        """Everything at a glance, also when not all of it is well."""
        document: dict[str, Any] = {"ready": True, "reason": None, "version": version()}
        try:
            self._door.check_open()
            facts = await self._fleet.check_ready()
            model = {
                "id": facts.model_id,
                "device": facts.device,
                "rows_of_each_replica": facts.max_rows,
                "longest_segment_seconds": facts.longest_seconds,
                "longest_segment_seconds_of_checkpoint": facts.checkpoint_longest_seconds,
                "load_seconds": round(facts.load_seconds, 2),
            }
            document |= {"model": model, "decoders": await self._crew.decoders()}
        except Exception as error:
            document |= {"ready": False, "reason": api_error(request, error).message}
        document["deployments"] = await asyncio.to_thread(self._crew.deployments)
        document["this_ingress"] = ingress_status(self._door, self._started_at)
        return status_answer(request, document)

    async def metrics(self, request: Request) -> Response:
        """Our figures, of the whole cluster, for Prometheus."""
        return Response(await asyncio.to_thread(self._crew.figures), media_type=figures.MEDIA_TYPE)

    @asynccontextmanager
    async def _life(self, _app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._fleet.watch(self._door.has_rows)), asyncio.create_task(self._tell_figures())]
        yield
        for task in tasks:
            task.cancel()

    async def _tell_figures(self) -> None:
        """Tell what is in flight, for as long as we live."""
        while True:
            metrics.observe("voice_seconds_in_flight", self._door.seconds_in_flight)
            metrics.observe("voice_capacity_seconds_per_second", self._door.capacity.seconds_per_second)
            await asyncio.sleep(FIGURES_SECONDS)


def _guarded(endpoint: Endpoint) -> Endpoint:
    """Answer every failure in OpenAI's envelope: no client sees what Ray or Python say about it."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Exception as error:
            return error_response(request, error)

    return answer


async def _http_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        error = HTTPException(405, error.detail, {"Allow": ", ".join(_methods(request))})
    return error_response(request, error)


def _methods(request: Request) -> list[str]:
    """Return what can be done at this path: the router only looks at its first route."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted(set().union(*(route.methods or () for route in routes if isinstance(route, Route))))
