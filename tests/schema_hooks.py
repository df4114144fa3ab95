"""What schemathesis can't know of this service: a voice and a recording that are there, and what a whole answer is."""

from __future__ import annotations

import base64
import email
import io
import json
from typing import Any

import jsonschema
import schemathesis
import soundfile
from schemathesis.transport.serialization import Binary

from tests.audio.ffmpeg import heard_by_ffmpeg
from tests.voices.recordings import audio_file, hum
from voice_core.speech import DEFAULT_VOICE

RECORDING = audio_file(hum())
WORDS = "So this is said. "
SPEECH = "/v1/audio/speech"
DUB = "/v1/audio/dub"
CUES = "1\n00:00:00,500 --> 00:00:02,000\nHello there.\n\n2\n00:00:03,000 --> 00:00:04,000\nWell?\n"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Make requests that are right in form right in substance too, or all that is ever met is a refusal."""
    if case.meta is None or case.meta.generation.mode.is_negative or not isinstance(case.body, dict):
        return
    is_form = "form" in (case.media_type or "")
    if case.operation.path == "/v1/audio/voices":
        case.body.update({"audio_sample": Binary(RECORDING), "name": "Ann", "consent": WORDS, "transcript": WORDS})
    if case.operation.path.startswith(SPEECH):
        case.body.update({"voice": DEFAULT_VOICE, "input": WORDS + str(case.body["input"])})
        if case.body.get("reference_audio") is not None:
            recording = Binary(RECORDING) if is_form else base64.b64encode(RECORDING).decode()
            case.body.update({"reference_audio": recording, "reference_text": WORDS})
    if case.operation.path == DUB:
        case.body.update({"voice": DEFAULT_VOICE, "cues": Binary(CUES.encode()) if is_form else CUES})
        case.body.update({name: real for name, real in (("voices", {}), ("track_seconds", 5)) if name in case.body})
    if case.body.get("timeout_seconds") is not None:
        case.body.update({"timeout_seconds": 60})  # the connection is cut when time is up, and that is no answer
    case._sync_validated_hashes()  # or it is judged again, and its judge takes no file for a string


@schemathesis.deserializer("audio/*", "multipart/mixed", "text/html", "text/css", "text/javascript")
def nothing(context: Any, response: Any) -> None:
    """Files have no schema; the check below reads them."""


@schemathesis.check
def what_is_answered_is_whole(context: Any, response: Any, case: Any) -> None:
    """Files can be played, parts taken apart, and events have the shapes that the description gives them."""
    if response.status_code != 200 or case.operation.path not in (SPEECH, DUB):
        return
    media_type = response.headers["content-type"][0].partition(";")[0]
    if media_type == "application/json":
        whole = response.json()
        for audio in whole.get("audios", [whole]):
            _check_plays(audio["media_type"], base64.b64decode(audio["audio"]))
    elif media_type == "multipart/mixed":
        head = f"Content-Type: {response.headers['content-type'][0]}\r\n\r\n".encode()
        parts = email.message_from_bytes(head + response.content).get_payload()
        _check_plays(parts[0].get_content_type(), parts[0].get_payload(decode=True))
    elif media_type == "text/event-stream":
        _check_events(response.content.decode(), case.operation.schema.raw_schema["components"])
    else:
        _check_plays(media_type, response.content)


def _check_events(text: str, components: dict[str, Any]) -> None:
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    events = [json.loads(block.removeprefix("data: ")) for block in blocks]
    for event in events:
        name = f"{'Dub' * event['type'].startswith('dub')}{event['type'].rpartition('.')[2].capitalize()}Event"
        jsonschema.validate(event, {"$ref": f"#/components/schemas/{name}", "components": components})
    assert events[-1]["type"].endswith((".done", ".error")), "events without an end"


def _check_plays(media_type: str, content: bytes) -> None:
    assert content, "an empty file"
    if media_type == "audio/aac":  # which libsndfile can't read
        assert len(heard_by_ffmpeg(content)[0]) > 0
    elif media_type != "audio/pcm":
        assert soundfile.info(io.BytesIO(content)).samplerate >= 8000
