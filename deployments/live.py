"""Speech of text that is still being written: pieces come in over a WebSocket, sound goes out in order."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any, NoReturn

from starlette.websockets import WebSocket, WebSocketDisconnect

from deployments.door import Door, Work
from deployments.errors import ApiError, api_error, close_code, not_ready
from deployments.fleet import Fleet
from deployments.ignored import ignored_by_model
from deployments.proxy import largest_session_bytes, size_bytes
from deployments.script import written
from deployments.settings import Settings
from deployments.speaking import Speaker, Utterance, work_seconds
from deployments.speech_request import SpeechRequest
from deployments.spoken_request import LONGEST_NAME_CHARACTERS, check_unicode, json_object
from deployments.streaming import Recording
from deployments.visit import current_visit
from deployments.voice_desk import VoiceDesk
from voice_core.errors import RequestError
from voice_core.speech import DEFAULT_VOICE, MAX_SEED, ModelFacts, Segment, VoicePrompt
from voice_core.text import complete_length, detect_language, has_words, parse_language

PATH = "/v1/audio/speech/stream"
PATIENCE_SECONDS = 300.0  # with a client that says nothing
ROOM_POLL_SECONDS = 1.0  # at most, between two looks whether there is room for the next segment of a session
# What a text that grows can't be asked for.
NOT_HERE = ("input", "n", "seconds", "stream_format", "captions", "manifest")
USUAL = {"model": "voice", "voice": DEFAULT_VOICE, "response_format": "pcm"}
# What a client may say after its first message, and the fields that this has.
MESSAGES = {
    "input.text": ("type", "text"),
    "input.flush": ("type",),
    "input.cancel": ("type",),
    "input.done": ("type",),
}

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
        closing = asyncio.Event()
        with suppress(WebSocketDisconnect, RuntimeError), ExitStack() as held:  # who has left can't be told anything
            try:
                held.enter_context(self._door.let_in(closing))
                await self._serve(websocket, Messages(websocket, self._settings, closing))
            except WebSocketDisconnect:
                raise
            except Exception as error:
                await _tell_error(websocket, api_error(websocket, error))

    async def _serve(self, websocket: WebSocket, messages: Messages) -> None:
        first = await messages.next(self._settings.largest_upload_bytes)
        if first is None:
            raise _stopping()
        wanted = await asyncio.to_thread(_configured, first)
        current_visit().end_after(wanted.timeout_seconds)
        facts = await self._fleet.facts()
        voice = await self._voice(wanted, facts)
        session = Session(websocket, messages, wanted, voice, facts, self)
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
            told = f"{seconds:.0f} s of speech are waiting to be spoken, sent or heard"
            raise RequestError("text", f"{told}; at most {self._settings.longest_speech_seconds:g} s may")

    def turns(self, wanted: SpeechRequest, facts: ModelFacts) -> asyncio.Semaphore:
        """Return as many turns as one session may have segments under way."""
        others = (facts.max_rows, facts.max_rows)  # who comes while it lasts isn't known
        return asyncio.Semaphore(self._fleet.segments_at_once(facts, samples=wanted.best_of, wanted_rows=others))

    @property
    def longest_text_characters(self) -> int:
        return self._settings.longest_text_characters

    @property
    def largest_message_bytes(self) -> int:
        return self._settings.largest_body_bytes

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
                return await self._speaker.speak_for(work, segment, wanted.wishes, facts)

    async def _taken_on(self, segment: Segment, wanted: SpeechRequest, room: ExitStack, *, patient: bool) -> Work:
        seconds = work_seconds(segment) * wanted.best_of
        while True:
            try:
                return room.enter_context(self._door.take_on(seconds, wanted.best_of, wanted.priority))
            except ApiError as refusal:
                if not patient or refusal.status != 429:
                    raise
                await asyncio.sleep(min(float(refusal.headers["Retry-After"]), ROOM_POLL_SECONDS))


class Messages:
    """What a client says, message by message, each no larger than it may be, nor all of them together."""

    def __init__(self, websocket: WebSocket, settings: Settings, closing: asyncio.Event) -> None:
        self._websocket = websocket
        self._most_bytes = largest_session_bytes(settings)
        self._closing = closing
        self._came_bytes = 0

    async def next(self, largest_bytes: int, is_silent: Callable[[], bool] = lambda: True) -> str | None:
        """Return the client's next message, None when the service stops.

        Raises ApiError for one that is too large, and where none comes for a while in which we are silent too.
        """
        coming = asyncio.create_task(self.read(largest_bytes))
        closing = asyncio.create_task(self._closing.wait())
        either = {coming, closing}
        try:
            while not coming.done() and not self._closing.is_set():
                await asyncio.wait(either, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done() and not self._closing.is_set() and is_silent():
                    raise ApiError(408, f"no message came for {PATIENCE_SECONDS:g} s", code="timeout")
            text = coming.result() if coming.done() else None
            return None if self._closing.is_set() else text
        finally:
            for task in either:
                task.cancel()

    async def read(self, largest_bytes: int) -> str:
        """Return the next message, however long it takes. Raises WebSocketDisconnect for a client that leaves."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        came_bytes = size_bytes(message)
        self._came_bytes += came_bytes
        if came_bytes > largest_bytes:
            raise _too_large(f"this message has {came_bytes} bytes, at most {largest_bytes} may be in it")
        if self._came_bytes > self._most_bytes:
            raise _too_large(f"the messages of this session have more than {self._most_bytes} bytes together")
        text = message.get("text")
        if text is None:
            raise RequestError("message", "is binary; messages are JSON objects in text")
        return str(text)

    async def until_gone(self) -> None:
        """Pass over whatever is said, until the client leaves."""
        while (await self._websocket.receive())["type"] != "websocket.disconnect":
            pass
        raise WebSocketDisconnect


