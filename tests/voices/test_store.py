"""Voices that are kept: whole or not at all, for every reader, until they are deleted for good."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from voice_core.errors import RequestError
from voice_core.voices import store as store_module
from voice_core.voices.store import Voice, VoiceDraft, VoiceStore, checked_name

CODES = tuple(range(100))


def draft(name: str = "Ann") -> VoiceDraft:
    return VoiceDraft(
        name=name,
        transcript="Hello there.",
        consent="I agree.",
        seconds=2.0,
        recording_hash="hash",
        code_fingerprint="codec",
        language="en",
    )


def create(store: VoiceStore, name: str = "Ann", audio: bytes = b"flac") -> Voice:
    return store.create(draft(name), audio, CODES)


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "voices")
    MemoryFileSystem.store.clear()
    return "memory://bucket/voices"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_voice_is_found_by_id_and_name_by_everybody_and_after_a_restart(place: str) -> None:
    here, elsewhere = VoiceStore(place), VoiceStore(place)
    assert elsewhere.voices() == []
    voice = create(here)
    for store in (here, elsewhere, VoiceStore(place)):
        assert store.find(voice.id) == store.find("Ann") == voice
        assert store.codes(voice) == CODES
        assert store.audio(voice) == b"flac"
        assert store.voices() == [voice]


def test_a_voice_deleted_elsewhere_is_gone_within_a_second(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, elsewhere = VoiceStore(place), VoiceStore(place)
    voice = create(here)
    assert elsewhere.find("Ann") == voice
    assert here.delete(voice.id) == voice
    assert here.find("Ann") is None
    assert store_module.FRESH_SECONDS <= 1
    monkeypatch.setattr(store_module, "FRESH_SECONDS", 0)
    assert elsewhere.find("Ann") is None
    assert elsewhere.delete(voice.id) is None


def test_nothing_of_a_deleted_voice_is_left(tmp_path: Path) -> None:
    store = VoiceStore(str(tmp_path))
    voice, other = create(store), create(store, "Bob")
    store.codes(voice)
    store.delete(voice.id)
    assert store._codes.kept_bytes == 0
    assert all(other.id in str(path) for path in files(tmp_path))
    with pytest.raises(RequestError, match="being deleted"):
        store.codes(voice)


def test_a_name_means_the_newest_of_its_voices_and_deleting_one_leaves_the_others(place: str) -> None:
    store = VoiceStore(place)
    first, second = create(store, audio=b"1"), create(store, audio=b"2")
    assert store.find("Ann") == second
    store.delete(second.id)
    assert store.find("Ann") == first


def test_concurrent_creation_and_deletion_of_one_name_loses_nothing(place: str) -> None:
    doomed = [create(VoiceStore(place)) for _ in range(10)]

    def act(number: int) -> Voice | None:
        store = VoiceStore(place)
        return store.delete(doomed[number // 2].id) if number % 2 else create(store, audio=bytes([number]))

    with ThreadPoolExecutor(8) as actors:
        outcomes = list(actors.map(act, range(20)))
    made, deleted = outcomes[0::2], outcomes[1::2]
    assert deleted == doomed
    store = VoiceStore(place)
    assert {voice.id for voice in store.voices()} == {voice.id for voice in made if voice}
    assert sorted(store.audio(voice) for voice in store.voices()) == sorted(bytes([n]) for n in range(0, 20, 2))


def test_one_voice_is_deleted_once(place: str) -> None:
    voice = create(VoiceStore(place))
    stores = [VoiceStore(place) for _ in range(4)]
    for store in stores:
        store.voices()
    with ThreadPoolExecutor(4) as actors:
        outcomes = list(actors.map(lambda store: store.delete(voice.id), stores))
    assert outcomes.count(voice) == 1


def test_readers_never_meet_half_a_voice(tmp_path: Path) -> None:
    done = threading.Event()

    def read() -> int:
        store, seen = VoiceStore(str(tmp_path)), 0
        while not done.is_set():
            for voice in store.voices():
                assert store.codes(voice) == CODES
                assert len(store.audio(voice)) == 100_000
                seen += 1
            store._listed_at = float("-inf")
        return seen

    with ThreadPoolExecutor(2) as readers:
        reading = [readers.submit(read) for _ in range(2)]
        writer = VoiceStore(str(tmp_path))
        for number in range(20):
            create(writer, audio=bytes([number]) * 100_000)
        done.set()
        assert all(reader.result() > 0 for reader in reading)


def test_a_record_that_was_not_finished_is_no_voice(tmp_path: Path) -> None:
    store = VoiceStore(str(tmp_path))
    voice = create(store)
    whole = (tmp_path / "records" / f"{voice.id}.json").read_text()
    half = tmp_path / "records" / f"voice_{'0' * 32}.json"
    half.write_text(whole[: len(whole) // 2])
    (tmp_path / "records" / f"voice_{'1' * 32}.json").write_text(whole)  # says another id than its name
    (tmp_path / "records" / f"voice_{'2' * 32}.json.part").write_text(whole)
    assert VoiceStore(str(tmp_path)).voices() == [voice]


def test_damaged_codes_are_not_spoken(tmp_path: Path) -> None:
    store = VoiceStore(str(tmp_path))
    voice = create(store)
    (tmp_path / "objects" / voice.id / voice.codes_object).write_text(json.dumps([1, 2, 3]))
    with pytest.raises(OSError, match="is damaged"):
        store.codes(voice)


def test_ids_cannot_be_guessed(tmp_path: Path) -> None:
    store = VoiceStore(str(tmp_path))
    ids = {create(store).id for _ in range(10)}
    assert len(ids) == 10
    assert all(len(voice_id) == len("voice_") + 32 for voice_id in ids)


@pytest.mark.parametrize("name", ["Ann", "Ann-Marie O'Neil 2", "山田 太郎", "Zoë", "a" * 64, " Ann "])
def test_a_name_may_be_a_persons(name: str) -> None:
    assert checked_name(name) == name.strip()


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "a" * 65, ".hidden", "a\nb", "a\0b", "a\u202eb", "<b>"),
        *("../x", "/etc/passwd", "a/b", "a\\b"),
        *("default", "Default", f"voice_{'0' * 32}"),
    ],
)
def test_a_name_that_could_be_something_else_is_refused(name: str) -> None:
    with pytest.raises(RequestError) as refusal:
        checked_name(name)
    assert refusal.value.field == "name"


def test_looking_for_a_path_finds_nothing(tmp_path: Path) -> None:
    store = VoiceStore(str(tmp_path / "voices"))
    create(store)
    (tmp_path / "voices" / "secret.json").write_text("{}")
    for key in ("../secret", "/etc/passwd", "", ".", "*"):
        assert store.find(key) is None
        assert store.delete(key) is None
