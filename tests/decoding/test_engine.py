import random
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tests.decoding.arrivals import check_random_arrivals
from tests.decoding.test_decoder import cases, decoder_of, different_rows, network_of, rows_of
from tests.toy import toy_network
from voice_core.decoding.decoder import ATTENTION_BLOCK, BatchDecoder, Outcome
from voice_core.decoding.engine import IDLE_GROUP_POSITIONS, Engine, RowHandle
from voice_core.decoding.rows import Row, SpokenRow
from voice_core.decoding.sampling import Demand
from voice_core.errors import RequestError, SynthesisError
from voice_core.model.network import Network
from voice_core.model.packing import pack_linears
from voice_core.speech import FinishReason, Sampling

LONG = Row((1, 2, 3), 700)
IMITATING = Row((5, 6), 40, prompt_codes=(7, 8, 9))  # its prompt is heard when it is admitted, and a first code drawn
CPU_OUT_OF_MEMORY = RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")


def held_back(engine: Engine) -> threading.Event:
    """Make the engine wait before every step until the event is set, so that a test can act in between."""
    go, step = threading.Event(), engine._decoder.step

    def step_when_allowed() -> None:
        assert go.wait(10)
        step()

    engine._decoder.step = step_when_allowed  # type: ignore[method-assign]
    return go


def done_by_then(handle: RowHandle, others: Sequence[RowHandle]) -> list[bool]:
    """A list that says, as soon as a row has ended, which of the others had ended before: the engine doesn't wait."""
    seen: list[bool] = []
    handle.future.add_done_callback(lambda _: seen.extend(other.future.done() for other in others))
    return seen


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


def test_rows_come_out_as_the_decoder_speaks_them() -> None:
    network = toy_network()
    rows = different_rows(network.config, 12)
    engine = Engine(decoder_of(network))
    handles = engine.submit(rows)
    assert [handle.future.result(10) for handle in handles] == decoder_of(network).speak(rows)
    assert (engine.counters.passes, engine.counters.rows_spoken) == (1, 12)
    engine.close()


@pytest.mark.parametrize(("in_flight", "passes"), [(True, 1), (False, 2)])
def test_what_arrives_during_a_pass_joins_it_or_is_gathered_for_the_next(in_flight: bool, passes: int) -> None:
    network = toy_network()
    rows = different_rows(network.config, 8)
    engine = Engine(decoder_of(network), in_flight=in_flight)
    go = held_back(engine)
    handles = engine.submit(rows[:1])
    wait_until(lambda: engine.counters.passes > 0)
    for row in rows[1:]:
        handles += engine.submit([row])  # seven arrivals, one after the other
    go.set()
    assert [handle.future.result(10) for handle in handles] == decoder_of(network).speak(rows)
    assert engine.counters.passes == passes
    engine.close()


@pytest.mark.parametrize("deterministic", [False, True])
def test_random_arrivals_and_cancellations_change_nothing_for_the_others(deterministic: bool) -> None:
    network = toy_network()
    rows = different_rows(network.config, 24)
    expected = decoder_of(network).speak(rows)
    for seed in range(4):
        engine = Engine(decoder_of(network, max_rows=6, deterministic=deterministic))
        check_random_arrivals(engine, rows, expected, seed)
        engine.close()


def test_random_arrivals_and_cancellations_leave_the_references_runs_as_they_are(fixtures: Path) -> None:
    of_networks: dict[int, tuple[Network, list[Row]]] = {}
    for case in cases(fixtures):
        network = network_of(case, fixtures)
        of_networks.setdefault(id(network), (network, []))[1].extend(rows_of(case))
    assert of_networks
    for seed, (network, rows) in enumerate(of_networks.values()):
        expected = [spoken for row in rows for spoken in decoder_of(network).speak([row])]
        engine = Engine(decoder_of(network, max_rows=4))
        check_random_arrivals(engine, rows, expected, seed)
        engine.close()


class Watched(BatchDecoder):
    """Keeps the bits of every hidden state that a row's codes are drawn from."""

    def __init__(self, network: Network) -> None:
        super().__init__(network, max_rows=5, max_frames=200, max_tokens=80, deterministic=True)
        self.bits: dict[int, list[bytes]] = {}

    def _draw(self, rows: slice, demand: Demand) -> None:
        for hidden, live in zip(self._state.hidden[rows], self._live[rows], strict=False):
            self.bits.setdefault(live.number, []).append(hidden.cpu().numpy().tobytes())
        super()._draw(rows, demand)


