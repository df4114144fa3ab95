"""How many segments of one request are under way, and what is known of those who speak them."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest
from fake_crew import FACTS, FakeCrew, Reply
from ray.exceptions import RayTaskError

from deployments import fleet
from deployments.errors import ApiError
from deployments.fleet import Fleet, Running


def test_a_request_alone_fills_the_decoder_and_beside_others_takes_its_share() -> None:
    rows_128 = replace(FACTS, max_rows=128)
    known = Fleet(FakeCrew(), largest_share=0.5)
    alone = known.segments_at_once(rows_128, samples=1, wanted_rows=[1000])
    assert 128 < alone < 160
    assert known.segments_at_once(rows_128, samples=1, wanted_rows=[1000, 2]) == alone / 2
    assert known.segments_at_once(rows_128, samples=4, wanted_rows=[1000]) == alone / 4


def test_however_many_long_requests_there_are_little_waits_where_a_newcomer_would_stand_behind_it() -> None:
    known = Fleet(FakeCrew(), largest_share=0.5)
    for rows in (16, 128):
        facts = replace(FACTS, max_rows=rows)
        each = known.segments_at_once(facts, samples=1, wanted_rows=[1000] * 7)
        assert rows <= 7 * each <= 1.25 * rows + 7
    assert (
        known.segments_at_once(replace(FACTS, max_rows=1), samples=1, wanted_rows=[9] * 9) == fleet.FEWEST_BESIDE_OTHERS
    )


def test_what_short_requests_leave_free_is_the_long_ones() -> None:
    assert fleet.fair_share(128, [1] * 100 + [1000]) == 28
    assert fleet.fair_share(128, [1000, 3, 1000, 5]) == 60
    assert fleet.fair_share(128, [100, 28]) == math.inf


def test_more_replicas_take_more_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "LOOK_AGAIN_SECONDS", (0.01, 0.01))
    crew = FakeCrew()
    known = Fleet(crew, largest_share=0.5)
    one = known.segments_at_once(FACTS, samples=1, wanted_rows=[1000])

    async def scenario() -> None:
        watching = asyncio.create_task(known.watch())
        crew.replicas = Running(synthesizers=4, composers=1)
        await asyncio.sleep(0.2)
        watching.cancel()

    asyncio.run(scenario())
    assert known.segments_at_once(FACTS, samples=1, wanted_rows=[1000]) == 4 * one


def test_a_new_model_is_learned_when_its_replicas_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "LOOK_AGAIN_SECONDS", (0.01, 0.01))
    crew = FakeCrew()
    known = Fleet(crew, largest_share=0.5)
    told_rows: list[int] = []

    async def scenario() -> None:
        watching = asyncio.create_task(known.watch(told_rows.append))
        await asyncio.sleep(0.1)
        assert await known.facts() == FACTS
        crew.facts_reply = Reply(replace(FACTS, model_fingerprint="another", max_rows=5))
        await asyncio.sleep(0.1)
        assert (await known.facts()).model_fingerprint == "another"
        crew.replicas = Running(synthesizers=0, composers=1)
        await asyncio.sleep(0.1)
        watching.cancel()

    asyncio.run(scenario())
    assert set(told_rows) == {1, 16, 5, 0}
    assert told_rows[-1] == 0


def test_replicas_too_full_to_tell_the_facts_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "ANSWER_SECONDS", 0.01)
    crew = FakeCrew()
    crew.facts_reply = Reply(hangs=True)

    async def scenario() -> None:
        asking = asyncio.create_task(Fleet(crew, largest_share=0.5).facts())
        await asyncio.sleep(0.1)
        assert not asking.done()
        asking.cancel()

    asyncio.run(scenario())


def test_a_decoder_whose_thread_has_ended_is_not_ready() -> None:
    crew = FakeCrew()
    crew.facts_reply = Reply(RayTaskError("facts", "traceback", RuntimeError("the decoder's thread has ended")))
    with pytest.raises(ApiError, match="503") as refusal:
        asyncio.run(Fleet(crew, largest_share=0.5).facts())
    assert refusal.value.status == 503
