"""Speech of text that is still being written: pieces come in over a WebSocket, sound goes out in order."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from deployments.door import Door, Work
from deployments.errors import ApiError, api_error
from deployments.fleet import Fleet
from deployments.ignored import ignored_by_model
from deployments.script import written
from deployments.settings import Settings
from deployments.speaking import Speaker, Utterance, came, work_seconds
from deployments.speech_request import SpeechRequest
from deployments.spoken_request import check_unicode, json_object
from deployments.streaming import Recording
from deployments.visit import current_visit
from deployments.voice_desk import VoiceDesk
from voice_core.errors import RequestError
from voice_core.speech import DEFAULT_VOICE, MAX_SEED, ModelFacts, Segment, VoicePrompt
from voice_core.text import complete_length, detect_language, has_words, parse_language

PATH = "/v1/audio/speech/stream"
PATIENCE_SECONDS = 300.0  # with a client that says nothing
LONGEST_PAUSE_SECONDS = 1.0  # between two looks whether there is room for the next segment of a session
# What a text that grows can't be asked for.
NOT_HERE = ("input", "n", "seconds", "stream_format", "captions", "manifest")
USUAL = {"model": "voice", "voice": DEFAULT_VOICE, "response_format": "pcm"}
BAD_REQUEST, OUR_FAULT, COME_LATER = 1008, 1011, 1013  # close codes of RFC 6455 and of IANA's list

Utterances = asyncio.Task[list[Utterance]]  # of one segment
SessionVoice = Callable[[ModelFacts], Awaitable[VoicePrompt | None]]  # what the decoder is to imitate


class LiveApi:
    """Serves sessions, one a connection."""

    def __init__(self, settings: Settings, desk: VoiceDesk, door: Door, fleet: Fleet, speaker: Speaker) -> None:
        self._settings = settings
        self._desk = desk
        self._door = door
        self._fleet = fleet
        self._speaker = speaker

    async def session(self, websocket: WebSocket) -> None:
        """Speak to one client until it says that it is done, or leaves."""
        await websocket.accept()
        with suppress(WebSocketDisconnect, RuntimeError):  # a client that has left can't be told anything
            try:
                with self._door.let_in():
                    await self._serve(websocket)
            except WebSocketDisconnect:
                raise
            except Exception as error:
                await _tell_error(websocket, api_error(websocket, error))

    async def _serve(self, websocket: WebSocket) -> None:
        wanted = _configured(await _message(websocket), self._settings)
        current_visit().end_after(wanted.timeout_seconds)
        facts = await self._fleet.facts()
        voice = await self._voice(wanted, facts)
        session = Session(websocket, wanted, voice, facts, self)
        await session.run()

    async def _voice(self, wanted: SpeechRequest, facts: ModelFacts) -> SessionVoice:
        """Return the voice of a session: a name means one voice throughout, a recording is learned once."""
        if wanted.reference_audio is None:
            voice_id = await self._desk.id_of(wanted.voice, facts)
            return lambda now: self._desk.prompt_of(voice_id, now)
        learned: dict[str, VoicePrompt | None] = {}  # by the codec; it is another one when the model was changed

        async def prompt(now: ModelFacts) -> VoicePrompt | None:
            if now.code_fingerprint not in learned:
                learned[now.code_fingerprint] = await self._desk.prompt(wanted, now)
            return learned[now.code_fingerprint]

        await prompt(facts)
        return prompt

    async def plan(
        self, wanted: SpeechRequest, voice: SessionVoice, seed: int, text: str, first_index: int, group: str
    ) -> list[Segment]:
        """Return the segments of the next piece of text, numbered on, as rows of one group at the decoder."""
        piece = wanted.model_copy(update={"input": text, "seed": seed})
        facts = await self._fleet.facts()
        self._door.has_rows(self._fleet.rows)
        script = await written(piece, facts, await voice(facts), self._settings.longest_speech_seconds)
        return [replace(one, index=first_index + one.index, request=group) for one in script.segments]

    def check_waiting(self, seconds: float) -> None:
        """Refuse a text that grows faster than it is spoken, in the end."""
        if seconds > self._settings.longest_speech_seconds:
            reason = f"{seconds:.0f} s of speech are waiting, at most {self._settings.longest_speech_seconds:g} s may"
            raise RequestError("text", reason)

    def turns(self, wanted: SpeechRequest, facts: ModelFacts) -> asyncio.Semaphore:
        """Return as many turns as one session may have segments under way."""
        return asyncio.Semaphore(self._fleet.segments_at_once(facts, samples=wanted.best_of, alone=False))

    @property
    def longest_text_characters(self) -> int:
        return self._settings.longest_text_characters

    async def speak(
        self, segment: Segment, wanted: SpeechRequest, facts: ModelFacts, turns: asyncio.Semaphore, *, goes_on: bool
    ) -> list[Utterance]:
        """Have a segment spoken as soon as it has its turn.

        Where there is no room for it, a session that `goes_on` waits, as a long text that came at once would; one that
        begins is told so (ApiError).
        """
        async with turns:
            with ExitStack() as room:
                work = await self._taken_on(segment, wanted, room, patient=goes_on)
                segment = replace(segment, batch=work.priority == "batch")
                utterances = await self._speaker.speak(segment, wanted.wishes, facts.model_fingerprint)
                came(work, utterances, wanted.best_of)
        return utterances

    async def _taken_on(self, segment: Segment, wanted: SpeechRequest, room: ExitStack, *, patient: bool) -> Work:
        seconds = work_seconds(segment) * wanted.best_of
        while True:
            try:
                return room.enter_context(self._door.take_on(seconds, wanted.best_of, wanted.priority))
            except ApiError as refusal:
                if not patient or refusal.status != 429:
                    raise
                await asyncio.sleep(min(float(refusal.headers["Retry-After"]), LONGEST_PAUSE_SECONDS))


class Session:
    """One client's text on its way in, and its speech on its way out."""

    def __init__(
        self, websocket: WebSocket, wanted: SpeechRequest, voice: SessionVoice, facts: ModelFacts, api: LiveApi
    ) -> None:
        self._websocket = websocket
        self._wanted = wanted
        self._voice = voice
        self._facts = facts
        self._api = api
        self._seed = secrets.randbelow(MAX_SEED + 1) if wanted.seed is None else wanted.seed
        self._recording = Recording(wanted.response_format, facts.sample_rate, wanted.inter_segment_silence)
        self._turns = api.turns(wanted, facts)
        self._group = current_visit().new_group()
        self._warnings = list(ignored_by_model(wanted, facts))
        self._text = ""  # that no sentence's end has come for, or no word
        self._segments = 0
        self._spoken: asyncio.Queue[Utterances | None] = asyncio.Queue()  # in order; none: that was all
        self._under_way: dict[Utterances, float] = {}  # and seconds of work
        self._sending = asyncio.Lock()  # a row and its sound belong together
        self._cancels = 0

    async def run(self) -> None:
        """Read and send until the client is done; whatever ends the session calls off what is under way."""
        created = {"type": "session.created", "seed": self._seed, "format": self._wanted.response_format}
        rate = {"sample_rate": self._recording.sample_rate, "media_type": self._recording.media_type}
        await self._websocket.send_json({**created, **rate, "warnings": self._warnings})
        reading, sending = asyncio.create_task(self._read()), asyncio.create_task(self._send())
        both = {reading, sending}
        try:
            done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # reading never ends by itself, sending does when all is sent
        finally:
            ending: list[asyncio.Task[Any]] = [*both, *self._under_way]
            for ended in ending:
                ended.cancel()
            await asyncio.wait(ending)
        await self._websocket.close()

    async def _read(self) -> None:
        while True:
            message = await self._next_message()
            match message.get("type"):
                case "input.text":
                    self._text += _text_of(message)
                    await self._speak_what_is_complete()
                case "input.flush":
                    await self._speak_the_rest()
                case "input.cancel":
                    await self._cancel()
                case "input.done":
                    await self._speak_the_rest()
                    self._spoken.put_nowait(None)
                    await self._watch()
                    return
                case other:
                    known = "input.text, input.flush, input.cancel and input.done"
                    raise RequestError("type", f"{str(other)[:40]!r} is no message of a session; {known} are")

    async def _next_message(self) -> dict[str, Any]:
        """Return the client's next message; one who listens to what is being spoken needn't say anything."""
        coming = asyncio.create_task(_message(self._websocket, patience_seconds=None))
        try:
            while not coming.done():
                await asyncio.wait({coming}, timeout=PATIENCE_SECONDS)
                if not coming.done() and not self._under_way:
                    raise _silent(PATIENCE_SECONDS)
            return coming.result()
        finally:
            coming.cancel()

    async def _watch(self) -> None:
        """After the last text a client may only call off, or leave."""
        while True:
            message = await _message(self._websocket, patience_seconds=None)
            if message.get("type") != "input.cancel":
                raise RequestError("type", "after input.done there is only input.cancel")
            await self._cancel()
            self._spoken.put_nowait(None)

    async def _speak_what_is_complete(self) -> None:
        if len(self._text) > self._api.longest_text_characters:
            raise RequestError("text", f"more than {self._api.longest_text_characters} characters without an end")
        wanted = self._wanted.language
        language = detect_language(self._text) if wanted is None else parse_language(wanted)
        await self._speak_next(complete_length(self._text, language))

    async def _speak_the_rest(self) -> None:
        await self._speak_next(len(self._text))
        self._text = ""  # marks without a word have no sound

    async def _speak_next(self, length_characters: int) -> None:
        """Speak the beginning of the text that waits; marks alone wait for the words that they belong to."""
        text = self._text[:length_characters]
        if not has_words(text):
            return
        self._text = self._text[length_characters:]
        segments = await self._api.plan(self._wanted, self._voice, self._seed, text, self._segments, self._group)
        waiting = sum(self._under_way.values()) + sum(map(work_seconds, segments))
        self._api.check_waiting(waiting * self._wanted.best_of)
        for segment in segments:
            goes_on = bool(self._under_way or self._segments)
            speaking = self._api.speak(segment, self._wanted, self._facts, self._turns, goes_on=goes_on)
            utterances = asyncio.create_task(speaking)
            self._under_way[utterances] = work_seconds(segment)
            utterances.add_done_callback(self._under_way.pop)
            self._spoken.put_nowait(utterances)
        self._segments += len(segments)

    async def _cancel(self) -> None:
        """Forget the text that waits, and call off what is being spoken; the session goes on."""
        self._text = ""
        self._cancels += 1
        while not self._spoken.empty():
            self._spoken.get_nowait()
        for task in list(self._under_way):
            task.cancel()
        async with self._sending:
            await self._websocket.send_json({"type": "input.cancelled"})

    async def _send(self) -> None:
        while (utterances := await self._spoken.get()) is not None:
            cancels = self._cancels
            await asyncio.wait({utterances})
            if utterances.cancelled():
                continue
            (utterance,) = utterances.result()
            async with self._sending:
                if cancels != self._cancels:  # it was done just before it would have been called off
                    continue
                sound = await self._recording.add(utterance)
                await self._websocket.send_json({"type": "segment", **self._recording.rows[-1]})
                if sound:
                    await self._websocket.send_bytes(sound)
        async with self._sending:
            if self._recording.samples and (rest := await self._recording.close()):
                await self._websocket.send_bytes(rest)
            await self._websocket.send_json({"type": "session.done", "usage": self._recording.usage()})


