from collections import Counter

from voice_core.decoding.turns import Turns


def served(turns: Turns, waiting: str, slots: int = 1, held: dict[str, int] | None = None) -> str:
    """Give slots to rows of requests with names of one letter; return whose they were."""
    given = [waiting[place] for place in turns.order(waiting, held or {})[:slots]]
    for request in given:
        turns.take(request)
    return "".join(given)


def test_requests_take_turns_and_the_oldest_begins() -> None:
    assert served(Turns(9), "aaabbc", slots=6) == "abcaba"


def test_a_short_request_behind_two_long_ones_gets_the_next_free_slot() -> None:
    turns = Turns(9)
    assert served(turns, "aaaabbbb", slots=4) == "abab"
    assert served(turns, "aabbs", held={"a": 2, "b": 2}) == "s"


def test_single_free_slots_go_round_too() -> None:
    turns = Turns(9)
    assert "".join(served(turns, "aabbcc") for _ in range(6)) == "abcabc"


def test_a_request_beyond_its_share_stands_back_but_takes_what_is_left() -> None:
    assert served(Turns(2), "aaab", slots=4) == "abaa"
    assert served(Turns(2), "ab", held={"a": 2}) == "b"
    assert served(Turns(2), "aa", held={"a": 2}, slots=2) == "aa"


def test_a_request_that_left_is_forgotten() -> None:
    turns = Turns(9)
    served(turns, "a")
    served(turns, "b")
    assert served(turns, "ba") == "a"  # like one that never had a turn


def test_short_requests_without_end_keep_no_long_one_waiting() -> None:
    """As many short requests as the slots can bear, for ever, and a long one that came first."""
    turns, ticks_of_a_row = Turns(2), 4
    waiting, slots = ["long"] * 6, dict.fromkeys(range(4), ("", 0))  # each slot's request, and when it gets free
    for tick in range(60):
        waiting.append(f"short {tick}")
        for slot, (_, free_at) in slots.items():
            if free_at <= tick and waiting:
                held = Counter(request for request, end in slots.values() if end > tick)
                request = waiting.pop(turns.order(waiting, held)[0])
                turns.take(request)
                slots[slot] = request, tick + ticks_of_a_row
    assert "long" not in waiting
    assert len(waiting) <= 6  # the house is full: somebody must wait, but those who came last


def test_batch_comes_after_everybody_else() -> None:
    turns = Turns(8)
    assert turns.order(["long", "long", "short"], {}, {"long"}) == [2, 0, 1]
    turns.take("short")
    assert turns.order(["long", "short"], {"short": 8}, {"long"}) == [1, 0]
