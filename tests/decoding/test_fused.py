"""The step's kernels against torch. Without a GPU Triton's interpreter runs them, so they are checked everywhere."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.sizes import SIZES, config_of
from benchmarks.step_kernels import VARIANTS, launches
from tests.toy import toy_config
from voice_core.decoding import fused, trial
from voice_core.decoding.decoder import BatchDecoder
from voice_core.decoding.engine import Engine
from voice_core.decoding.fused import FusedStep, Tuning
from voice_core.decoding.graphs import Shape, shapes_up_to
from voice_core.decoding.noise import uniform
from voice_core.decoding.rows import Row
from voice_core.decoding.sampling import Demand, draw
from voice_core.decoding.slots import Slots
from voice_core.decoding.state import RowState
from voice_core.model.config import parse_config
from voice_core.model.network import Network
from voice_core.speech import Sampling

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
if not ON_GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are defined

FEW_PROGRAMS = Tuning(programs=4, ahead=64)


def small_network(seed: int = 0, dtype: torch.dtype = torch.float32, **stack: Any) -> Network:
    """A network whose shape the kernels take; float32, so that what differs is a mistake and not rounding."""
    raw = toy_config(extra_cutoff=0.0)
    for side in ("encoder", "decoder"):
        raw["t5_config_dict"][side] |= {
            "hidden_size": 64,
            "intermediate_size": 128,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            **stack,
        }
    if "attn_logit_softcapping" in stack:
        raw["attn_implementation"] = "eager"
    raw |= {key: stack[key] for key in ("use_pm_rope", "audio_vocab_size") if key in stack}
    torch.manual_seed(seed)
    config = parse_config(raw, "config.json")
    network = Network(config).eval().requires_grad_(False)
    for name, weight in network.named_parameters():
        if name.endswith(".gain"):
            weight.uniform_(0.5, 1.5)
        else:
            weight.normal_(0.0, 1.5 / weight.shape[-1] ** 0.5)
    network.head[2].bias[config.end_code] += 2.0
    network = network.to(DEVICE, dtype)
    for module in network.modules():
        if hasattr(module, "gain"):
            module.gain.data = module.gain.data.float()
    return network


def different_rows(count: int) -> list[Row]:
    return [
        Row(
            text_ids=tuple(1 + (7 * number + place) % 50 for place in range(4 + 3 * number)),
            target_frames=4 + 6 * number,
            prompt_codes=tuple((11 * number + place) % 250 for place in range(4 * number)),
            seed=number,
            sampling=Sampling(
                temperature=(0.8, 1.1, 0.0)[number % 3], top_k=(30, 5)[number % 2], top_p=(0.9, 1.0)[number % 2]
            ),
        )
        for number in range(count)
    ]


def decoder_of(network: Network, max_rows: int = 4, max_tokens: int = 40) -> BatchDecoder:
    decoder = BatchDecoder(network, max_rows=max_rows, max_frames=120, max_tokens=max_tokens, traced=False)
    decoder._fused = None
    return decoder


def fused_decoder(
    network: Network, max_rows: int = 4, tuning: Tuning = FEW_PROGRAMS, max_tokens: int = 40
) -> BatchDecoder:
    decoder = decoder_of(network, max_rows, max_tokens)
    assert FusedStep.supports(network, decoder.slots)
    decoder._fused = FusedStep(network, decoder.slots, decoder._state, tuning)
    return decoder


@pytest.mark.parametrize(
    "stack",
    [
        {},
        {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 6},
        {"attn_logit_softcapping": 2.0},
        {"use_pm_rope": 0},
        {"num_key_value_heads": 4},
    ],
    ids=["plain", "window", "softcap", "counted positions", "a head each"],
)
@pytest.mark.parametrize("stretches", [1, 3])
def test_a_step_is_torchs_step(stack: dict[str, Any], stretches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning = FEW_PROGRAMS
    if stretches > 1:
        monkeypatch.setattr(fused, "LONG_STRETCH_FRAMES", 8)
        tuning = Tuning(programs=64, ahead=64)
    network = small_network(**stack)
    plain, ours = decoder_of(network), fused_decoder(network, tuning=tuning)
    rows = different_rows(3)
    plain.admit(rows)
    ours.admit(rows)
    assert ours._fused is not None
    for _ in range(2):
        shape = plain._shape()
        assert ours._fused._stretches(shape) == (1 if stretches == 1 else -(-shape.frames // 8))
        plain.step()
        ours.step()
        torch.testing.assert_close(ours._state.hidden, plain._state.hidden, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.slots.keys, plain.slots.keys, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.slots.values, plain.slots.values, rtol=1e-4, atol=1e-4)
        for column in ("filled", "steps", "ended", "length", "reason", "codes", "last_code"):
            assert torch.equal(getattr(ours._state, column), getattr(plain._state, column)), column


def test_a_step_is_torchs_step_where_some_weights_are_held_and_others_read() -> None:
    network = small_network(hidden_size=128)
    tuning = Tuning(programs=1, ahead=32, depth=64, held=64, gate_depth=64, gate_held=64, gate_ahead=32)
    plain, ours = decoder_of(network), fused_decoder(network, tuning=tuning)
    for decoder in (plain, ours):
        decoder.admit(different_rows(3))
        decoder.step()
    torch.testing.assert_close(ours._state.hidden, plain._state.hidden, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.slots.keys, plain.slots.keys, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("parts", [2, 3])
def test_a_step_is_torchs_step_where_products_are_sums_of_parts(parts: int) -> None:
    network = small_network(hidden_size=64 * parts)
    plain, ours = decoder_of(network), fused_decoder(network, tuning=Tuning(programs=64, ahead=0, depth=64))
    assert ours._fused is not None
    qkv, query = ours._fused._layers[0].attention.qkv, ours._fused._layers[0].cross.query
    assert {ours._fused._parts_of(*linear.weight.shape) for linear in (qkv, query)} == {parts}
    for decoder in (plain, ours):
        decoder.admit(different_rows(3))
        decoder.step()
    torch.testing.assert_close(ours._state.hidden, plain._state.hidden, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.slots.keys, plain.slots.keys, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.slots.values, plain.slots.values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shared_kb", [228, 164, 100])
@pytest.mark.parametrize("rows", [1, 17, 33, 128])
def test_two_programs_of_a_product_fit_into_a_processor(shared_kb: int, rows: int) -> None:
    network = small_network()
    ours = FusedStep(network, decoder_of(network).slots, decoder_of(network)._state)
    ours.shared_memory(shared_kb << 10)
    tuning = Tuning()
    for weights, depth, held in ((1, tuning.depth, tuning.held), (1, tuning.depth, 0), (2, tuning.gate_depth, 128)):
        blocks = ours._blocks(rows, 1152, depth, held, 512, tuning.stages, weights=weights)
        assert blocks["ROWS"] >= rows
        assert blocks["HELD"] * blocks["DEPTH"] + blocks["ahead"] <= 1152
        block_bytes = (64 * weights + blocks["ROWS"]) * blocks["DEPTH"] * network.dtype.itemsize
        taken = max(blocks["STAGES"] + (blocks["HELD"] > 0), blocks["HELD"])
        assert taken * block_bytes <= ours._shared_bytes or (blocks["STAGES"], blocks["HELD"]) == (1, 0)


def blocks_of(rows: int, tuning: Tuning, held: int, stages: int) -> tuple[int, int]:
    """Return depth and stages of a Hopper's product in bfloat16 of a depth of 1152, asked for in blocks of 128."""
    network = small_network(dtype=torch.bfloat16)
    ours = FusedStep(network, decoder_of(network).slots, decoder_of(network)._state, tuning)
    ours.shared_memory(228 << 10)
    blocks = ours._blocks(rows, 1152, 128, held, 0, stages)
    return blocks["DEPTH"], blocks["STAGES"]


