"""Spoken segments that are kept: found exactly as they were, or not at all, and never a reason to fail."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from deployments import segment_cache
from deployments.segment_cache import (
    FACTS_BYTES,
    NOT_IN_THE_KEY,
    FolderCache,
    MemoryCache,
    SegmentCache,
    open_cache,
    packed,
    segment_key,
    unpacked,
)
from deployments.settings import Settings
from voice_core.speech import FinishReason, Sampling, Segment, Speech, VoicePrompt

KEY = "ab" * 32
LARGE = 10_000_000
SEGMENT = Segment(
    "Hello there.",
    1.25,
    index=2,
    seeds=(7,),
    sampling=Sampling(0.7, 20, 0.8, 0.0),
    prompt=VoicePrompt((1, 2, 3), "Hm.", "en"),
    request="mine",
)


def speech(samples: int = 1000, **changes: Any) -> Speech:
    noise = np.random.default_rng(samples).normal(0, 0.3, samples).astype(np.float32)
    spoken = Speech(noise, 16000, seed=7, finish_reason=FinishReason.STOP, asked_seconds=0.1, dropped_codes=3)
    return replace(spoken, **changes)


def equal(one: Speech | None, other: Speech) -> bool:
    """To the bit, samples and facts."""
    return one is not None and all(
        type(getattr(one, field.name)) is type(getattr(other, field.name))
        and np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for field in fields(other)
    )


def files(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file()]


def settle(cache: FolderCache) -> None:
    """Wait for what nobody waits for."""
    cache._threads.shutdown()
    cache._threads = ThreadPoolExecutor(1)


def key(number: int) -> str:
    return f"{number:02x}" * 32


@pytest.fixture(params=["memory", "folder", "bucket"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> SegmentCache:
    MemoryFileSystem.store.clear()
    places = {"memory": "memory", "folder": str(tmp_path / "segments"), "bucket": "memory://bucket/segments"}
    opened = open_cache(places[request.param], LARGE)
    assert opened is not None
    return opened


# Keys


CHANGES: dict[str, list[dict[str, Any]]] = {
    "text": [{"text": "Hello there!"}],
    "seconds": [{"seconds": 1.2500000000000002}],
    "index": [{"index": 3}],
    "seeds": [{"seeds": (8,)}],
    "sampling": [{"sampling": replace(SEGMENT.sampling, **{field.name: 0.31})} for field in fields(Sampling)],
    "prompt": [
        {"prompt": None},
        {"prompt": VoicePrompt((1, 2, 4), "Hm.", "en")},
        {"prompt": VoicePrompt((1, 2, 3), "Hm!", "en")},
    ],
}


def test_every_field_of_a_segment_is_in_its_key_or_left_out_on_purpose() -> None:
    """Who adds a field to Segment must decide here: what doesn't change the sound goes into NOT_IN_THE_KEY."""
    assert {field.name for field in fields(Segment)} == CHANGES.keys() | {"request", "batch"}
    assert {"seeds", "request", "batch"} == NOT_IN_THE_KEY


@pytest.mark.parametrize("change", [change for changes in CHANGES.values() for change in changes], ids=str)
def test_whatever_changes_the_sound_changes_the_key(change: dict[str, Any]) -> None:
    assert segment_key(replace(SEGMENT, **change), "model") != segment_key(SEGMENT, "model")


def test_another_model_has_other_keys_and_another_request_the_same() -> None:
    assert segment_key(SEGMENT, "another model") != segment_key(SEGMENT, "model")
    assert segment_key(replace(SEGMENT, request="yours"), "model") == segment_key(SEGMENT, "model")


def test_there_is_a_key_for_each_seed_wherever_it_stands() -> None:
    keys = segment_key(replace(SEGMENT, seeds=(7, 8, 9)), "model")
    assert len(set(keys)) == 3
    assert segment_key(replace(SEGMENT, seeds=(9, 7)), "model") == (keys[2], keys[0])
    assert segment_key(SEGMENT, "model") == keys[:1]


def test_keys_stay_the_same_from_process_to_process() -> None:
    """A cluster's folder would be worthless otherwise; and no ingress needs torch for them."""
    code = """
import sys
sys.modules["torch"] = None
from deployments.segment_cache import segment_key
from voice_core.speech import Segment
print(*segment_key(Segment("Hi.", 1.0, seeds=(1, 2)), "model"))
"""
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    assert tuple(run.stdout.split()) == segment_key(Segment("Hi.", 1.0, seeds=(1, 2)), "model")


# What is kept


def test_a_speech_comes_back_to_the_bit(cache: SegmentCache) -> None:
    kept = speech(finish_reason=FinishReason.LENGTH)

    async def run() -> None:
        assert await cache.get(KEY) is None
        await cache.put(KEY, kept)
        found = await cache.get(KEY)
        assert equal(found, kept)
        assert found is not None
        assert found.samples.dtype == np.float32
        assert not found.samples.flags.writeable
        assert await cache.get(key(1)) is None

    asyncio.run(run())