def said_in_a_random_pattern(
    network: Network, rows: list[Row], rng: random.Random, *, leaving: float = 0.0
) -> tuple[dict[int, list[bytes]], dict[int, list[bytes]]]:
    """Let the rows arrive in random groups at random steps, and at times one leave before it has ended.

    Return the hidden states and codes of each that stayed, and the hidden states of each that left.
    """
    decoder = Watched(network)
    waiting = rng.sample(range(len(rows)), len(rows))
    said: dict[int, list[bytes]] = {}
    left: dict[int, list[bytes]] = {}
    places: dict[int, int] = {}
    while waiting or decoder.live_rows:
        group = [waiting.pop() for _ in range(min(len(waiting), decoder.free_slots, rng.randrange(4)))]
        places |= dict(zip(decoder.admit([rows[index] for index in group]), group, strict=True))
        for _ in range(rng.randrange(1, 12)):
            for number, outcome in decoder.retire():
                assert isinstance(outcome, SpokenRow)
                said[places[number]] = [*decoder.bits[number], str(outcome.ids).encode()]
            if decoder.live_rows:
                decoder.step()
        if decoder.live_rows and rng.random() < leaving:
            number = rng.choice(decoder._live).number
            decoder.cancel(number)
            left[places[number]] = decoder.bits[number]
    return said, left


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_deterministic_rows_are_the_same_to_the_bit_in_every_arrival_pattern(device: str) -> None:
    network = toy_network(extra_cutoff=0.0).to(device)
    pack_linears(network)
    rows = [replace(row, target_frames=row.prompt_frames + 15) for row in different_rows(network.config, 9)]
    # While they speak, attention reads two and three blocks for everybody, of prompts or of a text.
    rows += [
        Row((3, 2, 1), frames + 15, (5,) * frames, seed=frames) for frames in (ATTENTION_BLOCK, 2 * ATTENTION_BLOCK)
    ]
    rows.append(Row((*range(1, 60), *range(1, 20)), 20, seed=2))
    rng = random.Random(7)
    first, _ = said_in_a_random_pattern(network, rows, rng)
    assert len(first) == len(rows)
    times_left = 0
    for _ in range(199):
        said, left = said_in_a_random_pattern(network, rows, rng, leaving=0.15)
        assert said == {row: first[row] for row in first if row not in left}
        assert all(bits == first[row][: len(bits)] for row, bits in left.items())
        times_left += len(left)
    assert times_left > 50


def test_one_request_does_not_take_all_slots_while_others_wait() -> None:
    network = toy_network()
    engine = Engine(decoder_of(network, max_rows=4), largest_share=0.5)
    go = held_back(engine)
    first = engine.submit([Row((1, 2), 30)], "first")
    wait_until(lambda: engine.counters.passes > 0)
    big = engine.submit([replace(LONG, seed=seed) for seed in range(6)], "big")
    small = engine.submit([Row((3, 4), 30)], "small")
    ended_before = done_by_then(small[0], big)
    go.set()
    assert small[0].future.result(10).ids
    assert first[0].future.result(10).ids
    wait_until(lambda: bool(ended_before))  # those who wait are woken before the list is filled
    assert ended_before == [False] * 6
    for handle in big:
        handle.cancel()
    engine.close()


def test_a_short_request_behind_two_long_ones_is_admitted_at_the_next_free_slot() -> None:
    engine = Engine(decoder_of(toy_network(), max_rows=4))
    go = held_back(engine)
    first = engine.submit([Row((1, 2), 30)], "first")  # the slot that gets free
    wait_until(lambda: engine.counters.passes > 0)
    long = [engine.submit([replace(LONG, seed=seed) for seed in range(6)], name) for name in ("one", "other")]
    short = engine.submit([Row((3, 4), 30)], "short")
    ended_before = done_by_then(short[0], [*long[0], *long[1], first[0]])
    go.set()
    assert short[0].future.result(10).ids
    wait_until(lambda: bool(ended_before))  # those who wait are woken before the list is filled
    assert ended_before == [False] * 12 + [True]
    for handle in (*long[0], *long[1]):
        handle.cancel()
    engine.close()


