"""The API as OpenAPI 3.1 tells it: made of the routes, the requests' models and the answers' types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.routing import BaseRoute, Route

from deployments import dub_api, figures, page_routes, voices_api
from deployments.body import FORM, JSON
from deployments.dub_request import DubRequest
from deployments.openapi_schemas import SCHEMAS, Schema, request_form, schemas, voice_form
from deployments.reception import is_open
from deployments.settings import Settings
from deployments.speech_request import SpeechRequest
from deployments.streaming import EVENTS
from voice_core.audio.formats import FORMATS

VERSION = "0.1.0"  # the package's; a checkout that is served without being installed has no other
PATH = "/openapi.json"
DOCS_PATH = "/docs"
MIXED = "multipart/mixed"
HTML = "text/html"

ABOUT = """\
Text in, speech out, in the voice of a recording and for as many seconds as asked.

OpenAI's clients work with it: their fields, paths and errors are kept, and what is new lies flat beside them. A
field that isn't listed is refused; one that has no effect is told in `warnings`. In a JSON body, null means
that a field is not given.

Text that is still being written is spoken over a WebSocket, `/v1/audio/speech/stream`; OpenAPI has no words for
those, docs/api.md has."""

SPEECH_ABOUT = """\
A file of `response_format`, with its facts in headers. With `captions` or `manifest`: parts side by side. With
`n` above 1, or for whoever says `Accept: application/json` and neither `*/*` nor `audio/*`: an object. With
`stream_format`: the file in pieces, or events.

What is wrong by the time when the first segment is spoken is told with its status; what fails later ends events
with an `ErrorEvent`, and cuts a streamed file off."""

DUB_ABOUT = """\
Cues in, one track as long as the film out. Every cue is spoken for its own duration and placed at its own time; what
can't be kept is flagged in the report. An object by default, with `stream_format` events."""

DUB_EVENTS_ABOUT = """\
Events, each one line `data: {…}` and a blank line, without names: a `DubProgressEvent` for every cue, the track in
`DubDeltaEvent`s, then a `DubDoneEvent`; or a `DubErrorEvent`, and the stream ends."""

EVENTS_ABOUT = """\
Events, each one line `data: {…}` and a blank line, without names: at least one `DeltaEvent` for every segment,
in order, then a `DoneEvent`; or an `ErrorEvent`, and the stream ends. Lines that begin with a colon fill
silences."""

MIXED_ABOUT = """\
With `captions` or `manifest`: parts named `audio`, `captions` (application/x-subrip, text/vtt or
application/json) and `manifest` (application/json, a `Manifest`), each with its type, length and file name."""

_LEAST = {"model": "voice", "voice": "default", "input": "Hello there. How are you?"}
EXAMPLES: dict[str, Schema] = {
    "file": {"summary": "a file", "value": _LEAST | {"response_format": "wav", "seed": 7}},
    "timed": {
        "summary": "for as many seconds as asked, with captions",
        "value": _LEAST | {"seconds": 3.0, "captions": "srt"},
    },
    "samples": {"summary": "samples to choose from", "value": _LEAST | {"n": 4}},
    "events": {
        "summary": "events while it is being spoken",
        "value": _LEAST | {"stream_format": "sse", "manifest": True},
    },
}

DUB_EXAMPLES: dict[str, Schema] = {
    "srt": {
        "summary": "a subtitle file",
        "value": {
            "model": "voice",
            "voice": "default",
            "cues": "1\n00:00:00,500 --> 00:00:02,000\nHello there.\n\n2\n00:00:03,000 --> 00:00:04,000\nWell?\n",
        },
    },
}

RETRY_AFTER = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}}
ERRORS: dict[int, tuple[str, Schema]] = {
    400: ("A field is wrong; `param` names it, `code` is `invalid_value`.", {}),
    401: (
        "An API key is needed, and this is none; `code` is `invalid_api_key`.",
        {"WWW-Authenticate": {"description": "`Bearer`", "schema": {"type": "string"}}},
    ),
    403: (
        "This key may not ask for that `priority`: `code` is `priority_not_allowed`; or, where no keys are asked for, "
        "a web page of another origin sent this: `origin_not_allowed`.",
        {},
    ),
    404: ("There is no such thing; `code` is `not_found`.", {}),
    408: (
        "There was no time left: `code` is `deadline_exceeded`, or `upload_timeout` for a body that didn't come.",
        {},
    ),
    410: ("It was there, and its recording is lost; `code` is `gone`.", {}),
    413: ("The body is too large; `code` is `request_too_large`.", {}),
    415: ("The body is of a type that isn't read here; `code` is `unsupported_media_type`.", {}),
    422: ("A segment stays bad, and would be so again; `code` is `bad_segment`.", {}),
    429: (
        "Too much is being spoken already; `code` is `overloaded`, or `rate_limit_exceeded` for what a key may have.",
        RETRY_AFTER,
    ),
    500: (
        "A failure of ours that a repeat would meet again; `code` is `synthesis_failed` or `internal_error`.",
        {"x-should-retry": {"description": "`false`, for OpenAI's clients", "schema": {"const": "false"}}},
    ),
    503: (
        "Not now: `code` is `not_ready`, or `synthesis_failed` for what may succeed another time.",
        RETRY_AFTER,
    ),
}
READING = (400, 408, 413, 415)  # of a body
ASKING = (429, 500, 503)  # other deployments


