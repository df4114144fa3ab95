"""Finds, makes and forgets voices: asks the store, the encoder and the transcriber. Knows no HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ParamSpec, Protocol, TypeVar

from deployments.errors import not_ready
from deployments.fan_out import PendingReply, ask
from deployments.learning_queue import LearningQueue
from deployments.settings import Settings
from deployments.speech_request import LONGEST_TRANSCRIPT_CHARACTERS, SpeechRequest
from deployments.voice_request import VoiceRequest
from voice_core.errors import RequestError
from voice_core.speech import DEFAULT_VOICE, LearnedReference, ModelFacts, VoicePrompt
from voice_core.text import detect_language, has_words, normalise, parse_language
from voice_core.voices.store import MISS_SECONDS, Voice, VoiceDraft, VoiceStore

STORE_SECONDS = 20.0  # for one answer of the place where voices are kept
THREADS = 4  # of their own: a place that hangs must not take those that plan and join
FORGET_SECONDS = 5.0  # that a deletion waits for encoders to drop what they hold

P = ParamSpec("P")
Result = TypeVar("Result")

logger = logging.getLogger("ray.serve")  # Serve's own logger adds the request id to each line


class VoiceCrew(Protocol):
    """The deployments that learn voices, as calls that can be awaited and cancelled."""

    def learn(self, file: bytes, field: str) -> PendingReply[LearnedReference]: ...

    def transcribe(self, audio: bytes, language: str | None, field: str) -> PendingReply[str]: ...

    async def forget(self, recording_hash: str) -> None:
        """Let every replica that may have kept something of a recording drop it."""


@dataclass(frozen=True)
class Sent:
    """A recording as a request brought it, and the fields that it and its transcript stand in."""

    file: bytes
    transcript: str  # empty: to be transcribed
    file_field: str
    transcript_field: str
    language: str | None = None  # of the transcript, a tag; None: to be detected


class VoiceDesk:
    """Everything that a request may want of voices."""

    def __init__(self, settings: Settings, crew: VoiceCrew) -> None:
        self._settings = settings
        self._crew = crew
        self._store = VoiceStore(settings.voices)
        self._learning = LearningQueue(settings.longest_wait_seconds)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="voices")

    async def prompt(self, wanted: SpeechRequest, facts: ModelFacts) -> VoicePrompt | None:
        """Return what the decoder is to imitate; None for the model's own voice."""
        if wanted.reference_audio is not None:
            sent = Sent(wanted.reference_audio, wanted.reference_text.strip(), "reference_audio", "reference_text")
            learned, transcript = await self._learn(sent, facts)
            return VoicePrompt(_codes_for(facts, learned), transcript, code_fingerprint=facts.code_fingerprint)
        return await self.prompt_of(wanted.voice, facts)

    async def prompt_of(self, name: str, facts: ModelFacts) -> VoicePrompt | None:
        """Return the prompt of a voice, by id or name; None for the one that speaks without."""
        if name == DEFAULT_VOICE:
            return None
        if (built_in := facts.built_in_voice(name)) is not None:
            return replace(built_in.prompt, code_fingerprint=facts.code_fingerprint)
        voice = await self._known(name)
        if voice.seconds > (most_seconds := self._settings.longest_reference_seconds):
            # It was kept when longer ones were taken.
            reason = f"the recording of {name!r} takes {voice.seconds:.1f} s, at most {most_seconds:g} s are taken now"
            raise RequestError("voice", reason)
        codes = await self._codes(voice, facts)
        return VoicePrompt(codes, voice.transcript, voice.language, facts.code_fingerprint)

    async def id_of(self, name: str, facts: ModelFacts) -> str:
        """Return what means the same voice from now on, also when a newer one gets its name. RequestError if none."""
        if name == DEFAULT_VOICE or facts.built_in_voice(name) is not None:
            return name
        return (await self._known(name)).id

    async def create(self, wanted: VoiceRequest, facts: ModelFacts) -> Voice:
        """Learn a voice and keep it."""
        if len(await self.voices()) >= self._settings.most_voices:
            raise RequestError("name", f"{self._settings.most_voices} voices are kept already; delete one first")
        sent = Sent(wanted.audio_sample, wanted.transcript, "audio_sample", "transcript", wanted.language)
        learned, transcript = await self._learn(sent, facts)
        draft = VoiceDraft(
            name=wanted.name,
            transcript=transcript,
            consent=wanted.consent,
            seconds=learned.seconds,
            recording_hash=learned.recording_hash,
            code_fingerprint=learned.code_fingerprint,
            language=wanted.language,
        )
        most_voices = self._settings.most_voices  # counted again: others may have come meanwhile
        creating = self._threads.submit(self._store.create, draft, learned.audio, learned.codes, most_voices)
        try:
            return await _answer_of_store(creating)
        except BaseException:  # it took too long, or the client left: a voice that nobody was told of must not stay
            creating.add_done_callback(lambda done: self._threads.submit(self._take_back, done))
            raise

    async def voices(self) -> list[Voice]:
        """Return all voices but the model's own, oldest first."""
        return await self._in_store(self._store.voices)

    async def voice(self, voice_id: str) -> Voice | None:
        """Return the voice of that id."""
        voice = await self._find(voice_id)
        return voice if voice is not None and voice.id == voice_id else None

    async def sample(self, voice: Voice) -> bytes:
        """Return the recording of a voice, a flac file."""
        return await self._in_store(self._store.audio, voice)

    async def delete(self, voice_id: str) -> bool:
        """Remove a voice for good; False if there is none of that id."""
        voice = await self.voice(voice_id)
        try:
            return await self._in_store(self._store.delete, voice_id)
        finally:
            if voice is not None:
                await self._forget(voice)

    async def _known(self, id_or_name: str) -> Voice:
        voice = await self._find(id_or_name)
        if voice is None:
            reason = f"there is no voice {id_or_name!r}; GET /v1/audio/voices lists those that there are"
            raise RequestError("voice", reason)
        return voice

    async def _find(self, id_or_name: str) -> Voice | None:
        """Look twice for what isn't known: it may have been made elsewhere since the voices were last listed."""
        voice = await self._in_store(self._store.find, id_or_name)
        if voice is None:
            await asyncio.sleep(MISS_SECONDS)
            voice = await self._in_store(self._store.find, id_or_name)
        return voice

    async def _in_store(self, call: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        """Call something that waits for the place of the voices. ApiError (503) if that fails or doesn't answer."""
        return await _answer_of_store(self._threads.submit(call, *args, **kwargs))

    def _take_back(self, creating: Future[Voice]) -> None:
        """Delete a voice that came to be after all."""
        if creating.cancelled() or creating.exception() is not None:
            return
        voice = creating.result()
        try:
            self._store.delete(voice.id)
        except Exception:
            logger.exception("%s was kept when nobody could be told any more, and is still there", voice.id)

    async def _forget(self, voice: Voice) -> None:
        """Let encoders drop what they may still hold in memory; the voice is gone whether they answer or not."""
        try:
            async with asyncio.timeout(FORGET_SECONDS):
                await self._crew.forget(voice.recording_hash)
        except Exception:
            logger.exception("An encoder may hold codes of the deleted %s in memory until it restarts", voice.id)

    async def _learn(self, sent: Sent, facts: ModelFacts) -> tuple[LearnedReference, str]:
        """Return what is to be known of a recording, and what is said in it."""
        if not sent.transcript and self._settings.whisper_model is None:
            reason = (
                "is required: what is said in the recording, word for word. The other way out is the operator's: "
                "with whisper_model in the settings, recordings are transcribed here"
            )
            raise RequestError(sent.transcript_field, reason)
        if sent.transcript and not has_words(sent.transcript):
            reason = "must hold a letter or a number: it is what is said in the recording, word for word"
            raise RequestError(sent.transcript_field, reason)
        _check_room(sent.transcript, sent, facts)
        learned = await self._learned(sent.file, sent.file_field)
        if sent.transcript:
            return learned, sent.transcript
        heard = await ask(lambda: self._crew.transcribe(learned.audio, sent.language, sent.transcript_field))
        if not has_words(heard):
            raise RequestError(
                sent.file_field, f"no speech was found in it; say in {sent.transcript_field!r} what it is"
            )
        _check_room(heard, sent, facts)
        return learned, heard

    async def _codes(self, voice: Voice, facts: ModelFacts) -> tuple[int, ...]:
        """Return the codes of a voice; those of another model's codec are made anew from the recording."""
        if voice.code_fingerprint == facts.code_fingerprint:
            return await self._in_store(self._store.codes, voice)
        audio = await self.sample(voice)
        return _codes_for(facts, await self._learned(audio, "voice"))

    async def _learned(self, file: bytes, field: str) -> LearnedReference:
        """Have a recording learned, if it is soon its turn. ApiError (429) if it isn't."""
        with self._learning.taken_on():
            return await ask(lambda: self._crew.learn(file, field))


async def _answer_of_store(work: Future[Result]) -> Result:
    try:
        async with asyncio.timeout(STORE_SECONDS):
            return await asyncio.wrap_future(work)
    except TimeoutError as error:
        raise not_ready(f"the place of the voices has not answered for {STORE_SECONDS:g} s") from error
    except OSError as error:
        logger.error("The place of the voices failed: %s", error)
        raise not_ready("the place of the voices failed; the log says how") from error


def _check_room(transcript: str, sent: Sent, facts: ModelFacts) -> None:
    """Refuse a transcript that no row of the decoder would have room for: figures are longer in words."""
    language = parse_language(sent.language) if sent.language else detect_language(transcript)
    characters = len(normalise(transcript, language, facts.text_normaliser))
    if characters > LONGEST_TRANSCRIPT_CHARACTERS:
        reason = f"has {characters} characters as it is spoken, at most {LONGEST_TRANSCRIPT_CHARACTERS} are taken"
        raise RequestError(sent.transcript_field, reason)


def _codes_for(facts: ModelFacts, learned: LearnedReference) -> tuple[int, ...]:
    """Return the codes of a recording. ApiError (503) while one model takes over from another with another codec."""
    if learned.code_fingerprint != facts.code_fingerprint:
        raise not_ready("the model is being changed, and its codec and its decoder don't belong together yet")
    return learned.codes