@pytest.mark.parametrize("place", ["encoder.embedding", "decoder.norm", "head"])
def test_an_admission_that_fails_anywhere_fails_its_rows_only(place: str) -> None:
    """In reading the text, in the prefill, or in the first draw, when the rows stand in their slots already."""
    network = toy_network()
    engine = Engine(decoder_of(network, max_rows=2, traced=False))
    fail = no_memory_outside_of_steps(engine)
    (speaking,) = engine.submit([LONG])
    wait_until(lambda: engine.counters.steps > 0)
    hook = network.get_submodule(place).register_forward_hook(fail)
    (failing,) = engine.submit([IMITATING])
    with pytest.raises(SynthesisError, match="no memory left") as caught:
        failing.future.result(10)
    assert caught.value.may_succeed_later
    hook.remove()
    again = engine.submit([Row((5, 6), 40), Row((7, 8), 40)])
    assert all(handle.future.result(10).ids for handle in again)
    assert speaking.future.result(20) == decoder_of(network).speak([LONG])[0]
    engine.close()


def no_memory_outside_of_steps(engine: Engine) -> Callable[..., None]:
    """A hook that fails whoever is not a step of the running rows."""
    step, stepping = engine._decoder.step, threading.Event()

    def marked_step() -> None:
        stepping.set()
        step()
        stepping.clear()

    def fail(*_: object) -> None:
        if not stepping.is_set():
            raise torch.OutOfMemoryError("no memory left")

    engine._decoder.step = marked_step  # type: ignore[method-assign]
    return fail


def test_a_decoder_beyond_use_leaves_nobody_waiting() -> None:
    engine = Engine(decoder_of(toy_network(), max_rows=1))

    def fail(*_: object) -> None:
        raise RuntimeError("the device is gone")

    engine._decoder.step = engine._decoder.cancel = fail  # type: ignore[method-assign, assignment]
    for handle in engine.submit([LONG, LONG]):  # one speaks, one waits
        with pytest.raises(SynthesisError, match="the decoder broke down: the device is gone") as caught:
            handle.future.result(10)
        assert caught.value.may_succeed_later  # by another decoder
    wait_until(lambda: not engine.alive)
    with pytest.raises(SynthesisError, match="the decoder broke down: the device is gone") as caught:
        engine.submit([LONG])
    assert caught.value.may_succeed_later
    assert engine.failure == "the decoder broke down: the device is gone"


def out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("no memory left")


def test_a_row_of_broken_logits_fails_alone() -> None:
    network = toy_network()
    network.encoder.embedding.weight[50] = torch.nan  # a text with this token is NaN from the start
    rows = [Row((1, 2), 30), Row((50, 2), 30), Row((3, 4), 30)]
    engine = Engine(decoder_of(network))
    handles = engine.submit(rows)
    with pytest.raises(SynthesisError, match="no numbers"):
        handles[1].future.result(10)
    assert [handles[0].future.result(10), handles[2].future.result(10)] == decoder_of(network).speak(rows[::2])
    later = [replace(row, seed=9) for row in rows[::2]]
    after = [handle.future.result(10) for handle in engine.submit(later)]  # in the slot that held NaN too
    assert after == decoder_of(network).speak(later)
    engine.close()


def test_a_row_that_cannot_fit_fails_alone_although_no_slot_gets_free() -> None:
    engine = Engine(decoder_of(toy_network(), max_rows=1))
    (speaking,) = engine.submit([LONG])
    wait_until(lambda: engine.counters.rows_active == 1)
    bad, good = engine.submit([Row((), 20), Row((1, 2), 20)])
    with pytest.raises(RequestError, match="input"):
        bad.future.result(0)
    assert engine.counters.rows_waiting == 1
    speaking.cancel()
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


def test_a_cancelled_row_that_waits_ends_although_no_slot_gets_free() -> None:
    engine = Engine(decoder_of(toy_network(), max_rows=1))
    (speaking,) = engine.submit([LONG])
    wait_until(lambda: engine.counters.steps > 0)
    waiting = engine.submit([LONG, LONG])
    waiting[0].cancel()
    assert waiting[0].future.result(10).ids == ()
    assert engine.counters.rows_waiting == 1
    assert not speaking.future.done()
    speaking.cancel()
    waiting[1].cancel()
    engine.close()