class Session:
    """One client's text on its way in, and its speech on its way out."""

    def __init__(
        self,
        websocket: WebSocket,
        messages: Messages,
        wanted: SpeechRequest,
        voice: SessionVoice,
        facts: ModelFacts,
        api: LiveApi,
    ) -> None:
        self._websocket = websocket
        self._messages = messages
        self._wanted = wanted
        self._voice = voice
        self._facts = facts
        self._api = api
        self._seed = secrets.randbelow(MAX_SEED + 1) if wanted.seed is None else wanted.seed
        self._recording = Recording(wanted.response_format, facts.sample_rate, wanted.inter_segment_silence)
        self._turns = api.turns(wanted, facts)
        self._group = current_visit().new_group()
        self._warnings = list(ignored_by_model(wanted, facts, rows_are_told=True))
        self._text = ""  # that no sentence's end has come for, or no word
        self._segments = 0
        self._spoken: asyncio.Queue[Utterances | None] = asyncio.Queue()  # in order; none: that was all
        self._under_way: set[Utterances] = set()
        self._unsent_seconds = 0.0  # of work, under way or done
        self._heard_until = 0.0  # on time.monotonic's clock: what was sent, if somebody listens to it as it comes
        self._sending = asyncio.Lock()  # a row and its sound belong together
        self._cancels = 0
        self._stopped = False  # by the service, before the client was done

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
        largest_bytes = self._api.largest_message_bytes
        # Who listens to what is being spoken needn't say anything.
        while (text := await self._messages.next(largest_bytes, lambda: not self._under_way)) is not None:
            message = _said(text)
            match message["type"]:
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
        self._stopped = True
        await self._speak_the_rest()
        self._spoken.put_nowait(None)
        await self._messages.until_gone()

    async def _watch(self) -> NoReturn:
        """After the last text a client may only call off, or leave."""
        while True:
            if _said(await self._messages.read(self._api.largest_message_bytes))["type"] != "input.cancel":
                raise RequestError("type", "after input.done there is only input.cancel")
            await self._cancel()
            self._spoken.put_nowait(None)

    async def _speak_what_is_complete(self) -> None:
        """Speak all whole sentences, no more at once than a request may have, for each look takes its time."""
        longest_characters = self._api.longest_text_characters
        while True:
            waiting_characters = len(self._text)
            beginning = self._text[:longest_characters]
            spoke = await self._speak_next(await asyncio.to_thread(_complete_length, beginning, self._wanted.language))
            if waiting_characters <= longest_characters:
                return
            if not spoke:
                reason = f"{waiting_characters} characters wait for the end of a sentence"
                raise RequestError("text", f"{reason}, at most {longest_characters} may")

    async def _speak_the_rest(self) -> None:
        await self._speak_next(len(self._text))
        self._text = ""  # marks without a word have no sound

    async def _speak_next(self, length_characters: int) -> bool:
        """Speak the beginning of the text that waits, and tell if there was anything to speak.

        Marks alone wait for the words that they belong to.
        """
        text = self._text[:length_characters]
        if not has_words(text):
            return False
        self._text = self._text[length_characters:]
        segments = await self._api.plan(self._wanted, self._voice, self._seed, text, self._segments, self._group)
        unsent_seconds = self._unsent_seconds + sum(map(work_seconds, segments))
        # Serve takes in what is sent at once, so a client who doesn't read is only known by the clock.
        unheard_seconds = max(0.0, self._heard_until - time.monotonic())
        self._api.check_waiting(unsent_seconds * self._wanted.best_of + unheard_seconds)
        self._unsent_seconds = unsent_seconds
        for segment in segments:
            goes_on = bool(self._under_way or self._segments)
            speaking = self._api.speak(segment, self._wanted, self._facts, self._turns, goes_on=goes_on)
            utterances = asyncio.create_task(speaking)
            self._under_way.add(utterances)
            utterances.add_done_callback(self._under_way.discard)
            self._spoken.put_nowait(utterances)
        self._segments += len(segments)
        return True

    async def _cancel(self) -> None:
        """Forget the text that waits, and call off what is being spoken; the session goes on."""
        self._text = ""
        self._cancels += 1
        self._unsent_seconds = 0.0
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
                self._unsent_seconds -= work_seconds(utterance.segment)
                self._heard_until = max(self._heard_until, time.monotonic()) + utterance.speech.seconds
                sound = await self._recording.add(utterance)
                await self._websocket.send_json({"type": "segment", **self._recording.rows[-1]})
                if sound:
                    await self._websocket.send_bytes(sound)
        async with self._sending:
            if self._recording.samples and (rest := await self._recording.close()):
                await self._websocket.send_bytes(rest)
            if self._stopped:
                raise _stopping()
            await self._websocket.send_json({"type": "session.done", "usage": self._recording.usage()})