def test_six_stages_take_more_than_half_a_processor() -> None:
    assert blocks_of(8, Tuning(), held=0, stages=6) == (128, 5)  # of (64 + 16) · 128 · 2 bytes, 20 KB, in 113
    assert blocks_of(8, Tuning(share=1), held=0, stages=6) == (128, 6)  # in 227


def test_smaller_blocks_are_as_many_bytes_on_their_way() -> None:
    assert blocks_of(64, Tuning(), held=0, stages=3) == (128, 3)  # of (64 + 64) · 128 · 2 bytes, 32 KB, in 113
    assert blocks_of(64, Tuning(), held=128, stages=3) == (64, 6)  # of 16 KB, and one that is held
    assert blocks_of(64, Tuning(), held=128, stages=4) == (64, 6)  # 8 don't fit beside it


def test_every_variant_of_the_tuning_divides_the_work_otherwise() -> None:
    config = config_of(SIZES["full"])
    with torch.device("meta"):
        network = Network(config).to(torch.bfloat16)
    slots = Slots(config.decoder, 8, 256, 64, torch.device("meta"), torch.bfloat16)
    state = RowState(8, 256, config, torch.device("cpu"), torch.bfloat16)
    seen = [launches(network, slots, state, replace(Tuning(), **variant)) for variant in VARIANTS]
    for place, launched in enumerate(seen):
        assert seen.index(launched) == place, VARIANTS[place]