async def _message(websocket: WebSocket, patience_seconds: float | None = PATIENCE_SECONDS) -> dict[str, Any]:
    """Return the client's next message, an object. Raises for one who says nothing, or leaves."""
    try:
        async with asyncio.timeout(patience_seconds):
            message = await websocket.receive()
    except TimeoutError:
        raise _silent(patience_seconds or 0.0) from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text = message.get("text")
    if text is None:
        raise RequestError("message", "is binary; messages are JSON objects in text")
    return json_object(text)


def _silent(seconds: float) -> ApiError:
    return ApiError(408, f"no message came for {seconds:g} s", code="timeout")


def _configured(message: dict[str, Any], settings: Settings) -> SpeechRequest:
    """Read the first message; the text that it lacks comes later."""
    if message.pop("type", None) != "session.config":
        raise RequestError("type", "the first message must be 'session.config'")
    for field in NOT_HERE:
        if message.get(field) is not None:
            raise RequestError(field, "is nothing for a text that is still being written")
    document = USUAL | {name: value for name, value in message.items() if value is not None} | {"input": ""}
    wanted = SpeechRequest.checked(document)
    if wanted.language is not None:
        parse_language(wanted.language)
    return wanted


def _text_of(message: dict[str, Any]) -> str:
    text = message.get("text")
    if not isinstance(text, str):
        raise RequestError("text", "is required, and a string")
    check_unicode("text", text)
    return text


async def _tell_error(websocket: WebSocket, error: ApiError) -> None:
    await websocket.send_json({"type": "error", **error.envelope()})
    code = COME_LATER if error.status in (429, 503) else OUR_FAULT if error.status >= 500 else BAD_REQUEST
    await websocket.close(code, error.code)