def _stopping() -> ApiError:
    return not_ready("the service is stopping")


def _too_large(reason: str) -> ApiError:
    return ApiError(413, f"message: {reason}", "message", "request_too_large")


def _complete_length(text: str, tag: str | None) -> int:
    """Return how much of a text is whole sentences; the language is detected if there is no tag of it.

    Takes a moment for a long one, so it isn't for an event loop.
    """
    return complete_length(text, detect_language(text) if tag is None else parse_language(tag))


def _configured(text: str) -> SpeechRequest:
    """Read the first message; the text that it lacks comes later. With a recording in it, that takes a moment."""
    message = json_object(text)
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


def _said(text: str) -> dict[str, Any]:
    """Read a message after the first; one that we wouldn't heed, or not all of it, is refused."""
    message = json_object(text)
    kind = message.get("type")
    fields = MESSAGES.get(str(kind))
    if fields is None:
        raise RequestError("type", f"{str(kind)[:40]!r} is no message of a session; {_listed(MESSAGES)} are")
    for name in message:
        if name not in fields:
            raise RequestError(name[:LONGEST_NAME_CHARACTERS], f"is no field of {kind}; {_listed(fields)} are")
    return message


def _listed(names: Collection[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _text_of(message: dict[str, Any]) -> str:
    text = message.get("text")
    if not isinstance(text, str):
        raise RequestError("text", "is required, and a string")
    check_unicode("text", text)
    return text


async def _tell_error(websocket: WebSocket, error: ApiError) -> None:
    await websocket.send_json({"type": "error", **error.envelope()})
    await websocket.close(close_code(error.status), error.code)
