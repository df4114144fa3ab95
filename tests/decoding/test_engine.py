import threading

import pytest

from tests.decoding.test_decoder import decoder_of, different_rows
from tests.toy import toy_network
from voice_core.decoding.engine import Engine, RowHandle
from voice_core.decoding.rows import Row
from voice_core.errors import RequestError, SynthesisError
from voice_core.speech import FinishReason

LONG = Row((1, 2, 3), 700)


def held_back(engine: Engine) -> threading.Event:
    """Make the engine wait before every step until the event is set, so that a test can act in between."""
    go, step = threading.Event(), engine._decoder.step

    def step_when_allowed() -> None:
        assert go.wait(10)
        step()

    engine._decoder.step = step_when_allowed  # type: ignore[method-assign]
    return go


def test_rows_come_out_as_the_decoder_speaks_them() -> None:
    network = toy_network()
    rows = different_rows(network.config, 12)
    engine = Engine(decoder_of(network))
    handles = engine.submit(rows)
    assert [handle.future.result(10) for handle in handles] == decoder_of(network).speak(rows)
    assert (engine.passes, engine.rows_spoken) == (1, 12)
    engine.close()


def test_what_arrives_during_a_pass_is_gathered_for_the_next() -> None:
    network = toy_network()
    rows = different_rows(network.config, 8)
    engine = Engine(decoder_of(network))
    go = held_back(engine)
    handles = engine.submit(rows[:1])
    while not engine.passes:
        pass
    for row in rows[1:]:
        handles += engine.submit([row])  # seven arrivals, one after the other
    go.set()
    assert [handle.future.result(10) for handle in handles] == decoder_of(network).speak(rows)
    assert engine.passes == 2
    engine.close()


def test_a_row_that_cannot_fit_fails_alone() -> None:
    engine = Engine(decoder_of(toy_network()))
    bad, good = engine.submit([Row((), 20), Row((1, 2), 20)])
    with pytest.raises(RequestError, match="input"):
        bad.future.result(10)
    assert good.future.result(10).ids
    engine.close()


def test_a_cancelled_row_ends_and_its_neighbours_speak_on() -> None:
    network = toy_network()
    rows = different_rows(network.config, 4)
    engine = Engine(decoder_of(network))
    go = held_back(engine)
    handles = engine.submit(rows)
    handles[1].cancel()
    go.set()
    results = [handle.future.result(10) for handle in handles]
    assert results[1].finish_reason is FinishReason.CANCELLED
    expected = decoder_of(network).speak(rows)
    assert [results[0], *results[2:]] == [expected[0], *expected[2:]]
    engine.close()


def test_a_failing_pass_fails_its_rows_and_the_engine_goes_on() -> None:
    network = toy_network()
    engine = Engine(decoder_of(network))
    step = engine._decoder.step

    def fail() -> None:
        engine._decoder.step = step  # type: ignore[method-assign]
        raise MemoryError("no more")

    engine._decoder.step = fail  # type: ignore[method-assign]
    for handle in engine.submit([LONG, LONG]):
        with pytest.raises(MemoryError):
            handle.future.result(10)
    row = Row((1, 2), 20)
    assert [engine.submit([row])[0].future.result(10)] == decoder_of(network).speak([row])
    engine.close()


def test_closing_fails_what_is_still_here_and_refuses_what_comes() -> None:
    engine = Engine(decoder_of(toy_network(), max_rows=1))
    go = held_back(engine)
    handles = engine.submit([LONG, LONG])
    while not engine.passes:
        pass
    closing = threading.Thread(target=engine.close)
    closing.start()
    while not engine._closing:
        pass
    go.set()
    closing.join(10)
    for handle in handles:
        with pytest.raises(SynthesisError, match="shut down"):
            handle.future.result(10)
    with pytest.raises(SynthesisError, match="shut down"):
        engine.submit([LONG])
    assert not engine.alive


def test_a_rows_future_cannot_be_cancelled_under_the_decoder() -> None:
    assert not RowHandle(LONG).future.cancel()
