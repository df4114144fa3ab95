import logging
from pathlib import Path

import pytest
import torch

from tests.decoding.arrivals import check_random_arrivals
from tests.decoding.recorder import HostAsked, Kernels, record
from tests.decoding.test_decoder import cases, different_rows, network_of, rows_of
from tests.toy import toy_config, toy_network
from voice_core.decoding.decoder import BatchDecoder
from voice_core.decoding.engine import Engine
from voice_core.decoding.graphs import Computation, Shape, shapes_up_to
from voice_core.decoding.rows import Row
from voice_core.model.config import parse_config
from voice_core.model.network import Network
from voice_core.speech import Sampling


def recorded_decoder(
    network: Network, max_rows: int, *, max_frames: int = 800, deterministic: bool = False
) -> BatchDecoder:
    decoder = BatchDecoder(
        network, max_rows=max_rows, max_frames=max_frames, max_tokens=80, deterministic=deterministic, recorder=record
    )
    assert decoder.recorded
    return decoder


def plain_decoder(network: Network, max_rows: int = 32) -> BatchDecoder:
    return BatchDecoder(network, max_rows=max_rows, max_frames=800, max_tokens=80)


def nothing_but_playback(decoder: BatchDecoder) -> None:
    """Let the decoder fail where it would compute a step itself."""

    def think(_: Shape) -> None:
        raise AssertionError("a step was not recorded")

    decoder._think = think  # type: ignore[method-assign]


def test_shapes_are_few_and_the_first_that_holds_a_step_wastes_little() -> None:
    shapes = shapes_up_to(Shape(100, 900, 400))
    assert {shape.rows for shape in shapes} == {1, 2, 4, 8, 16, 32, 64, 100}
    lengths = [(256, 128), (384, 192), (512, 256), (768, 384), (900, 400)]
    assert [(shape.frames, shape.text_tokens) for shape in shapes if shape.rows == 4] == lengths
    assert next(shape for shape in shapes if shape.holds(Shape(3, 100, 150))) == Shape(4, 384, 192)
    assert next(shape for shape in shapes if shape.holds(Shape(100, 900, 400))) == Shape(100, 900, 400)


def test_played_back_every_greedy_run_of_the_reference_is_the_same(fixtures: Path) -> None:
    for case in cases(fixtures):
        tokens, lengths = case["arrays"]["tokens"], case["arrays"]["lens"]
        rows, network = rows_of(case), network_of(case, fixtures)
        capacity = max(row.capacity_frames(network.config) for row in rows)
        decoder = recorded_decoder(network, len(rows) + 1, max_frames=capacity)
        nothing_but_playback(decoder)
        for row, theirs, length in zip(decoder.speak(rows), tokens, lengths, strict=True):
            assert list(row.ids) == theirs[: length - 1].tolist(), case["case"]


@pytest.mark.parametrize("deterministic", [False, True])
def test_played_back_rows_of_all_options_say_the_same(deterministic: bool) -> None:
    network = toy_network()
    rows = different_rows(network.config, 12)
    decoder = recorded_decoder(network, max_rows=5, deterministic=deterministic)
    nothing_but_playback(decoder)
    assert decoder.speak(rows) == plain_decoder(network).speak(rows)
    assert decoder.speak(rows[::-1]) == plain_decoder(network).speak(rows[::-1])  # in slots that were used before


def test_played_back_rows_may_come_and_be_called_off_at_any_time() -> None:
    network = toy_network()
    rows = different_rows(network.config, 24)
    expected = plain_decoder(network).speak(rows)
    for seed in range(3):
        engine = Engine(recorded_decoder(network, max_rows=6))
        check_random_arrivals(engine, rows, expected, seed)
        engine.close()


def test_a_long_row_is_played_back_through_all_lengths() -> None:
    network = toy_network()
    network.head[2].bias[network.config.end_code] -= 100  # it never ends by itself
    row = Row((1, 2, 3), 700, sampling=Sampling())
    decoder = recorded_decoder(network, max_rows=2)
    nothing_but_playback(decoder)
    assert decoder.speak([row]) == plain_decoder(network).speak([row])


def test_a_recorded_step_asks_the_device_for_no_number() -> None:
    """On torch's meta device, whose tensors have shapes only: there is nothing that the host could be told."""
    kernels_of_parts: list[int] = []

    def on_meta_device(compute: Computation) -> Computation:
        with Kernels() as kernels:
            compute()
        kernels_of_parts.append(len(kernels.calls))
        return compute

    with torch.device("meta"):
        network = Network(parse_config(toy_config(), "config.json")).requires_grad_(False)
    decoder = BatchDecoder(network, max_rows=4, max_frames=300, max_tokens=80, recorder=on_meta_device)
    assert decoder.recorded
    assert len(kernels_of_parts) == 3 * 2 + 3 * 2  # for 1, 2 and 4 rows: two lengths, and two demands
    assert min(kernels_of_parts) > 20


def test_the_stand_in_refuses_whoever_asks() -> None:
    numbers = torch.arange(3.0)
    for question in (
        lambda: bool((numbers > 1).any()),
        lambda: numbers.max().item(),
        lambda: numbers[numbers > 1],
        numbers.nonzero,
        lambda: torch.ones(3, device="meta").copy_(numbers),
    ):
        with pytest.raises(HostAsked):
            record(question)  # type: ignore[arg-type]


def test_the_stand_in_holds_fast_what_the_host_decided() -> None:
    number, total = 2, torch.zeros(1)

    def add() -> None:
        total.add_(number * 1.0)

    add_again = record(add)
    number = 5
    add_again()
    assert total.item() == 4


def test_where_recording_fails_speech_goes_on_without_and_it_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    network = toy_network()
    rows = different_rows(network.config, 3)
    calls = []

    def failing(compute: Computation) -> Computation:
        calls.append(compute)
        if len(calls) == 3:
            raise RuntimeError("operation not permitted")
        return record(compute)

    with caplog.at_level(logging.WARNING):
        decoder = BatchDecoder(network, max_rows=4, max_frames=800, max_tokens=80, recorder=failing)
    assert not decoder.recorded
    assert [entry.getMessage() for entry in caplog.records] == [
        "Decode steps could not be recorded, every kernel is started by itself: operation not permitted"
    ]
    assert decoder.speak(rows) == plain_decoder(network).speak(rows)
