"""The schemas of requests and answers, as the API's description has them: those of the models and types themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from typing_extensions import is_typeddict

from deployments import shapes
from deployments.body import JSON
from deployments.dub_request import DubRequest
from deployments.settings import Settings
from deployments.speech_request import LONGEST_TRANSCRIPT_CHARACTERS, SpeechRequest
from deployments.spoken_request import SpokenRequest
from deployments.voice_request import KIND, LONGEST_CONSENT_CHARACTERS
from voice_core.text import BCP_47
from voice_core.voices.store import LONGEST_NAME_CHARACTERS

SCHEMAS = "#/components/schemas/"

Schema = dict[str, Any]

FILE: Schema = {"type": "string", "contentMediaType": "application/octet-stream"}


def schemas(settings: Settings) -> dict[str, Schema]:
    """Return the schemas of all requests and answers by their names."""
    answers = [shape for shape in vars(shapes).values() if is_typeddict(shape)]
    adapters: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        (shape.__name__, "validation", TypeAdapter(shape)) for shape in answers
    ]
    _, defined = TypeAdapter.json_schemas(adapters, ref_template=SCHEMAS + "{model}")
    speech, dub = _request(SpeechRequest), _request(DubRequest)
    speech["properties"]["input"] |= {"minLength": 1, "maxLength": settings.longest_text_characters}
    return {"SpeechRequest": speech, "DubRequest": dub} | {
        name: _without_titles(schema) for name, schema in defined["$defs"].items()
    }


def _request(model: type[SpokenRequest]) -> Schema:
    """Return a request's own schema, and that null stands for what is not given."""
    schema = _schema(model)
    for name, of_field in schema["properties"].items():
        if name not in schema["required"]:
            schema["properties"][name] = _or_null(of_field)
    return schema


def _schema(model: type[SpokenRequest]) -> Schema:
    schema = _without_titles(model.model_json_schema())
    schema["properties"] = {name: schema["properties"][name] for name in model.field_names()}
    return schema


def request_form(model: type[SpokenRequest], files: Mapping[str, str]) -> Schema:
    """Return the fields of a request as a form has them: some are files, and what isn't text is written as in JSON."""
    whole = _schema(model)
    as_they_are = {*model.TEXT_FIELDS, *files}
    properties = {name: _not_null(of_field) for name, of_field in whole["properties"].items()}
    properties["voice"] = _not_null(properties["voice"]["anyOf"][0] | {"description": "a voice's name or id"})
    properties |= {name: FILE | {"description": about} for name, about in files.items()}
    return {
        "schema": {
            "type": "object",
            "properties": properties,
            "required": whole["required"],
            "additionalProperties": False,
        },
        "encoding": {name: {"contentType": JSON} for name in properties if name not in as_they_are},
    }


def voice_form(settings: Settings) -> Schema:
    """Return the fields of a form that makes a voice."""
    transcribed = "" if settings.whisper_model is None else "; a Whisper writes it down where it is left out"
    properties: dict[str, Schema] = {
        "name": {
            "type": "string",
            "minLength": 1,
            "maxLength": LONGEST_NAME_CHARACTERS,
            "description": "of letters, figures, spaces, and . ' - in between",
        },
        "audio_sample": FILE | {"description": "the recording"},
        "consent": {
            "type": "string",
            "minLength": 1,
            "maxLength": LONGEST_CONSENT_CHARACTERS,
            "description": "the statement under which the recording was given",
        },
        "transcript": {
            "type": "string",
            "maxLength": LONGEST_TRANSCRIPT_CHARACTERS,
            "description": f"what is said in the recording, word for word{transcribed}",
        },
        "language": {"type": "string", "pattern": f"^({BCP_47})?$", "description": "of the transcript, a tag"},
        "type": {"const": KIND, "description": "voices are made of recordings here"},
    }
    required = ["name", "audio_sample", "consent", *([] if settings.whisper_model else ["transcript"])]
    return {
        "schema": {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }
    }


def _or_null(schema: Schema) -> Schema:
    outer = {key: value for key, value in schema.items() if key in ("description", "default")}
    if any(choice.get("type") == "null" for choice in schema.get("anyOf", [])):
        return schema
    return {"anyOf": [{key: value for key, value in schema.items() if key not in outer}, {"type": "null"}], **outer}


def _not_null(schema: Schema) -> Schema:
    choices = [choice for choice in schema.get("anyOf", []) if choice.get("type") != "null"]
    rest = {key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)}
    return rest | (choices[0] if len(choices) == 1 else {"anyOf": choices} if choices else {})


def _without_titles(schema: Schema) -> Schema:
    """Return a copy without pydantic's titles, which say the names of fields again."""
    kept = {}
    for key, value in schema.items():
        if key == "title" and isinstance(value, str):
            continue
        kept[key] = _without_titles(value) if isinstance(value, dict) else value
    return kept
