"""What is kept never exceeds its bytes."""

from __future__ import annotations

from voice_core.voices.cache import ByteBoundedCache


def test_what_was_used_longest_ago_makes_room() -> None:
    cache: ByteBoundedCache[str] = ByteBoundedCache(10)
    cache.put("a", "A", 4)
    cache.put("b", "B", 4)
    assert cache.get("a") == "A"
    cache.put("c", "C", 4)
    assert [cache.get(key) for key in "abc"] == ["A", None, "C"]
    assert cache.kept_bytes == 8


def test_a_value_larger_than_all_is_not_kept() -> None:
    cache: ByteBoundedCache[str] = ByteBoundedCache(10)
    cache.put("a", "A", 4)
    cache.put("b", "B", 11)
    assert (cache.get("a"), cache.get("b"), cache.kept_bytes) == ("A", None, 4)


def test_replacing_and_dropping_give_the_bytes_back() -> None:
    cache: ByteBoundedCache[str] = ByteBoundedCache(10)
    cache.put("a", "A", 4)
    cache.put("a", "A2", 6)
    assert (cache.get("a"), cache.kept_bytes) == ("A2", 6)
    cache.drop("a")
    cache.drop("a")
    assert (cache.get("a"), cache.kept_bytes) == (None, 0)