@dataclass(frozen=True)
class Operation:
    """What one method does at one path."""

    summary: str
    tag: str
    answers: Mapping[str, Schema]  # by media type, of status 200
    about: str = ""
    bodies: Mapping[str, Schema] = field(default_factory=dict)  # by media type
    headers: Mapping[str, Schema] = field(default_factory=dict)  # of the answer
    errors: Sequence[int] = (500,)

    def described(self, path: str, name: str, *, needs_key: bool, is_guarded: bool) -> dict[str, Any]:
        """`is_guarded`: no key is asked for anywhere, so pages of other origins are refused."""
        answer: dict[str, Any] = {"description": self.summary, "content": dict(self.answers)}
        if self.headers:
            answer["headers"] = dict(self.headers)
        described: dict[str, Any] = {"operationId": name, "summary": self.summary, "tags": [self.tag]}
        if self.about:
            described["description"] = self.about
        if names := [part[1:-1] for part in path.split("/") if part.startswith("{")]:
            described["parameters"] = [_path_parameter(name) for name in names]
        if self.bodies:
            described["requestBody"] = {"required": True, "content": dict(self.bodies)}
        statuses = sorted({*self.errors, *([401] if needs_key else []), *([403] if is_guarded else [])})
        errors = {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}
        if needs_key:
            described["security"] = [{"key": []}]
        return described | {"responses": {"200": answer} | errors}


def document(routes: Iterable[BaseRoute], settings: Settings) -> dict[str, Any]:
    """Return the description of these routes under these settings. KeyError for a route that nothing is known of."""
    known = operations(settings)
    keys = settings.api_keys is not None
    scheme = {"type": "http", "scheme": "bearer", "description": "an API key"}
    paths: dict[str, dict[str, Any]] = {}
    for method, path in http_routes(routes):
        words = [word.strip("{}") for word in path.split("/") if word and word != "v1"]
        name = "_".join([method.lower(), *words]).replace(".", "_")
        paths.setdefault(path, {})[method.lower()] = known[method, path].described(
            path, name, needs_key=keys and not is_open(path), is_guarded=not keys
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": "voice-serve", "version": VERSION, "description": ABOUT},
        "servers": [{"url": ".", "description": "where this document lies, also behind a proxy that adds a prefix"}],
        "paths": paths,
        "components": {
            "schemas": schemas(settings),
            "securitySchemes": {"key": scheme} if keys else {},
            "responses": {
                str(status): {"description": about, "headers": headers, "content": _json("ErrorEnvelope")}
                for status, (about, headers) in ERRORS.items()
            },
        },
    }