def random_logits(rows: int, vocab_size: int, seed: int) -> Tensor:
    logits = torch.randn(rows, vocab_size, generator=torch.manual_seed(seed)) * 3
    logits[0] = logits[0].round()  # many equal ones
    return logits.to(DEVICE)


def drawn_by(network: Network, logits: Tensor, options: list[Sampling], step: int, use: Callable[..., Any]) -> Any:
    """Let `use` draw from the logits for rows of these options in their step; return the rows' state."""
    decoder = fused_decoder(network, len(options))
    rows = [Row((1, 2), 30, seed=seed, sampling=sampling) for seed, sampling in enumerate(options)]
    decoder._state.enter(0, rows)
    decoder._state.steps += step
    assert decoder._fused is not None
    use(decoder, logits)
    return decoder._state


def drawn_by_kernel(decoder: BatchDecoder, logits: Tensor) -> None:
    ours, rows = decoder._fused, logits.shape[0]
    assert ours is not None
    ours._logits[:rows] = logits
    padded = torch.full((rows, ours._tiles * fused.COLUMNS), -torch.inf, device=DEVICE)
    padded[:, : logits.shape[1]] = logits
    largest = padded.view(rows, ours._tiles, -1).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).amax(2)
    bits = largest.view(torch.int32)
    ours._best[:rows] = (bits ^ ((bits >> 31) & 0x7FFFFFFF)) ^ -0x80000000
    ours.pick(slice(0, rows), Demand.of([Sampling(top_k=100)], logits.shape[1]))


def drawn_by_torch(decoder: BatchDecoder, logits: Tensor) -> None:
    state, rows = decoder._state, slice(0, len(logits))
    demand = Demand(logits.shape[1], min_p=False)
    noise = uniform(state.keys[rows], state.steps[rows])
    state.record(rows, draw(logits, state.options.rows(rows), noise, demand))


@pytest.mark.parametrize("audio_vocab_size", [256, 16384], ids=["fewer ids than candidates' tiles", "more"])
def test_the_kernel_draws_what_torch_draws(audio_vocab_size: int) -> None:
    network = small_network(audio_vocab_size=audio_vocab_size)
    options = [Sampling(), Sampling(0.5, 100, 1.0), Sampling(1.5, 3, 0.4), Sampling(temperature=0.0), Sampling(1.0, 1)]
    for step in range(8):
        logits = random_logits(len(options), network.config.code_vocab_size, step)
        if step == 5:
            logits[1, 17] = torch.nan
        if step == 6:
            logits[2, network.config.end_code] = 99.0
        kernel, torchs = (
            drawn_by(network, logits, options, 4 * step, use) for use in (drawn_by_kernel, drawn_by_torch)
        )
        for column in ("codes", "steps", "ended", "length", "reason", "last_code"):
            got, expected = getattr(kernel, column), getattr(torchs, column)
            if step == 5 and column in ("codes", "last_code"):  # which code a broken row has does not matter
                got, expected = (x[[0, 2, 3, 4]] for x in (got, expected))
            assert torch.equal(got, expected), (step, column)