def without_end(engine: Engine) -> list[None]:
    """Make the engine's next admission one that never comes to an end; return what grows with each of its pieces."""
    admission, pieces = engine._decoder.admission, list[None]()

    def endless(_rows: Sequence[Row]) -> Generator[None, None, list[int]]:
        engine._decoder.admission = admission  # type: ignore[method-assign]
        while True:
            pieces.append(None)
            time.sleep(0.001)  # or it would starve the test's own thread
            yield

    engine._decoder.admission = endless  # type: ignore[method-assign]
    return pieces


@pytest.mark.parametrize("others_speak", [False, True])
def test_an_admission_of_cancelled_rows_only_is_given_up(others_speak: bool) -> None:
    network = toy_network()
    engine = Engine(decoder_of(network, max_rows=3))
    speaking = engine.submit([LONG]) if others_speak else []
    wait_until(lambda: engine.counters.steps > 0 or not others_speak)
    pieces = without_end(engine)
    entering = engine.submit([Row((1, 2), 30), Row((3, 4), 30)])
    wait_until(lambda: engine._admission is not None)
    entering[0].cancel()
    assert entering[0].future.result(10).ids == ()
    assert engine.counters.rows_waiting == 1
    seen = len(pieces)
    wait_until(lambda: len(pieces) > seen + 2)  # its neighbour is still wanted
    entering[1].cancel()
    assert entering[1].future.result(10).ids == ()
    row = Row((5, 6), 30)
    assert [engine.submit([row])[0].future.result(10)] == decoder_of(network).speak([row])
    for handle in speaking:
        handle.cancel()
    engine.close()


@pytest.mark.parametrize("fails", [False, True])
def test_a_row_cancelled_in_the_midst_of_its_admission_ends_there_and_its_neighbours_come_in(fails: bool) -> None:
    network = toy_network()
    engine = Engine(decoder_of(network, max_rows=3))
    go_on, read_on = threading.Event(), threading.Event()
    hooks = [
        network.encoder.embedding.register_forward_hook(lambda *_: go_on.wait(10) and None),
        network.encoder.norm.register_forward_hook(lambda *_: (read_on.wait(10) and fails and out_of_memory()) or None),
    ]
    rows = different_rows(network.config, 3)
    entering = engine.submit(rows)
    wait_until(lambda: engine._admission is not None)
    entering[1].cancel()
    go_on.set()
    assert entering[1].future.result(10).ids == ()
    assert not entering[0].future.done()
    read_on.set()
    if fails:
        for handle in entering[::2]:
            with pytest.raises(SynthesisError, match="no memory left"):
                handle.future.result(10)
        hooks[1].remove()
        entering[::2] = engine.submit(rows[::2])
    assert [handle.future.result(10) for handle in entering[::2]] == decoder_of(network).speak(rows[::2])
    assert engine.counters.rows_spoken == 2
    engine.close()


def test_a_device_that_breaks_in_an_admission_ends_the_engine_although_nobody_speaks() -> None:
    network = toy_network()
    engine = Engine(decoder_of(network))
    network.encoder.embedding.register_forward_hook(out_of_memory)
    (failing,) = engine.submit([LONG])
    with pytest.raises(SynthesisError, match="no memory left"):
        failing.future.result(10)
    assert engine.alive

    def fail() -> None:
        raise RuntimeError("device-side assert triggered")

    engine._synchronise = fail  # type: ignore[method-assign]
    (broken,) = engine.submit([LONG])
    with pytest.raises(SynthesisError, match="the decoder broke down: device-side assert") as caught:
        broken.future.result(10)
    assert caught.value.may_succeed_later  # by another decoder
    wait_until(lambda: not engine.alive)


@pytest.mark.parametrize(("rows", "waits"), [(2, False), (3, True)])
def test_a_step_waits_for_the_device_only_if_somebody_may_come_in(rows: int, waits: bool) -> None:
    engine = Engine(decoder_of(toy_network(), max_rows=rows))
    speaking = engine.submit([LONG, LONG])
    wait_until(lambda: engine.counters.steps > 0)
    asked: list[bool] = []
    engine._synchronise = lambda: asked.append(engine._admission is None)  # type: ignore[method-assign]
    engine._begin_admission = lambda: False  # type: ignore[method-assign]
    engine.submit([LONG])
    steps = engine.counters.steps
    wait_until(lambda: engine.counters.steps > steps + 5)
    assert any(asked) is waits
    for handle in speaking:
        handle.cancel()
    engine.close()