def test_a_speech_of_no_samples_is_kept_too(cache: SegmentCache) -> None:
    async def run() -> None:
        await cache.put(KEY, speech(0))
        assert equal(await cache.get(KEY), speech(0))

    asyncio.run(run())


def test_what_was_called_off_is_not_kept(cache: SegmentCache) -> None:
    async def run() -> None:
        await cache.put(KEY, speech(finish_reason=FinishReason.CANCELLED))
        assert await cache.get(KEY) is None

    asyncio.run(run())


def test_the_memory_keeps_a_copy_and_not_the_block_that_the_samples_are_a_view_of() -> None:
    block = np.zeros(1_000_000, dtype=np.float32)
    cache = MemoryCache(LARGE)
    asyncio.run(cache.put(KEY, replace(speech(), samples=block[:100])))
    block[:] = 1
    found = asyncio.run(cache.get(KEY))
    assert found is not None
    assert found.samples.base is None
    assert not found.samples.any()


def test_every_field_of_a_speech_is_kept() -> None:
    kept = speech(0)
    for field in fields(Speech):
        value = getattr(kept, field.name)
        if isinstance(value, int | float):
            kept = replace(kept, **{field.name: value + 1})
    assert equal(unpacked(KEY, packed(KEY, kept)), kept)
    assert not equal(unpacked(KEY, packed(KEY, kept)), speech(0))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
        lambda content: content + b"\0",
        lambda content: bytes(len(content)),
        lambda content: packed(key(9), speech()),
    ],
    ids=["empty", "short", "half", "flipped", "long", "zeros", "another's"],
)
@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_damaged_file_is_absent_and_is_removed(
    place: str, damage: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    MemoryFileSystem.store.clear()
    cache = FolderCache(str(tmp_path) if place == "folder" else "memory://bucket/segments", LARGE)
    file = cache._file(KEY)
    caplog.set_level(logging.WARNING, "ray.serve")

    async def run() -> None:
        await cache.put(KEY, speech())
        cache._files.pipe_file(file, damage(cache._files.cat_file(file)))
        assert await cache.get(KEY) is None
        assert not cache._files.exists(file)
        await cache.put(KEY, speech())
        assert equal(await cache.get(KEY), speech())

    asyncio.run(run())
    assert "is damaged and is removed" in caplog.text


def test_a_file_that_another_version_wrote_counts_as_damaged() -> None:
    content = packed(KEY, speech()).partition(b"\n")[2].replace(b'"dropped_codes"', b'"lost_codes"')
    with pytest.raises(ValueError, match="another version wrote it"):
        unpacked(KEY, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


# How much is kept


def test_the_memory_forgets_what_was_used_longest_ago() -> None:
    each = 4000 + FACTS_BYTES
    cache = MemoryCache(3 * each)

    async def run() -> list[bool]:
        for number in range(3):
            await cache.put(key(number), speech())
        await cache.get(key(0))
        await cache.put(key(3), speech())
        return [await cache.get(key(number)) is not None for number in range(4)]

    assert asyncio.run(run()) == [True, False, True, True]


def test_a_folder_forgets_what_was_used_longest_ago_and_stays_within_its_bound(tmp_path: Path) -> None:
    each = len(packed(KEY, speech()))
    cache = FolderCache(str(tmp_path), 10 * each)

    async def run() -> None:
        for number in range(10):
            await cache.put(key(number), speech())
            settle(cache)
            os.utime(cache._file(key(number)), (number, number))  # as if time had passed
        await cache.get(key(0))
        for number in range(10, 14):
            await cache.put(key(number), speech())
            settle(cache)
        assert await cache.get(key(0)) is not None
        assert await cache.get(key(1)) is None
        assert await cache.get(key(13)) is not None

    asyncio.run(run())
    assert sum(file.stat().st_size for file in files(tmp_path)) <= 10 * each


def test_a_bucket_forgets_what_was_written_first() -> None:
    MemoryFileSystem.store.clear()
    each = len(packed(KEY, speech()))
    cache = FolderCache("memory://bucket/segments", 5 * each)

    async def run() -> list[bool]:
        for number in range(8):
            await cache.put(key(number), speech())
            settle(cache)
            time.sleep(0.002)
        return [await cache.get(key(number)) is not None for number in range(8)]

    kept = asyncio.run(run())
    assert kept[-1]
    assert not kept[0]
    assert sum(kept) <= 5


def test_what_is_larger_than_all_may_be_is_not_kept(tmp_path: Path) -> None:
    for cache in (MemoryCache(5000), FolderCache(str(tmp_path), 5000)):
        asyncio.run(cache.put(KEY, speech(2000)))
        assert asyncio.run(cache.get(KEY)) is None


def test_a_folder_that_was_full_before_a_restart_is_brought_back_within_its_bound(tmp_path: Path) -> None:
    each = len(packed(KEY, speech()))
    first, later = FolderCache(str(tmp_path), LARGE), FolderCache(str(tmp_path), 3 * each)

    async def run() -> None:
        for number in range(8):
            await first.put(key(number), speech())
        await later.put(key(9), speech())

    asyncio.run(run())
    settle(later)
    assert len(files(tmp_path)) <= 3


def test_a_look_at_all_files_comes_only_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is bounded: one listing for every sixteenth of the bound that was written."""
    each = len(packed(KEY, speech()))
    cache = FolderCache(str(tmp_path), 160 * each)
    looks = []
    sweep = cache._sweep
    monkeypatch.setattr(cache, "_sweep", lambda: (looks.append(1), sweep()))

    async def run() -> None:
        for number in range(100):
            await cache.put(key(number), speech())

    asyncio.run(run())
    settle(cache)
    assert 5 <= len(looks) <= 11


def test_what_an_interrupted_writer_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    old, new = tmp_path / "ab" / "x.speech.1.part", tmp_path / "ab" / "y.speech.2.part"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (1, 1))
    cache = FolderCache(str(tmp_path), LARGE)
    asyncio.run(cache.put(KEY, speech()))
    settle(cache)
    assert not old.exists()
    assert new.exists()


# Several at once


def test_several_writers_and_readers_at_once_see_whole_speeches_or_none(tmp_path: Path) -> None:
    each = len(packed(KEY, speech(3000)))
    caches = [FolderCache(str(tmp_path), 6 * each) for _ in range(3)]
    wrong: list[str] = []

    def use(cache: FolderCache, seed: int) -> None:
        draws = np.random.default_rng(seed)

        async def run() -> None:
            for _ in range(60):
                number = int(draws.integers(10))
                await cache.put(key(number), speech(3000 + number))
                found = await cache.get(key(other := int(draws.integers(10))))
                if found is not None and not equal(found, speech(3000 + other)):
                    wrong.append(key(other))

        asyncio.run(run())

    threads = [threading.Thread(target=use, args=(cache, seed)) for seed, cache in enumerate(caches * 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for cache in caches:
        settle(cache)
    assert wrong == []
    assert not [file for file in files(tmp_path) if file.suffix == ".part"]
    # The bound, and what six writers may add to it between two looks.
    assert sum(file.stat().st_size for file in files(tmp_path)) <= 13 * each


def test_what_one_kept_another_finds_and_still_does_after_a_restart(tmp_path: Path) -> None:
    asyncio.run(FolderCache(str(tmp_path), LARGE).put(KEY, speech()))
    assert equal(asyncio.run(FolderCache(str(tmp_path), LARGE).get(KEY)), speech())


# What goes wrong


def test_a_place_that_fails_costs_nobody_a_request_and_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "a file"
    place.write_text("no folder")
    cache = FolderCache(str(place), LARGE)

    async def run() -> None:
        for _ in range(3):
            await cache.put(KEY, speech())
            assert await cache.get(KEY) is None

    asyncio.run(run())
    assert caplog.text.count("fails, and speech is made anew") == 1


def test_a_place_that_hangs_is_left_alone_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_cache, "READ_SECONDS", 0.05)
    cache = FolderCache(str(tmp_path), LARGE)
    released = threading.Event()
    calls = []

    def hang(key: str) -> None:
        calls.append(key)
        released.wait(10)

    monkeypatch.setattr(cache, "_read", hang)

    async def run() -> float:
        began = time.monotonic()
        for number in range(20):
            assert await cache.get(key(number)) is None
        return time.monotonic() - began

    assert asyncio.run(run()) < 2
    released.set()
    assert calls == [key(0)]


# Where


def test_a_place_of_the_settings_is_memory_nothing_or_somewhere(tmp_path: Path) -> None:
    assert isinstance(open_cache("memory", 1), MemoryCache)
    assert open_cache("off", 1) is None
    assert isinstance(open_cache(str(tmp_path), 1), FolderCache)
    home = open_cache("~/segments", 1)
    assert isinstance(home, FolderCache)
    assert home._root == os.path.expanduser("~/segments")
    with pytest.raises(ValueError, match="nowhere"):
        open_cache("nowhere://bucket", 1)


@pytest.mark.parametrize("place", ["segments", "./segments", "Memory", ""])
def test_a_place_that_would_be_another_for_every_process_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match="segment_cache"):
        Settings(segment_cache=place)


@pytest.mark.parametrize("place", ["memory", "off", "/srv/segments", "~/segments", "s3://bucket/segments"])
def test_a_place_that_is_the_same_everywhere_is_taken(place: str) -> None:
    assert Settings(segment_cache=place).segment_cache == place