def test_rows_say_alone_what_they_say_in_any_company() -> None:
    network = small_network()
    rows = different_rows(3)
    alone = [fused_decoder(network).speak([row])[0] for row in rows]
    assert fused_decoder(network, 2).speak(rows) == alone
    engine = Engine(fused_decoder(network, 2))
    handles = [engine.submit([row])[0] for row in reversed(rows)]
    assert [handle.future.result(60) for handle in handles] == alone[::-1]
    engine.close()


class Watched(FusedStep):
    """Notes what Triton compiles a kernel for: its constants."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, FEW_PROGRAMS)
        self.compiled: set[Any] = set()

    def _launch(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        self.compiled.add((kernel, tuple(sorted(constants.items()))))
        super()._launch(kernel, grid, *arguments, **constants)


def test_without_recordings_kernels_are_compiled_before_anybody_waits_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A row alone is then computed otherwise than two together.
    monkeypatch.setattr("voice_core.decoding.fused.LONG_STRETCH_FRAMES", 64)
    monkeypatch.setattr("voice_core.decoding.decoder.fused_step", Watched)
    network = small_network()
    decoder = BatchDecoder(network, max_rows=2, max_frames=120, max_tokens=40, traced=False)
    assert isinstance(decoder._fused, Watched)
    before = set(decoder._fused.compiled)
    rows = different_rows(2)
    assert decoder.speak(rows) == decoder_of(network, 2).speak(rows)
    assert decoder._fused.compiled == before


def test_what_the_kernels_cannot_draw_torch_draws() -> None:
    network = small_network()
    sampling = Sampling(min_p=0.05)
    rows = [Row((1, 2, 3), 4, seed=seed, sampling=sampling) for seed in range(2)]
    assert fused_decoder(network).speak(rows) == decoder_of(network).speak(rows)


def test_shapes_that_are_computed_alike_are_recorded_once() -> None:
    network = small_network()
    ours = fused_decoder(network)._fused
    assert ours is not None
    assert ours.shapes(shapes_up_to(Shape(4, 400, 40))) == [Shape(1, 400, 40), Shape(2, 400, 40), Shape(4, 400, 40)]


def test_networks_of_other_shapes_are_left_to_torch() -> None:
    assert not FusedStep.supports(small_network(head_dim=48), decoder_of(small_network()).slots)
    assert not FusedStep.supports(small_network(attention_bias=True), decoder_of(small_network()).slots)
    wide = BatchDecoder(small_network(), max_rows=129, max_frames=60, max_tokens=10)
    assert not FusedStep.supports(wide.network, wide.slots)


def test_kernels_are_trusted_if_they_compute_what_torch_computes(caplog: pytest.LogCaptureFixture) -> None:
    decoder = fused_decoder(small_network())
    ours, slots, state = decoder._fused, decoder.slots, decoder._state
    assert ours is not None
    assert trial.works(ours, slots, state, decoder._plain)
    assert not any(column.any() for column in (slots.keys, slots.values, *slots.text, state.filled, state.last_code))
    others = FusedStep(small_network(seed=1), slots, state, FEW_PROGRAMS)
    assert not trial.works(others, slots, state, decoder._plain)
    assert "hidden states are" in caplog.text


def test_more_rows_than_text_tokens_are_no_reason_for_distrust() -> None:
    decoder = fused_decoder(small_network(), max_tokens=3)
    assert decoder._fused is not None
    assert trial.works(decoder._fused, decoder.slots, decoder._state, decoder._plain)


def test_kernels_that_compute_nothing_or_another_head_are_not_trusted(caplog: pytest.LogCaptureFixture) -> None:
    decoder = fused_decoder(small_network())
    ours, slots, state = decoder._fused, decoder.slots, decoder._state
    assert ours is not None
    think, head = ours.think, ours._head
    ours.think = lambda shape: None  # type: ignore[method-assign]
    assert not trial.works(ours, slots, state, decoder._plain)
    assert "hidden states are nan of their norm apart" in caplog.text
    assert "keys are nan of their norm apart" in caplog.text
    ours.think, ours._head = think, small_network(seed=1).head[2]  # type: ignore[method-assign]
    caplog.clear()
    assert not trial.works(ours, slots, state, decoder._plain)
    assert "logits are" in caplog.text
    assert "hidden states" not in caplog.text
    ours._head = head
    assert trial.works(ours, slots, state, decoder._plain)


def test_kernels_need_not_be_nearer_to_torch_than_torch_is_to_itself(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained weights may carry a rounding, other with every number of rows, until it is large."""
    decoder = fused_decoder(small_network())
    ours, slots, state, plain = decoder._fused, decoder.slots, decoder._state, decoder._plain
    assert ours is not None
    think, always = plain.think, False

    def noisy(shape: Shape) -> None:
        think(shape)
        hidden = state.hidden[: shape.rows]
        generator = torch.Generator().manual_seed(0 if always else shape.rows)
        noise = torch.randn(hidden.shape[1], generator=generator).to(hidden.device)  # the same for every row
        hidden += 0.1 * hidden.norm(dim=1, keepdim=True) / noise.norm() * noise

    monkeypatch.setattr(plain, "think", noisy)
    assert trial.works(ours, slots, state, plain)
    always = True  # torch agrees with itself, and not with the kernels
    assert not trial.works(ours, slots, state, plain)
    assert "hidden states are 0.099" in caplog.text


