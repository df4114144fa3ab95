"""The HTTP interface of voices: OpenAI's routes and shapes, and a listing and playback beside them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.body import FORM, read_form, require_content_type
from deployments.door import Door
from deployments.errors import ApiError
from deployments.fleet import Fleet
from deployments.settings import Settings
from deployments.shapes import DeletedVoice, VoiceList, VoiceObject
from deployments.voice_desk import VoiceDesk
from deployments.voice_request import KIND, VoiceRequest
from voice_core.errors import RequestError
from voice_core.speech import DEFAULT_VOICE, BuiltInVoice, ModelFacts
from voice_core.voices.store import LostVoiceError, Voice

PATH = "/v1/audio/voices"
PATH_OF_ONE = f"{PATH}/{{voice_id}}"
PATH_OF_SAMPLE = f"{PATH_OF_ONE}/sample"
SAMPLE_MEDIA_TYPE = "audio/flac"


class VoicesApi:
    """Registers, lists, plays and deletes voices."""

    def __init__(self, settings: Settings, desk: VoiceDesk, door: Door, fleet: Fleet) -> None:
        self._settings = settings
        self._desk = desk
        self._door = door
        self._fleet = fleet

    async def create(self, request: Request) -> Response:
        require_content_type(request, FORM)
        with self._door.let_in():
            form = await read_form(request, largest_bytes=self._settings.largest_upload_bytes)
            wanted = VoiceRequest.from_form(form)
            facts = await self._fleet.facts()
            if facts.built_in_voice(wanted.name) is not None:
                raise RequestError("name", f"{wanted.name!r} is the name of a voice that comes with the model")
            voice = await self._desk.create(wanted, facts)
        return JSONResponse(_described(voice))

    async def voices(self, request: Request) -> Response:
        facts = await self._fleet.facts()
        built_in = [_built_in(voice, facts) for voice in facts.built_in_voices]
        described = [_default(), *built_in, *map(_described, await self._desk.voices())]
        first_id, last_id = described[0]["id"], described[-1]["id"]
        listed: VoiceList = {
            "object": "list",
            "data": described,
            "voices": [{"id": voice["id"], "name": voice["name"]} for voice in described],
            "first_id": first_id,
            "last_id": last_id,
            "has_more": False,
        }
        return JSONResponse(listed)

    async def voice(self, request: Request) -> Response:
        voice_id = request.path_params["voice_id"]
        if voice_id == DEFAULT_VOICE:
            return JSONResponse(_default())
        facts = await self._fleet.facts()
        if (built_in := facts.built_in_voice(voice_id)) is not None:
            return JSONResponse(_built_in(built_in, facts))
        return JSONResponse(_described(await self._named(request)))

    async def sample(self, request: Request) -> Response:
        voice = await self._named(request)
        try:
            recording = await self._desk.sample(voice)
        except LostVoiceError as error:
            raise ApiError(410, f"voice_id: {error.reason}", "voice_id", "gone") from error
        return Response(recording, media_type=SAMPLE_MEDIA_TYPE)

    async def delete(self, request: Request) -> Response:
        voice_id = request.path_params["voice_id"]
        if voice_id == DEFAULT_VOICE or (await self._fleet.facts()).built_in_voice(voice_id) is not None:
            raise ApiError(400, "voice_id: the model's own voices can't be deleted", "voice_id", "invalid_value")
        if not await self._desk.delete(voice_id):
            raise _unknown(voice_id)
        deleted: DeletedVoice = {"id": voice_id, "object": "audio.voice.deleted", "deleted": True}
        return JSONResponse(deleted)

    async def _named(self, request: Request) -> Voice:
        voice_id = request.path_params["voice_id"]
        voice = await self._desk.voice(voice_id)
        if voice is None:
            raise _unknown(voice_id)
        return voice


def _described(voice: Voice) -> VoiceObject:
    """Return OpenAI's object, and what of ours a caller may know; whoever gave consent is not told to everybody."""
    return {
        "id": voice.id,
        "object": "audio.voice",
        "type": KIND,
        "name": voice.name,
        "created_at": int(voice.created_at),
        "transcript": voice.transcript,
        "language": voice.language,
        "seconds": round(voice.seconds, 3),
    }


def _default() -> VoiceObject:
    """The model's own voice: there since the model is, without a recording."""
    return {"id": DEFAULT_VOICE, "object": "audio.voice", "type": KIND, "name": DEFAULT_VOICE, "created_at": 0}


def _built_in(voice: BuiltInVoice, facts: ModelFacts) -> VoiceObject:
    """A voice that came with the model: codes of a recording, but not the recording."""
    return {
        **_default(),
        "id": voice.name,
        "name": voice.name,
        "transcript": voice.prompt.transcript,
        "language": voice.prompt.language,
        "seconds": round(len(voice.prompt.codes) / facts.frames_per_second, 3),
    }


def _unknown(voice_id: str) -> ApiError:
    return ApiError(404, f"voice_id: there is no voice {voice_id[:64]!r} with a recording", "voice_id", "not_found")
