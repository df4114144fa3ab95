"""Answers that go out while later segments are still being spoken: bare audio, or events."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from deployments.answers import told_seconds, warning_headers
from deployments.composer import Span
from deployments.errors import ApiError, api_error, deadline_exceeded
from deployments.manifest import captions, segment_row, whole_manifest
from deployments.metrics import Playback
from deployments.script import Script
from deployments.shapes import DeltaEvent, DoneEvent, SegmentRow, Usage
from deployments.speaking import Utterance
from deployments.speech_request import SpeechRequest
from deployments.visit import current_visit
from voice_core.audio.formats import format_named, resampled_length
from voice_core.audio.joining import Joiner
from voice_core.audio.streams import open_stream
from voice_core.audio.waveform import Waveform
from voice_core.errors import SynthesisError

Told = TypeVar("Told")  # an event

EVENTS = "text/event-stream"
LAST_WORDS_SECONDS = 0.25  # before an answer's time is up, for the event that tells it
KEEP_ALIVE_SECONDS = 10.0  # proxies on the way close what is silent for longer, mostly after 30 or 60

logger = logging.getLogger("ray.serve")


class Recording:
    """The file of one sample as it grows, segment by segment: trimmed, joined and encoded as the whole would be."""

    def __init__(self, audio_format: str, sample_rate: int, pause_seconds: float) -> None:
        """`sample_rate` in Hz is the codec's."""
        self._joiner = Joiner(sample_rate, pause_seconds)
        self._file = open_stream(audio_format, sample_rate)
        self._codec_rate = sample_rate
        self._codec_samples = 0
        self.sample_rate = self._file.sample_rate  # Hz, of the file
        self.media_type = self._file.media_type
        self.rows: list[SegmentRow] = []
        self.text_tokens = 0
        self.frames = 0

    @property
    def samples(self) -> int:
        """Of the file, so far; 0 as long as there is no sound."""
        if not self._codec_samples:
            return 0
        return self._file.lead_samples + resampled_length(self._codec_samples, self._codec_rate, self.sample_rate)

    async def add(self, utterance: Utterance) -> bytes:
        """Return what the next segment adds to the file; its row is the last of `rows`."""
        return await asyncio.to_thread(self._add, utterance)

    async def close(self) -> bytes:
        """Return what the encoder still held back. Raises SynthesisError if there was no sound at all."""
        if self._codec_samples == 0:
            raise SynthesisError("nothing of the text became a sound")
        return await asyncio.to_thread(self._file.close)

    def _add(self, utterance: Utterance) -> bytes:
        speech = utterance.speech
        part = self._joiner.add(Waveform(speech.samples, speech.sample_rate))
        self._codec_samples += len(part.samples)
        span = Span.of(part, self._codec_rate, self.sample_rate, self._file.lead_samples)
        self.rows.append(segment_row(utterance, span, self.sample_rate))
        self.text_tokens += speech.text_tokens
        self.frames += speech.frames
        return self._file.write(part.samples)

    def usage(self) -> Usage:
        """OpenAI's count: what was read in tokens, what was spoken in codes."""
        return {
            "input_tokens": self.text_tokens,
            "output_tokens": self.frames,
            "total_tokens": self.text_tokens + self.frames,
        }


class StreamedAnswer(StreamingResponse):
    """A response that gives back what its request holds when it ends, however it ends."""

    def __init__(
        self, content: AsyncIterator[bytes], held: AsyncExitStack, media_type: str, headers: Mapping[str, str]
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)


async def streamed_answer(
    request: Request,
    wanted: SpeechRequest,
    script: Script,
    spoken: AsyncGenerator[list[Utterance]],
    sample_rate: int,
    held: AsyncExitStack,
) -> StreamedAnswer:
    """Wait for the first segment, so that what fails by then is told with its status; then answer as it comes.

    `sample_rate` in Hz is the codec's. The answer closes `spoken` and `held`.
    """
    held.push_async_callback(spoken.aclose)
    recording = Recording(wanted.response_format, sample_rate, script.pause_seconds)
    first = await anext(spoken)
    headers = {
        "X-Sample-Rate": str(recording.sample_rate),
        "X-Segments": str(len(script.segments)),
        "X-Seed": str(script.seeds[0]),
        "X-Asked-Seconds": told_seconds([round(segment.seconds, 3) for segment in script.segments]),
        "X-Accel-Buffering": "no",  # nginx would collect the answer first
        "Cache-Control": "no-store",
    } | warning_headers(script)
    segments = _from(first, spoken)
    if wanted.stream_format == "sse":
        events = told_events(request, _events(wanted, script, recording, segments), "speech.audio.error")
        return StreamedAnswer(with_keep_alive(events), held.pop_all(), EVENTS, headers)
    media_type = format_named(wanted.response_format).media_type
    return StreamedAnswer(_audio(recording, segments), held.pop_all(), media_type, headers)


