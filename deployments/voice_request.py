"""One request for a voice, as it stands in the form: OpenAI's fields and ours, checked at the door."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from deployments.body import LONGEST_TOLD_NAME, Form
from deployments.speech_request import LONGEST_TRANSCRIPT_CHARACTERS
from voice_core.errors import RequestError
from voice_core.text import parse_language
from voice_core.voices.store import checked_name

LONGEST_CONSENT_CHARACTERS = 2000
KIND: Final = "audio_sample"  # of voices: OpenAI knows others, made from a description

TEXTS = ("name", "transcript", "consent", "language", "type")
FILE = "audio_sample"


@dataclass(frozen=True)
class VoiceRequest:
    """Whose voice it is, its recording, and what is said in it."""

    name: str
    audio_sample: bytes
    consent: str  # the statement under which the recording was given
    transcript: str  # empty: to be transcribed
    language: str | None  # a tag, of the transcript

    @classmethod
    def from_form(cls, form: Form) -> Self:
        """Read the form; whatever is wrong with it is one RequestError that names the field."""
        for name in (*form.texts, *form.files):
            if name not in TEXTS and name != FILE:
                known = ", ".join((*TEXTS, FILE))
                raise RequestError(name[:LONGEST_TOLD_NAME], f"is not a field of this form; the fields are {known}")
        if form.texts.get("type", KIND) != KIND:
            raise RequestError("type", f"voices are made of recordings here; leave it out or send {KIND!r}")
        language = form.texts.get("language") or None
        if language is not None:
            parse_language(language)
        return cls(
            name=checked_name(_required(form, "name", LONGEST_TOLD_NAME)),
            audio_sample=_required_file(form),
            consent=_required(form, "consent", LONGEST_CONSENT_CHARACTERS),
            transcript=_text(form, "transcript", LONGEST_TRANSCRIPT_CHARACTERS),
            language=language,
        )


def _required_file(form: Form) -> bytes:
    if FILE not in form.files:
        reason = "must be a file, not a text" if FILE in form.texts else "is required: the recording, a file"
        raise RequestError(FILE, reason)
    return form.files[FILE]


def _required(form: Form, name: str, longest_characters: int) -> str:
    text = _text(form, name, longest_characters)
    if not text:
        hint = ": say that the speaker agreed to this use of the recording" if name == "consent" else ""
        raise RequestError(name, f"is required{hint}")
    return text


def _text(form: Form, name: str, longest_characters: int) -> str:
    if name in form.files:
        raise RequestError(name, "must be a text, not a file")
    text = form.texts.get(name, "").strip()
    if len(text) > longest_characters:
        raise RequestError(name, f"{len(text)} characters, at most {longest_characters} are taken")
    return text
