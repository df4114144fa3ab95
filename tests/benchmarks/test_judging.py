"""What benchmarks make of what they have seen: statuses, growth, percentiles, the best of several rounds."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import reporting, serving
from benchmarks.decode import Cell, Mixed
from benchmarks.fuzz import final_status, growth_mb
from benchmarks.soak import answered_as_they_should_be, slope


def status_of(answer: bytes) -> str:
    async def read() -> str:
        reader = asyncio.StreamReader()
        reader.feed_data(answer)
        reader.feed_eof()
        return await final_status(reader)

    return asyncio.run(read())


def test_a_continue_is_no_answer_yet() -> None:
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert status_of(go_on + b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n") == "500"
    assert status_of(go_on) == "none"
    assert status_of(b"HTTP/1.1 101 Switching Protocols\r\n\r\n") == "101"
    assert status_of(b"HTTP/1.1 400") == "400"


def test_memory_that_fills_and_then_goes_up_and_down_has_not_grown() -> None:
    assert growth_mb([0.0, 50.0, 70.0, 80.0, 90.0, 80.0, 80.0, 90.0]) == 0.0
    assert growth_mb([10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0]) == 20.0


def test_a_soak_bears_few_who_are_told_to_wait_and_no_error() -> None:
    assert answered_as_they_should_be(Counter({"whole 200": 99, "stream 429": 1}))
    assert not answered_as_they_should_be(Counter({"whole 200": 98, "stream 429": 2}))
    assert not answered_as_they_should_be(Counter({"whole 200": 999, "stream 500": 1}))
    assert not answered_as_they_should_be(Counter())


def test_the_slope_of_memory_is_told_with_the_error_that_its_waves_make() -> None:
    steady = [(10.0 * look, 100.0 + look / 6) for look in range(90)]  # a MB a minute
    growth, error = slope(steady)
    assert growth == pytest.approx(60.0)
    assert error == pytest.approx(0.0, abs=1e-6)
    rng = random.Random(0)
    waves = [(moment, value + rng.choice((-20.0, 20.0))) for moment, value in steady]
    growth, error = slope(waves)
    assert 10.0 < error < 100.0
    assert abs(growth - 60.0) < 3 * error
    assert slope(steady[:18]) == (0.0, 0.0)


def test_a_percentile_needs_a_request_beyond_it() -> None:
    assert serving._spread(list(range(20))).keys() == {"mean", "p50", "p95", "p99"}
    assert [value is None for value in serving._spread([1.0] * 19).values()] == [False, False, True, True]
    assert [value is None for value in serving._spread([1.0] * 20).values()] == [False, False, False, True]
    assert [value is None for value in serving._spread([1.0] * 100).values()] == [False, False, False, False]


def test_a_cell_keeps_the_best_of_its_rounds() -> None:
    first = Cell("toy", "off", "torch", 4, 0, 0.002, 1000, Mixed(500.0, 0.9, 0.5))
    second = Cell("toy", "off", "torch", 4, 0, 0.003, 1000, Mixed(600.0, 0.9, 0.5))
    best = first.best(second)
    assert best == second.best(first)
    assert (best.step_seconds, best.mixed) == (0.002, Mixed(600.0, 0.9, 0.5))
    assert best.measures(bandwidth=1e6)["floor_ratio"] == pytest.approx(2.0)


def test_a_plain_copy_of_the_code_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "REPOSITORY", tmp_path)
    assert reporting.commit() == "of no known commit"
    monkeypatch.setenv("PATH", str(tmp_path))  # no git either
    assert reporting.commit() == "of no known commit"


def test_poisson_times_are_as_many_as_the_rate_says_and_in_their_stretch() -> None:
    times = serving.poisson_times(random.Random(0), 2.0, 10.0, 30.0)
    assert len(times) == 40
    assert times == sorted(times)
    assert 10 <= times[0] < times[-1] <= 30
    assert serving.poisson_times(random.Random(0), 0.1, 0.0, 1.0) == []
    assert len(serving.poisson_times(random.Random(0), 0.1, 0.0, 1.0, at_least=1)) == 1