def test_a_row_that_breaks_an_admission_fails_alone() -> None:
    network = toy_network()
    rows = different_rows(network.config, 5)
    expected = decoder_of(network).speak(rows)
    engine = Engine(decoder_of(network))
    admission = engine._decoder.admission

    def unlucky(entering: Sequence[Row]) -> Generator[None, None, list[int]]:
        if rows[2] in entering:
            raise RuntimeError("unlucky")
        numbers = yield from admission(entering)
        return numbers

    engine._decoder.admission = unlucky  # type: ignore[method-assign]
    handles = engine.submit(rows)
    with pytest.raises(SynthesisError, match="unlucky"):
        handles[2].future.result(10)
    assert [handle.future.result(10) for handle in handles if handle is not handles[2]] == expected[:2] + expected[3:]
    engine.close()


def failing_admissions(engine: Engine, most_rows: int) -> list[list[Row]]:
    """Let admissions of more rows than that want too much memory; return the list of the rows of all admissions."""
    admission, admitted = engine._decoder.admission, list[list[Row]]()

    def limited(rows: Sequence[Row]) -> Generator[None, None, list[int]]:
        admitted.append(list(rows))
        yield
        if len(rows) > most_rows:
            out_of_memory()
        numbers = yield from admission(rows)
        return numbers

    engine._decoder.admission = limited  # type: ignore[method-assign]
    return admitted


def test_rows_of_an_admission_that_failed_are_admitted_one_by_one_before_all_others() -> None:
    network = toy_network()
    rows = different_rows(network.config, 6)
    expected = decoder_of(network).speak(rows)
    engine = Engine(decoder_of(network, max_rows=3))
    admitted = failing_admissions(engine, most_rows=1)
    handles = [RowHandle(row, str(number)) for number, row in enumerate(rows)]
    engine.enqueue(handles)
    assert [handle.future.result(10) for handle in handles] == expected
    assert admitted[:4] == [rows[:3], [rows[0]], [rows[1]], [rows[2]]]
    engine.close()


def test_a_row_of_a_failed_admission_can_be_cancelled_while_it_waits_again() -> None:
    network = toy_network()
    rows = different_rows(network.config, 3)
    expected = decoder_of(network).speak(rows)
    engine = Engine(decoder_of(network))
    admitted = failing_admissions(engine, most_rows=1)
    handles = [RowHandle(row, "") for row in rows]
    give_up = engine._give_up_admission

    def cancelled_then() -> list[RowHandle]:
        wanted = give_up()
        handles[1].cancel()
        return wanted

    engine._give_up_admission = cancelled_then  # type: ignore[method-assign]
    engine.enqueue(handles)
    assert handles[1].future.result(10).ids == ()
    assert [handle.future.result(10) for handle in handles[::2]] == expected[::2]
    assert admitted == [rows, [rows[0]], [rows[2]]]
    engine.close()


def test_closing_does_not_wait_for_an_admission() -> None:
    engine = Engine(decoder_of(toy_network()))
    without_end(engine)
    (entering,) = engine.submit([LONG])
    wait_until(lambda: engine._admission is not None)
    engine.close()
    with pytest.raises(SynthesisError, match="shut down"):
        entering.future.result(0)


