"""Keeps voices in one place that every replica reads: a folder, or a bucket of any store that fsspec knows.

    <place>/objects/<voice id>/<sha256 of the content>   the recording (flac), and its codes
    <place>/records/<voice id>.json                      who it is, and which objects are its
    <place>/records/<voice id>.deleted                   its objects are being removed

Every file is written once, under a name that nobody else can have: so no two writers meet, and no lock is needed on
stores that have none. A record is written last and appears whole; it names its objects by the hash of their content,
and what doesn't match is not read. A record goes first, too: a deletion that breaks off leaves no voice, and whoever
lists the voices later removes the rest. Nothing but records stays in memory, until the next listing.

Names are labels, not keys: voices of one name live side by side, and the name means the newest of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import threading
import time
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from voice_core.errors import RequestError
from voice_core.speech import DEFAULT_VOICE

FRESH_SECONDS = 0.5  # a listing is believed so long; a voice made elsewhere is known here after it at the latest
MISS_SECONDS = 0.2  # a listing so old is believed too where it lacks what is asked for: guesses cost no listing each
SWEEP_SECONDS = 3600.0  # between two looks for what interrupted writers left; as old must it be
MOST_READERS = 16  # of records at once: a bucket takes its time for each
REMOVALS = 5  # of one folder, when others remove it too
LONGEST_NAME_CHARACTERS = 64

_VOICE_ID = re.compile(r"voice_[0-9a-f]{32}")
_NAME = re.compile(r"\w[\w .'-]*")

logger = logging.getLogger(__name__)


class LostVoiceError(RequestError):
    """A voice whose recording or codes are gone or damaged: it can only be deleted."""


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
        self._unreadable: set[str] = set()  # ids of records that hold no voice; they are read again once an hour
        self._unread: frozenset[str] = frozenset()  # ids of records that could not be read when they were last listed
        self._deleted: set[str] = set()  # ids; a listing that began before must not bring them back
        self._listed_at = float("-inf")  # monotonic seconds, when the last listing began
        self._swept_at = float("-inf")  # monotonic seconds
        self._lock = threading.Lock()  # of what is known; held for no call to the store
        self._listing = threading.Lock()  # one lists, and whoever waits takes its result
        self._creating = threading.Lock()  # of the last step, where voices are counted

    def create(self, draft: VoiceDraft, audio: bytes, codes: Sequence[int], most_voices: int | None = None) -> Voice:
        """Keep a new voice; it exists for everybody from the moment that this returns.

        Leaves nothing behind if it fails. Raises RequestError if there are `most_voices` already.
        """
        voice_id = f"voice_{secrets.token_hex(16)}"
        try:
            voice = Voice(
                **asdict(draft),
                id=voice_id,
                created_at=time.time(),
                audio_object=self._write_object(voice_id, audio),
                codes_object=self._write_object(voice_id, json.dumps(list(codes)).encode()),
            )
            with self._creating:
                self._require_room(most_voices)
                self._write_record(voice)
                with self._lock:
                    self._voices[voice_id] = voice
        except BaseException:
            self._remove_files([f"{self._record(voice_id)}.part", self._record(voice_id)])
            self._remove_objects(voice_id)
            raise
        return voice

    def voices(self) -> list[Voice]:
        """Return all voices, oldest first."""
        self._list(FRESH_SECONDS)
        with self._lock:
            return sorted(self._voices.values(), key=_age)

    def find(self, id_or_name: str) -> Voice | None:
        """Return the voice of that id, or the newest of that name.

        What isn't known is looked for again if the last listing is older than `MISS_SECONDS`. Raises OSError if it may
        be one whose record can't be read.
        """
        found = _among(self.voices(), id_or_name)
        if found is None:
            self._list(MISS_SECONDS)
            found = _among(self.voices(), id_or_name)
        if found is None and self._unread:
            raise OSError(f"the records of {len(self._unread)} voices can't be read; {id_or_name!r} may be one of them")
        return found

    def audio(self, voice: Voice) -> bytes:
        """Return the recording, a flac file; raises LostVoiceError if it is not there whole."""
        return self._read_object(voice, voice.audio_object)

    def codes(self, voice: Voice) -> tuple[int, ...]:
        """Return the recording's codes, in the numbering of the codec that `code_fingerprint` tells.

        They are read each time: what was deleted is spoken by nobody, and lies in nobody's memory.
        """
        return tuple(json.loads(self._read_object(voice, voice.codes_object)))

    def delete(self, voice_id: str) -> bool:
        """Remove whatever is there of a voice, for good; False if there is nothing of that id.

        From the moment that the record is gone there is no voice, whatever happens next; who lists finishes the rest.
        """
        if not _VOICE_ID.fullmatch(voice_id):
            return False
        there = [self._record(voice_id), self._tombstone(voice_id), self._objects(voice_id)]
        if not any(map(self._files.exists, there)):
            with self._lock:
                self._voices.pop(voice_id, None)
            return False
        self._files.makedirs(f"{self._root}/records", exist_ok=True)
        self._write(self._tombstone(voice_id), b"")
        self._remove_files([self._record(voice_id)])
        with self._lock:
            self._deleted.add(voice_id)
            self._voices.pop(voice_id, None)
        self._finish_deletion(voice_id)
        return True

    def _list(self, oldest_seconds: float) -> None:
        """Bring `_voices` up to date if the last listing is older: records never change, so only new ones are read."""
        with self._listing:
            began = time.monotonic()
            if began - self._listed_at <= oldest_seconds:
                return
            with self._lock:
                known = set(self._voices)
            files = self._listed(f"{self._root}/records")
            there = {id_ for id_ in _named(files, ".json") if _VOICE_ID.fullmatch(id_)} - _named(files, ".deleted")
            hour_passed = began - self._swept_at > SWEEP_SECONDS
            # One that was being copied here when it was read is whole after an hour.
            self._unreadable = set() if hour_passed else self._unreadable & there
            read = self._read_records(there - known - self._unreadable)
            new = [voice for voice in read.values() if isinstance(voice, Voice)]
            self._tell_unread({voice_id: error for voice_id, error in read.items() if isinstance(error, OSError)})
            with self._lock:
                for gone in known - there:  # and not who was created meanwhile
                    self._voices.pop(gone, None)
                self._voices |= {voice.id: voice for voice in new if voice.id not in self._deleted}
            self._listed_at = began
            if hour_passed or _named(files, ".deleted"):
                self._swept_at = began
                self._sweep(files)

    def _listed(self, folder: str) -> list[str]:
        try:
            files: list[str] = self._files.ls(folder, detail=False)
        except FileNotFoundError:  # nothing was ever kept here
            return []
        return files

    def _tell_unread(self, failed: Mapping[str, OSError]) -> None:
        """Note whose records the place didn't give, so that the others stay known; each is told of once."""
        for voice_id in failed.keys() - self._unread:
            logger.warning("The record of %s can't be read: %s", voice_id, failed[voice_id])
        self._unread = frozenset(failed)

    def _read_records(self, voice_ids: Collection[str]) -> dict[str, Voice | OSError | None]:
        if not voice_ids:
            return {}
        with ThreadPoolExecutor(MOST_READERS) as readers:
            return dict(zip(voice_ids, readers.map(self._read_record, voice_ids), strict=True))

    def _read_record(self, voice_id: str) -> Voice | OSError | None:
        """Return the voice; None where there is none, and what the place said where it didn't give the record."""
        try:
            content: bytes = self._files.cat_file(self._record(voice_id))
        except FileNotFoundError:  # deleted meanwhile
            return None
        except OSError as error:
            return error
        try:
            return _parsed(content, voice_id)
        except (ValueError, TypeError) as error:
            self._unreadable.add(voice_id)
            logger.warning("There is no voice in the record of %s, which can only be deleted: %s", voice_id, error)
            return None

    def _require_room(self, most_voices: int | None) -> None:
        if most_voices is None:
            return
        self._list(0)
        with self._lock:
            if len(self._voices) >= most_voices:
                raise RequestError("name", f"{most_voices} voices are kept already; delete one first")

    def _sweep(self, records: list[str]) -> None:
        """Remove what interrupted deletions and creations left; a failure is told, and the next sweep tries again."""
        try:
            deleted = _named(records, ".deleted")
            for voice_id in deleted:
                self._remove_files([self._record(voice_id)])  # the deletion may have broken off even before that
                self._finish_deletion(voice_id)
            self._remove_files([file for file in records if file.endswith(".part") and self._is_old(file)])
            kept = _named(records, ".json") | deleted
            for folder in self._listed(f"{self._root}/objects"):
                voice_id = folder.rpartition("/")[2]
                if voice_id in kept or not _VOICE_ID.fullmatch(voice_id):
                    continue
                if all(map(self._is_old, self._files.find(folder) or [folder])):
                    self._finish_deletion(voice_id)
        except (OSError, NotImplementedError) as error:
            logger.warning("What interrupted writers left could not be swept: %s", error)

    def _is_old(self, file: str) -> bool:
        try:
            modified: datetime = self._files.modified(file)
        except FileNotFoundError:  # somebody is at it
            return False
        if modified.tzinfo is None:
            modified = modified.replace(tzinfo=UTC)
        return (datetime.now(UTC) - modified).total_seconds() > SWEEP_SECONDS

    def _finish_deletion(self, voice_id: str) -> None:
        """Remove the objects of a voice that has no record any more, and last what says that they must go."""
        self._remove_objects(voice_id)
        self._remove_files([self._tombstone(voice_id)])

    def _remove_objects(self, voice_id: str) -> None:
        for _ in range(REMOVALS):  # whoever removes them too may take away one that is just to be removed here
            try:
                self._files.rm(self._objects(voice_id), recursive=True)
            except FileNotFoundError:
                if not self._files.exists(self._objects(voice_id)):
                    return

    def _remove_files(self, files: Iterable[str]) -> None:
        for file in files:
            try:
                self._files.rm_file(file)
            except FileNotFoundError:
                logger.debug("%s was gone already", file)

    def _write_record(self, voice: Voice) -> None:
        """Let the record appear whole, also in folders, where a write is seen while it happens."""
        record = self._record(voice.id)
        self._files.makedirs(f"{self._root}/records", exist_ok=True)
        self._write(f"{record}.part", json.dumps(asdict(voice)).encode())
        self._files.mv(f"{record}.part", record)
        self._keep_names(f"{self._root}/records")

    def _write_object(self, voice_id: str, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        self._files.makedirs(self._objects(voice_id), exist_ok=True)
        self._write(f"{self._objects(voice_id)}/{name}", content)
        self._keep_names(self._objects(voice_id))
        self._keep_names(f"{self._root}/objects")
        return name

    def _write(self, path: str, content: bytes) -> None:
        """Write a file whose content is still there after a power cut."""
        if not isinstance(self._files, LocalFileSystem):
            self._files.pipe_file(path, content)
            return
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def _keep_names(self, folder: str) -> None:
        """Let the names in a folder outlast a power cut, too: on disks they are written apart from the content."""
        if not isinstance(self._files, LocalFileSystem):
            return
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)

    def _read_object(self, voice: Voice, name: str) -> bytes:
        try:
            content: bytes = self._files.cat_file(f"{self._objects(voice.id)}/{name}")
        except FileNotFoundError as error:
            reason = f"{voice.name!r} is being deleted, or its recording was lost; then delete it and make it anew"
            raise LostVoiceError("voice", reason) from error
        if hashlib.sha256(content).hexdigest() != name:
            logger.error("%s/%s is damaged: its content has another hash", self._objects(voice.id), name)
            raise LostVoiceError("voice", f"{voice.name!r} is damaged where it is kept; delete it and make it anew")
        return content

    def _objects(self, voice_id: str) -> str:
        return f"{self._root}/objects/{voice_id}"

    def _record(self, voice_id: str) -> str:
        return f"{self._root}/records/{voice_id}.json"

    def _tombstone(self, voice_id: str) -> str:
        return f"{self._root}/records/{voice_id}.deleted"


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


def _named(files: Iterable[str], ending: str) -> set[str]:
    """Return the names, without it, of the files that have an ending."""
    return {file.rpartition("/")[2].removesuffix(ending) for file in files if file.endswith(ending)}


def _parsed(content: bytes, voice_id: str) -> Voice:
    """Return the voice of a record, also one that a newer version wrote; ValueError or TypeError if there is none."""
    told = json.loads(content)
    if not isinstance(told, dict):
        raise TypeError("it is no object")
    voice = Voice(**{field.name: told[field.name] for field in fields(Voice) if field.name in told})
    texts = (voice.name, voice.transcript, voice.audio_object, voice.codes_object, voice.recording_hash)
    if not all(isinstance(text, str) for text in texts) or not isinstance(voice.created_at, int | float):
        raise TypeError("its fields are of other kinds")
    if voice.id != voice_id:
        raise ValueError(f"it is of {voice.id!r}")
    return voice