def http_routes(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Yield every method and path. HEAD is GET without its body, and goes without saying."""
    for route in routes:
        if isinstance(route, Route):
            yield from ((method, route.path) for method in sorted((route.methods or set()) - {"HEAD"}))


def operations(settings: Settings) -> dict[tuple[str, str], Operation]:
    """Return what is known of every method and path."""
    speech_form = request_form(SpeechRequest, {"reference_audio": "a recording of the voice"})
    speech_bodies = {JSON: _json("SpeechRequest")[JSON] | {"examples": EXAMPLES}, FORM: speech_form}
    files = {file_format.media_type: _file() for file_format in FORMATS.values()}
    speech_answers = {
        **files,
        JSON: _json("SpeechObject")[JSON],
        MIXED: _file(MIXED_ABOUT),
        EVENTS: _events(EVENTS_ABOUT, "DeltaEvent", "DoneEvent", "ErrorEvent"),
    }
    dub_answers = {
        JSON: _json("DubObject")[JSON],
        EVENTS: _events(DUB_EVENTS_ABOUT, "DubProgressEvent", "DubDeltaEvent", "DubDoneEvent", "DubErrorEvent"),
    }
    dub_form = request_form(DubRequest, {"cues": "an SRT or WebVTT file, or its text"})
    voices, voice, sample = voices_api.PATH, voices_api.PATH_OF_ONE, voices_api.PATH_OF_SAMPLE
    return {
        ("POST", "/v1/audio/speech"): Operation(
            "Speech",
            "speech",
            speech_answers,
            about=SPEECH_ABOUT,
            bodies=speech_bodies,
            headers=_speech_headers(),
            errors=(*READING, 403, 422, *ASKING),
        ),
        ("POST", "/v1/audio/speech/estimate"): Operation(
            "What a request for speech would take; nothing is spoken",
            "speech",
            _json("Quote"),
            bodies=speech_bodies,
            errors=(*READING, 403, *ASKING),
        ),
        ("POST", dub_api.PATH): Operation(
            "A dub",
            "speech",
            dub_answers,
            about=DUB_ABOUT,
            bodies={JSON: _json("DubRequest")[JSON] | {"examples": DUB_EXAMPLES}, FORM: dub_form},
            errors=(*READING, 403, 422, *ASKING),
        ),
        ("POST", voices): Operation(
            "Keep a voice",
            "voices",
            _json("VoiceObject"),
            about=f"From a recording of {settings.shortest_reference_seconds:g} to "
            f"{settings.longest_reference_seconds:g} s: wav, flac, mp3, ogg, aiff, au or caf, 8 to 96 kHz, mono or "
            "stereo.",
            bodies={FORM: voice_form(settings)},
            errors=(*READING, *ASKING),
        ),
        ("GET", voices): Operation("All voices", "voices", _json("VoiceList"), errors=(500, 503)),
        ("GET", voice): Operation("One voice", "voices", _json("VoiceObject"), errors=(404, 500, 503)),
        ("DELETE", voice): Operation(
            "Delete a voice, its recording, and what was cached of them, for good",
            "voices",
            _json("DeletedVoice"),
            errors=(400, 404, 500, 503),
        ),
        ("GET", sample): Operation(
            "The recording of a voice",
            "voices",
            {voices_api.SAMPLE_MEDIA_TYPE: _file()},
            errors=(404, 410, 500, 503),
        ),
        ("GET", "/v1/models"): Operation("The model that is served", "service", _json("ModelList"), errors=(500, 503)),
        ("GET", "/healthz"): Operation("The process answers", "service", _json("Alive"), errors=()),
        ("GET", "/readyz"): Operation(
            "A request that came now would be spoken", "service", _json("Ready"), errors=(429, 500, 503)
        ),
        ("GET", "/status"): Operation(
            "The service at a glance", "service", {HTML: _file(), JSON: {"schema": {"type": "object"}}}
        ),
        ("GET", "/metrics"): Operation(
            "Figures for Prometheus", "service", {figures.MEDIA_TYPE.partition(";")[0]: _file()}
        ),
        ("GET", "/"): Operation("The page to try it", "page", {HTML: _file()}, errors=()),
        ("GET", "/page/{name}"): Operation(
            "What the page is made of",
            "page",
            {media_type: _file() for media_type in page_routes.MEDIA_TYPES.values()},
            errors=(404,),
        ),
        ("GET", PATH): Operation("This description", "service", {JSON: {"schema": {"type": "object"}}}, errors=()),
        ("GET", DOCS_PATH): Operation("This description, for people", "service", {HTML: _file()}, errors=()),
    }


def _speech_headers() -> dict[str, Schema]:
    """Return the headers of files; of those, streams have what is known before the first byte."""
    texts = {
        "X-Finish-Reasons": "of each segment, `stop` or `length`; counts of each for more than 64 segments",
        "X-Asked-Seconds": "of each segment; the sum for more than 64",
        "X-Got-Seconds": "of each segment, as spoken; the sum for more than 64",
        "X-Warnings": "what of the request has no effect, and why; sentences with a semicolon between them",
    }
    numbers = {
        "X-Sample-Rate": "Hz, of the file",
        "X-Segments": "how many there are",
        "X-Seed": "that gives the same file again",
        "X-Dropped-Codes": "special codes in mid-speech that have no sound; only where there are any",
    }
    described = {name: {"description": about, "schema": {"type": "string"}} for name, about in texts.items()}
    described |= {name: {"description": about, "schema": {"type": "integer"}} for name, about in numbers.items()}
    described["X-Audio-Seconds"] = {"description": "of the file", "schema": {"type": "number"}}
    return described


def _events(about: str, *names: str) -> Schema:
    """Return the content of a stream of events: the schema of one of them, as OpenAPI 3.2 has it."""
    shapes = [{"$ref": SCHEMAS + name} for name in names]
    data = {"type": "string", "contentMediaType": JSON, "contentSchema": {"oneOf": shapes}}
    return {"schema": {"description": about, "type": "object", "properties": {"data": data}, "required": ["data"]}}


def _file(about: str = "") -> Schema:
    """Return the content of an answer that is no JSON; an empty schema says that it is bytes."""
    return {"schema": {"description": about} if about else {}}


def _json(name: str) -> dict[str, Schema]:
    return {JSON: {"schema": {"$ref": SCHEMAS + name}}}


def _path_parameter(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
