"""Keeps voices in one place that every replica reads: a folder, or a bucket of any store that fsspec knows.

    <place>/objects/<voice id>/<sha256 of the content>   the recording (flac), and its codes
    <place>/records/<voice id>.json                      who it is, and which objects are its

Every file is written once, under a name that nobody else can have: so no two writers meet, and no lock is needed on
stores that have none. A record is written last and appears whole; it names its objects by the hash of their content,
and what doesn't match is not read. Names are labels, not keys: voices of one name live side by side, and the name
means the newest of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import threading
import time
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from fsspec.core import url_to_fs

from voice_core.errors import RequestError
from voice_core.speech import DEFAULT_VOICE
from voice_core.voices.cache import BYTES_PER_CODE, ByteBoundedCache

FRESH_SECONDS = 0.5  # a listing is believed so long; a voice made elsewhere is known here after it at the latest
MOST_CACHED_BYTES = 16_000_000  # of codes: thousands of voices
MOST_READERS = 16  # of records at once: a bucket takes its time for each
LONGEST_NAME_CHARACTERS = 64

_VOICE_ID = re.compile(r"voice_[0-9a-f]{32}")
_NAME = re.compile(r"\w[\w .'-]*")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class VoiceDraft:
    """What is known of a voice before it has a place in the store."""

    name: str
    transcript: str
    consent: str  # the statement under which the recording was given
    seconds: float  # of the recording
    recording_hash: str  # of its samples
    code_fingerprint: str  # of the codec that the codes belong to
    language: str | None = None  # of the transcript; None: to be detected


@dataclass(frozen=True, kw_only=True)
class Voice(VoiceDraft):
    """A voice that is kept."""

    id: str
    created_at: float  # seconds since 1970
    audio_object: str
    codes_object: str


class VoiceStore:
    """The voices at one place; thread-safe. Its methods block."""

    def __init__(self, place: str) -> None:
        self._files, self._root = url_to_fs(place, use_listings_cache=False)
        self._voices: dict[str, Voice] = {}  # by id, as far as read
        self._listed_at = float("-inf")  # monotonic seconds
        self._codes: ByteBoundedCache[tuple[int, ...]] = ByteBoundedCache(MOST_CACHED_BYTES)
        self._lock = threading.Lock()

    def create(self, draft: VoiceDraft, audio: bytes, codes: Sequence[int]) -> Voice:
        """Keep a new voice; it exists for everybody from the moment that this returns."""
        voice_id = f"voice_{secrets.token_hex(16)}"
        voice = Voice(
            **asdict(draft),
            id=voice_id,
            created_at=time.time(),
            audio_object=self._write_object(voice_id, audio),
            codes_object=self._write_object(voice_id, json.dumps(list(codes)).encode()),
        )
        self._write_record(voice)
        with self._lock:
            self._voices[voice_id] = voice
        return voice

    def voices(self) -> list[Voice]:
        """Return all voices, oldest first."""
        with self._lock:
            if time.monotonic() - self._listed_at > FRESH_SECONDS:
                self._list()
            return sorted(self._voices.values(), key=_age)

    def find(self, id_or_name: str) -> Voice | None:
        """Return the voice of that id, or the newest of that name; what isn't known yet is looked for at once."""
        found = _among(self.voices(), id_or_name)
        if found is None:
            with self._lock:
                self._list()
                found = _among(sorted(self._voices.values(), key=_age), id_or_name)
        return found

    def audio(self, voice: Voice) -> bytes:
        """Return the recording, a flac file."""
        return self._read_object(voice, voice.audio_object)

    def codes(self, voice: Voice) -> tuple[int, ...]:
        """Return the recording's codes, in the numbering of the codec that `code_fingerprint` tells."""
        codes = self._codes.get(voice.codes_object)
        if codes is None:
            codes = tuple(json.loads(self._read_object(voice, voice.codes_object)))
            self._codes.put(voice.codes_object, codes, BYTES_PER_CODE * len(codes))
        return codes

    def delete(self, voice_id: str) -> Voice | None:
        """Remove a voice for good and return it; None if there is none of that id.

        The record goes last: a deletion that breaks off can be asked for again.
        """
        voice = self.find(voice_id)
        if voice is None or voice.id != voice_id:
            return None
        try:
            self._files.rm(self._objects(voice_id), recursive=True)
        except FileNotFoundError:
            logger.info("The objects of %s were gone already", voice_id)
        try:
            self._files.rm_file(self._record(voice_id))
        except FileNotFoundError:
            return None  # somebody else was faster
        finally:
            with self._lock:
                self._forget(voice_id)
        return voice

    def _list(self) -> None:
        """Bring `_voices` up to date: records never change, so only new ones are read."""
        try:
            files: list[str] = self._files.ls(f"{self._root}/records", detail=False)
        except FileNotFoundError:  # nothing was ever kept here
            files = []
        there = {name.removesuffix(".json") for file in files if (name := file.rpartition("/")[2]).endswith(".json")}
        for gone in self._voices.keys() - there:
            self._forget(gone)
        new = [voice_id for voice_id in there - self._voices.keys() if _VOICE_ID.fullmatch(voice_id)]
        if new:
            with ThreadPoolExecutor(MOST_READERS) as readers:
                self._voices |= {voice.id: voice for voice in readers.map(self._read_record, new) if voice is not None}
        self._listed_at = time.monotonic()

    def _forget(self, voice_id: str) -> None:
        voice = self._voices.pop(voice_id, None)
        if voice is not None:
            self._codes.drop(voice.codes_object)

    def _read_record(self, voice_id: str) -> Voice | None:
        try:
            voice = Voice(**json.loads(self._files.cat_file(self._record(voice_id))))
        except (FileNotFoundError, ValueError, TypeError) as error:  # deleted meanwhile, or not whole
            logger.warning("There is no voice in the record of %s: %s", voice_id, error)
            return None
        return voice if voice.id == voice_id else None

    def _write_record(self, voice: Voice) -> None:
        """Let the record appear whole, also in folders, where a write is seen while it happens."""
        record = self._record(voice.id)
        self._files.makedirs(f"{self._root}/records", exist_ok=True)
        self._files.pipe_file(f"{record}.part", json.dumps(asdict(voice)).encode())
        self._files.mv(f"{record}.part", record)

    def _write_object(self, voice_id: str, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        self._files.makedirs(self._objects(voice_id), exist_ok=True)
        self._files.pipe_file(f"{self._objects(voice_id)}/{name}", content)
        return name

    def _read_object(self, voice: Voice, name: str) -> bytes:
        try:
            content: bytes = self._files.cat_file(f"{self._objects(voice.id)}/{name}")
        except FileNotFoundError as error:
            raise RequestError("voice", f"{voice.name!r} is being deleted") from error
        if hashlib.sha256(content).hexdigest() != name:
            raise OSError(f"{self._objects(voice.id)}/{name} is damaged: its content has another hash")
        return content

    def _objects(self, voice_id: str) -> str:
        return f"{self._root}/objects/{voice_id}"

    def _record(self, voice_id: str) -> str:
        return f"{self._root}/records/{voice_id}.json"


def checked_name(name: str) -> str:
    """Return a voice's name as it is kept; raises RequestError for one that could be taken for something else."""
    kept = unicodedata.normalize("NFC", name).strip()
    if not _NAME.fullmatch(kept) or len(kept) > LONGEST_NAME_CHARACTERS:
        allowed = "letters, digits, spaces, and _ . ' - after the first"
        raise RequestError("name", f"must be 1 to {LONGEST_NAME_CHARACTERS} characters: {allowed}")
    if kept.casefold() == DEFAULT_VOICE or _VOICE_ID.fullmatch(kept):
        raise RequestError("name", f"{kept!r} is a voice's already: the model's own, or an id")
    return kept


def _among(voices: Sequence[Voice], id_or_name: str) -> Voice | None:
    name = unicodedata.normalize("NFC", id_or_name).strip()
    return next((voice for voice in reversed(voices) if id_or_name == voice.id or name == voice.name), None)


def _age(voice: Voice) -> tuple[float, str]:
    return voice.created_at, voice.id