def test_an_idle_engine_reads_only_so_much_before_the_first_row_speaks() -> None:
    network = toy_network()
    text = tuple(range(1, 41)) * 10
    rows = [Row((*text, number), 30) for number in range(IDLE_GROUP_POSITIONS // len(text) + 3)]
    decoder = BatchDecoder(network, max_rows=len(rows), max_frames=60, max_tokens=len(text) + 1)
    engine = Engine(decoder, largest_share=1.0)
    handles = engine.submit(rows)
    for handle in handles:
        handle.future.result(30)
    admissions = [handle.admission for handle in handles]
    assert 1 < sum(admission == 1 for admission in admissions) < len(rows)
    engine.close()


def test_prompts_that_are_heard_for_one_target_each_are_each_read() -> None:
    network, prompt = toy_network(), tuple(range(3, 20)) * 20
    rows = [Row((1, 2, 3), len(prompt) + 30 + number, prompt) for number in range(IDLE_GROUP_POSITIONS // 300)]
    engine = Engine(BatchDecoder(network, max_rows=len(rows), max_frames=600, max_tokens=5), largest_share=1.0)
    handles = engine.submit(rows)
    for handle in handles:
        handle.future.result(30)
    assert 1 < len({handle.admission for handle in handles}) < len(rows)
    engine.close()


def memory_for(most_rows: int, engine: Engine, place: str, error: Exception) -> RemovableHandle:
    """Let every step of more rows than that fail in a module."""
    step, stepping = engine._decoder.step, threading.Event()

    def marked_step() -> None:
        stepping.set()
        try:
            step()
        finally:
            stepping.clear()

    def too_many(_module: nn.Module, _given: object, out: Tensor) -> None:
        if stepping.is_set() and len(out) > most_rows:
            raise error

    engine._decoder.step = marked_step  # type: ignore[method-assign]
    return engine._decoder.network.get_submodule(place).register_forward_hook(too_many)


@pytest.mark.parametrize("place", ["decoder.norm", "head"])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory left"), CPU_OUT_OF_MEMORY])
def test_a_step_without_memory_fails_those_who_came_last(place: str, error: Exception) -> None:
    """In computing the hidden states, or in the draw from them."""
    network = toy_network()
    engine = Engine(decoder_of(network, max_rows=4, traced=False))
    rows = different_rows(network.config, 8)[::4]  # two of unlike length
    first = engine.submit([replace(LONG, seed=seed) for seed in range(2)])
    wait_until(lambda: engine.counters.steps > 0)
    hook = memory_for(2, engine, place, error)
    for handle in engine.submit(rows):
        with pytest.raises(SynthesisError, match="no memory left") as caught:
            handle.future.result(10)
        assert caught.value.may_succeed_later
    hook.remove()
    assert [engine.submit([row])[0].future.result(10) for row in rows] == decoder_of(network).speak(rows)
    assert [handle.future.result(20) for handle in first] == decoder_of(network).speak([h.row for h in first])
    engine.close()


def test_a_step_without_memory_beside_an_admission_fails_those_who_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voice_core.decoding.engine.PATIENCE_STEPS", 0.01)  # there are steps between two pieces
    network = toy_network()
    engine = Engine(decoder_of(network))
    step = engine._decoder.step

    def step_alone() -> None:
        if engine._admission is not None:
            out_of_memory()
        step()

    (speaking,) = engine.submit([LONG])
    wait_until(lambda: engine.counters.rows_active == 1)
    engine._decoder.step = step_alone  # type: ignore[method-assign]
    rows = different_rows(network.config, 2)
    for handle in engine.submit(rows):
        with pytest.raises(SynthesisError, match="no memory left") as caught:
            handle.future.result(10)
        assert caught.value.may_succeed_later
    waiting = engine.submit(rows)  # until the one that speaks has ended: they wouldn't fit either
    engine._decoder.step = step  # type: ignore[method-assign]
    assert [handle.future.result(20) for handle in waiting] == decoder_of(network).speak(rows)
    assert [speaking.future.result(20)] == decoder_of(network).speak([LONG])
    engine.close()


def test_a_decoder_that_does_not_let_a_row_go_leaves_its_neighbours_no_wait() -> None:
    network = toy_network()
    engine = Engine(decoder_of(network))
    cancel, go_on = engine._decoder.cancel, threading.Event()

    def fail(_number: int) -> None:
        engine._decoder.cancel = cancel  # type: ignore[method-assign]
        raise RuntimeError("no more")

    engine._decoder.cancel = fail  # type: ignore[method-assign, assignment]
    hook = network.encoder.embedding.register_forward_hook(lambda *_: go_on.wait(10) and None)
    rows = different_rows(network.config, 2)
    entering = engine.submit(rows)
    wait_until(lambda: engine._admission is not None)
    entering[1].cancel()
    go_on.set()
    with pytest.raises(SynthesisError, match="no more"):
        entering[0].future.result(10)
    hook.remove()
    assert [handle.future.result(10) for handle in engine.submit(rows)] == decoder_of(network).speak(rows)
    engine.close()


def test_want_of_memory_halves_a_burst_and_those_who_wait_come_in_one_by_one() -> None:
    network = toy_network()
    engine = Engine(decoder_of(network, max_rows=8), largest_share=1.0)
    rows = different_rows(network.config, 20)
    hook = memory_for(3, engine, "head", CPU_OUT_OF_MEMORY)
    handles = engine.submit(rows)
    errors = [handle.future.exception(20) for handle in handles]
    hook.remove()
    expected = decoder_of(network).speak(rows)
    for handle, error, spoken in zip(handles, errors, expected, strict=True):
        assert isinstance(error, SynthesisError) or handle.future.result(0) == spoken
    # Of eight four remain, then two; from then on one fails now and then where the house tries to take one more.
    assert sum(error is not None for error in errors) < len(rows) * 2 / 3
    engine.close()


@pytest.mark.parametrize("place", ["decoder.norm", "head"])
def test_a_step_that_failed_is_gone_on_with_wherever_the_rows_move(place: str) -> None:
    """The one that leaves sits below one that stays and takes its slot, with all that half a step has left there."""
    network = toy_network()
    rows = different_rows(network.config, 2)
    (expected,) = decoder_of(network).speak(rows[1:])
    decoder = decoder_of(network, traced=False)
    first, second = decoder.admit(rows)
    for _ in range(10):
        decoder.step()
    hook = network.get_submodule(place).register_forward_hook(out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        decoder.step()
    hook.remove()
    decoder.cancel(first)
    outcomes: list[tuple[int, Outcome]] = []
    while decoder.live_rows:
        decoder.step()
        outcomes += decoder.retire()
    assert outcomes == [(second, expected)]


def test_a_pass_that_gathers_fills_its_slots_however_much_is_to_be_read() -> None:
    network = toy_network()
    text = tuple(range(1, 41)) * 10
    rows = [Row((*text, number), 30) for number in range(IDLE_GROUP_POSITIONS // len(text) + 3)]
    decoder = BatchDecoder(network, max_rows=len(rows), max_frames=60, max_tokens=len(text) + 1)
    engine = Engine(decoder, largest_share=1.0, in_flight=False)
    handles = engine.submit(rows)
    for handle in handles:
        handle.future.result(30)
    assert {handle.admission for handle in handles} == {1}
    engine.close()


def test_on_a_gpu_deterministic_draws_are_the_same_whatever_the_neighbours_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    demands: set[Demand] = set()
    decoder = decoder_of(toy_network(), deterministic=True)
    draw = decoder._draw
    monkeypatch.setattr(decoder, "_on_gpu", True)
    monkeypatch.setattr(decoder, "_draw", lambda rows, demand: (demands.add(demand), draw(rows, demand)))
    for sampling in (Sampling(), Sampling(0.0), Sampling(1.0, 0, 1.0), Sampling(1.0, 5, 1.0, 0.2)):
        decoder.admit([Row((1, 2), 30, sampling=sampling)])
        decoder.step()
    assert len(demands) == 1


def test_a_failing_pass_fails_its_rows_and_the_engine_goes_on() -> None:
    network = toy_network()
    engine = Engine(decoder_of(network))
    step = engine._decoder.step

    def fail() -> None:
        engine._decoder.step = step  # type: ignore[method-assign]
        raise RuntimeError("no more")

    engine._decoder.step = fail  # type: ignore[method-assign]
    for handle in engine.submit([LONG, LONG]):
        with pytest.raises(SynthesisError, match="no more"):
            handle.future.result(10)
    row = Row((1, 2), 20)
    assert [engine.submit([row])[0].future.result(10)] == decoder_of(network).speak([row])
    engine.close()


def test_closing_fails_what_is_still_here_and_refuses_what_comes() -> None:
    engine = Engine(decoder_of(toy_network(), max_rows=1))
    go = held_back(engine)
    handles = engine.submit([LONG, LONG])
    wait_until(lambda: engine.counters.passes > 0)
    closing = threading.Thread(target=engine.close)
    closing.start()
    wait_until(lambda: engine._closing)
    go.set()
    closing.join(10)
    for handle in handles:
        with pytest.raises(SynthesisError, match="shut down"):
            handle.future.result(10)
    with pytest.raises(SynthesisError, match="shut down"):
        engine.submit([LONG])
    assert not engine.alive


def test_a_rows_future_cannot_be_cancelled_under_the_decoder() -> None:
    assert not RowHandle(LONG, "").future.cancel()
