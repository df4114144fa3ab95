"""The HTTP interface of dubs: cues in, one track and its report out, as JSON or event by event."""

from __future__ import annotations

import asyncio
import base64
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.body import FORM, JSON, content_type, read_body, read_form, require_content_type
from deployments.door import Door
from deployments.dub import Dub
from deployments.dub_request import DubRequest
from deployments.dub_script import Line, dub_seconds, write_lines
from deployments.fleet import Fleet
from deployments.script import Reading, reading_of
from deployments.settings import Settings
from deployments.speaking import LEAST_WORK_SECONDS, Speaker
from deployments.streaming import EVENTS, StreamedAnswer, told_events, with_keep_alive
from deployments.visit import current_visit
from deployments.voice_desk import VoiceDesk
from voice_core.audio.formats import format_named
from voice_core.errors import RequestError
from voice_core.speech import ModelFacts
from voice_core.subtitles import CueSheet

PATH = "/v1/audio/dub"
HEADERS = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}  # nginx would collect the answer first


class DubApi:
    """Serves dubs."""

    def __init__(self, settings: Settings, desk: VoiceDesk, door: Door, fleet: Fleet, speaker: Speaker) -> None:
        self._settings = settings
        self._desk = desk
        self._door = door
        self._fleet = fleet
        self._speaker = speaker

    async def dub(self, request: Request) -> Response:
        async with AsyncExitStack() as held:
            held.enter_context(self._door.let_in())
            wanted = await self._request(request)
            current_visit().end_after(wanted.timeout_seconds)
            sheet = await asyncio.to_thread(wanted.sheet, self._settings.longest_dub_seconds)
            facts = await self._fleet.facts()
            lines = await self._lines(wanted, sheet, facts)
            self._door.has_rows(self._fleet.rows)
            rows = wanted.best_of * sum(len(line.segments) for line in lines)
            work = held.enter_context(self._door.take_on(dub_seconds(lines, wanted.best_of), rows, wanted.priority))

            def at_once() -> int:
                if work.stands_back:
                    return 1
                return self._fleet.segments_at_once(facts, samples=wanted.best_of, wanted_rows=self._door.wanted_rows)

            speak = partial(self._speaker.speak_for, work, facts=facts)
            dub = Dub(wanted, sheet, lines, facts.sample_rate, speak, at_once)
            if wanted.stream_format == "sse":
                told = with_keep_alive(told_events(request, dub.events(), "dub.error"))
                held.push_async_callback(told.aclose)
                return StreamedAnswer(told, held.pop_all(), EVENTS, HEADERS)
            return await _whole(wanted, dub)

    async def _request(self, request: Request) -> DubRequest:
        require_content_type(request, JSON, FORM)
        if content_type(request) == FORM:
            form = await read_form(request, largest_bytes=self._settings.largest_upload_bytes)
            return await asyncio.to_thread(DubRequest.from_form, form)
        body = await read_body(request, largest_bytes=self._settings.largest_upload_bytes)
        return await asyncio.to_thread(DubRequest.from_json, body)

    async def _lines(self, wanted: DubRequest, sheet: CueSheet, facts: ModelFacts) -> tuple[Line, ...]:
        """Plan all cues, each in the voice of its speaker; refuse more than one may ask for."""
        least_seconds = LEAST_WORK_SECONDS * len(sheet.cues)
        self._check_work(least_seconds, f"{len(sheet.cues)} cues, each counted as {LEAST_WORK_SECONDS:g} s at least")
        voices = {wanted.voice_of(cue.speaker) for cue in sheet.cues}
        readings = {voice: await self._reading(wanted, voice, facts) for voice in sorted(voices)}
        lines = await asyncio.to_thread(write_lines, wanted, sheet, facts, readings)
        if not any(line.segments for line in lines):
            reason = lines[0].reason or "has no letter and no number in it"
            raise RequestError("cues", f"cue {lines[0].number}: {reason}; no other cue can be spoken either")
        seconds = dub_seconds(lines, wanted.best_of)
        times = f", {wanted.best_of} candidates each" if wanted.best_of > 1 else ""
        self._check_work(seconds, f"{len(lines)} cues of {seconds:.0f} s in all{times}")
        return lines

    async def _reading(self, wanted: DubRequest, voice: str, facts: ModelFacts) -> Reading:
        try:
            return reading_of(await self._desk.prompt_of(voice, facts), facts)
        except RequestError as error:
            raise RequestError("voice" if voice == wanted.voice else "voices", error.reason) from error

    def _check_work(self, seconds: float, told: str) -> None:
        # More than may be in flight at all would be told to come later for ever.
        longest_seconds = min(self._settings.longest_dub_seconds, self._settings.most_seconds_in_flight)
        if seconds > longest_seconds:
            raise RequestError("cues", f"{told}; at most {longest_seconds:g} s are spoken for one dub")


async def _whole(wanted: DubRequest, dub: Dub) -> Response:
    """Return everything in one object, when it is there."""
    audio = bytearray()
    done: dict[str, Any] = {}
    async with aclosing(dub.events()) as events:
        async for event in events:
            if event["type"] == "dub.audio.delta":
                audio += base64.b64decode(event["audio"])
            done = event
    report = done["report"]
    return JSONResponse(
        {
            "audio": base64.b64encode(audio).decode(),
            "format": wanted.response_format,
            "media_type": format_named(wanted.response_format).media_type,
            "sample_rate": report["sample_rate"],
            "seconds": report["track_seconds"],
            "report": report,
            "captions": done["captions"],
        }
    )