def test_kernels_that_fail_only_for_some_shapes_are_left_alone_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(FusedStep):
        def draw(self, rows: slice, demand: Demand) -> bool:
            raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr("voice_core.decoding.decoder.fused_step", Failing)
    network = small_network()
    decoder = BatchDecoder(network, max_rows=2, max_frames=120, max_tokens=40, traced=False)
    assert not decoder.fused
    assert "out of resource: shared memory" in caplog.text
    assert decoder.speak(different_rows(2)) == decoder_of(network, 2).speak(different_rows(2))


def test_kernels_that_fail_are_left_alone(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = fused_decoder(small_network())
    ours = decoder._fused
    assert ours is not None

    def out_of_resources(_: Shape) -> None:
        raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr(ours, "think", out_of_resources)
    assert not trial.works(ours, decoder.slots, decoder._state, decoder._plain)
    assert "out of resource: shared memory" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 3, 17, 33, 128])
@pytest.mark.parametrize("stack", [{}, {"hidden_size": 768, "intermediate_size": 2048}], ids=["small", "large"])
def test_on_a_gpu_steps_in_half_precision_are_close_to_torchs(
    stack: dict[str, int], dtype: torch.dtype, rows: int
) -> None:
    network = small_network(dtype=dtype, **stack)
    plain, ours = decoder_of(network, rows), fused_decoder(network, rows, Tuning())
    batch = [different_rows(5)[number % 5] for number in range(rows)]
    for decoder in (plain, ours):
        decoder.admit(batch)
    for _ in range(3):
        for decoder in (plain, ours):
            decoder._think(decoder._shape())
        error = (ours._state.hidden - plain._state.hidden).float().norm() / plain._state.hidden.float().norm()
        assert error < 0.02
        assert ours._fused is not None
        ours._state.hidden.copy_(plain._state.hidden)
        logits, expected = ours._fused.logits(slice(0, rows)), plain._plain.logits(slice(0, rows))
        possible = torch.arange(logits.shape[1], device=DEVICE) != network.config.end_code
        assert (logits - expected)[:, possible].norm() / expected[:, possible].norm() < 0.02