async def _from(first: list[Utterance], rest: AsyncGenerator[list[Utterance]]) -> AsyncGenerator[Utterance]:
    """Yield the segments one by one, and reckon whether somebody who listens meanwhile ever has to wait."""
    listener = Playback()
    listener.came(first[0].speech.seconds)
    yield first[0]
    async for (utterance,) in rest:
        listener.came(utterance.speech.seconds)
        yield utterance
    listener.ended()


async def _audio(recording: Recording, segments: AsyncGenerator[Utterance]) -> AsyncGenerator[bytes]:
    """An error in here cuts the answer off: after the first byte there is no other way to tell."""
    async with aclosing(segments):
        async for utterance in segments:
            if piece := await recording.add(utterance):
                yield piece
        if piece := await recording.close():
            yield piece


async def _events(
    wanted: SpeechRequest, script: Script, recording: Recording, segments: AsyncGenerator[Utterance]
) -> AsyncGenerator[DeltaEvent | DoneEvent]:
    async with aclosing(segments):
        async for utterance in segments:
            piece = await recording.add(utterance)
            row = recording.rows[-1]
            yield {"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode(), "segment": row}
        if piece := await recording.close():
            yield {"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()}
    seed, rate = script.seeds[0], recording.sample_rate
    done: DoneEvent = {
        "type": "speech.audio.done",
        "usage": recording.usage(),
        "seed": seed,
        "sample_rate": rate,
        "seconds": round(recording.samples / rate, 4),
        "warnings": list(script.warnings),
    }
    if wanted.captions is not None:
        text = captions(recording.rows, wanted.captions)
        done["captions"] = json.loads(text) if wanted.captions == "json" else text
    if wanted.manifest:
        done["manifest"] = whole_manifest(wanted, script, seed, recording.rows, recording.samples, rate)
    yield done


async def told_events(
    request: Request, events: AsyncGenerator[Mapping[str, Any]], error_kind: str
) -> AsyncGenerator[bytes]:
    """Write events out; an error, under its own kind, is the last of them."""
    try:
        async with aclosing(events), aclosing(in_time(events)) as timely:
            async for event in timely:
                yield event_bytes(event)
    except Exception as error:
        yield event_bytes(error_event(error_kind, api_error(request, error)))


async def in_time(events: AsyncGenerator[Told]) -> AsyncGenerator[Told]:
    """Pass events on while there is time; then raise the ApiError that says so, a moment before the answer is cut."""
    visit = current_visit()
    while True:
        left = visit.seconds_left - LAST_WORDS_SECONDS
        waiting = asyncio.ensure_future(anext(events))
        try:
            await asyncio.wait({waiting}, timeout=None if left == math.inf else max(0.0, left))
            if not waiting.done():
                raise deadline_exceeded(visit.until - visit.arrived)
        finally:
            await call_off(waiting)
        try:
            event = waiting.result()
        except StopAsyncIteration:
            return
        yield event


async def call_off(task: asyncio.Future[Any]) -> None:
    """Cancel a task, if it isn't done, and wait until it is, however often we are cancelled ourselves meanwhile.

    A generator that still runs can't be closed. Serve and the response both cancel us when a client leaves.
    """
    task.cancel()
    called_off: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            called_off = error
    if called_off is not None:
        raise called_off


def error_event(kind: str, error: ApiError) -> dict[str, Any]:
    event = {"type": kind, "error": error.envelope()["error"]}
    later = error.headers.get("Retry-After")  # which an answer that has begun can't send any more
    return event if later is None else {**event, "retry_after_seconds": int(later)}


def event_bytes(event: Mapping[str, Any]) -> bytes:
    """Return an event as OpenAI's clients read it: one line of data, no name, a blank line."""
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


async def with_keep_alive(events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Put a comment into the stream whenever nothing else came for a while."""
    async with aclosing(events):
        while True:
            waiting = asyncio.ensure_future(anext(events, b""))
            try:
                while not (await asyncio.wait({waiting}, timeout=KEEP_ALIVE_SECONDS))[0]:
                    yield b": still speaking\n\n"
            finally:
                await call_off(waiting)
            if not (event := waiting.result()):
                return
            yield event
