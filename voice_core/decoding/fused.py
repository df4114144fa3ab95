"""A decode step in few kernels, for GPUs: what `BatchDecoder` computes with torch elsewhere, with `kernels` here.

Letters: B rows of a step, R slots, P partial sums, H hidden, A attention heads, G key/value heads, D head size.

Prefill and everything else stays with torch, which is as fast there. Sums are rounded in another order than torch's and
between fewer kernels; draws come from the same noise.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from voice_core.decoding.graphs import Shape
from voice_core.decoding.sampling import Demand
from voice_core.decoding.slots import Slots
from voice_core.decoding.state import TOO_EARLY_LOGIT, RowState
from voice_core.model.network import DecoderLayer, Network
from voice_core.seeds import GOLDEN, SHIFTS_AND_FACTORS, signed

logger = logging.getLogger(__name__)

MOST_ROWS = 128  # whose sums a processor can hold
CANDIDATES = (64, 128)  # of a draw, as many as it takes; for more of them torch draws
COLUMNS = 64  # of a product that one program computes: what Hopper's matrix units take
FEWEST_QUERIES = 16  # of a product of matrices
LONG_STRETCH_FRAMES = 512  # of a row's memory; where few rows leave processors idle, longer ones are shared out
DEPENDENT_LAUNCH = (9, 0)  # from this compute capability on
HOPPER_SHARED_BYTES = 228 << 10  # of a processor
RESERVED_SHARED_BYTES = 1 << 10  # that a program takes for itself
FEWEST_STAGES = 3  # of loads on their way; for less, smaller blocks are better


@dataclass(frozen=True)
class Tuning:
    """How the kernels divide their work: reckoned for an H200, not yet found; see benchmarks/step_kernels.py --tune."""

    programs: int = 120  # of a product, at the least: there are 132 processors
    share: int = 2  # so many programs have room in a processor's shared memory
    # As far as the shared memory goes, see FusedStep._blocks:
    held: int = 512  # numbers of each weight row that are in shared memory before a product's input is there
    ahead: int = 512  # more of them that are on their way to the cache then
    depth: int = 128  # of a product that is computed at a time
    stages: int = 4  # of the loads on their way
    gate_held: int = 128
    gate_ahead: int = 256
    gate_depth: int = 64
    gate_stages: int = 4
    early: bool = True  # what comes after the wide product asks for its weights while that still runs
    # As `ahead`, of the product that comes after it; the cache may drop them again while the wide one streams through.
    down_ahead: int = 512
    frames: int = 64  # of a row's memory that are read at a time
    frame_stages: int = 2
    attention_warps: int = 8
    draw_warps: int = 8


class FusedStep:
    """The two halves of a step over slots and state, `think` and `draw`, and nothing that the host must wait for."""

    def __init__(self, network: Network, slots: Slots, state: RowState, tuning: Tuning | None = None) -> None:
        """Take what memory the steps need; the network has to be one that `supports` accepts."""
        from voice_core.decoding import kernels

        self._kernels: ModuleType = kernels
        self._tuning = tuning or Tuning()
        self._network, self._slots, self._state = network, slots, state
        self._layers = [layer for layer in network.decoder.layers if isinstance(layer, DecoderLayer)]
        self._before_head, self._head = (linear for linear in network.head if isinstance(linear, nn.Linear))
        config = self._config = network.config
        stack = self._stack = config.decoder
        device = network.device
        on_gpu = device.type == "cuda"
        self._dependent = on_gpu and torch.cuda.get_device_capability(device) >= DEPENDENT_LAUNCH
        # Triton launches on the thread's own device, whatever its arguments are on.
        self._there: AbstractContextManager[Any] = torch.cuda.device(device) if on_gpu else nullcontext()
        self.shared_memory(
            torch.cuda.get_device_properties(device).shared_memory_per_multiprocessor if on_gpu else HOPPER_SHARED_BYTES
        )
        self._vocab_size = config.code_vocab_size
        self._tiles = -(-self._vocab_size // COLUMNS)

        def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, device=device, dtype=dtype)

        rows, half = slots.slots, stack.head_dim // 2
        heads = stack.heads * stack.head_dim
        widths = [(heads + 2 * stack.kv_heads * stack.head_dim, stack.hidden_size), (heads, stack.hidden_size)]
        widths += [(stack.hidden_size, depth) for depth in (heads, stack.hidden_size, stack.intermediate_size)]
        self._parts = numbers(rows * max(width * self._parts_of(width, depth) for width, depth in widths))
        self._x = numbers(rows, stack.hidden_size)
        self._normed = numbers(rows, stack.hidden_size, dtype=network.dtype)
        self._attended = numbers(rows, heads, dtype=network.dtype)
        self._gated = numbers(rows, stack.intermediate_size, dtype=network.dtype)
        self._cosines, self._sines = numbers(rows, half), numbers(rows, half)
        exponents = torch.arange(0, stack.head_dim, 2, dtype=torch.float32, device=device) / stack.head_dim
        self._frequencies = 1.0 / stack.rope_theta**exponents  # as network.rotation_at has them
        self._embedding_scale = torch.tensor(stack.hidden_size**0.5, dtype=network.dtype).item()
        most = max(self._stretches(Shape(count, slots.frames, slots.tokens)) for count in range(1, rows + 1))
        shared_rows = rows if most > 1 else 0
        self._heard = numbers(most, shared_rows, heads)
        self._peaks, self._masses = (numbers(most, shared_rows, stack.heads) for _ in range(2))
        self._logits = numbers(rows, self._vocab_size)
        self._best = numbers(rows, self._tiles, dtype=torch.int32)
        self._tiles_kept, self._ids_kept = (numbers(rows, max(CANDIDATES), dtype=torch.int32) for _ in range(2))

    def shared_memory(self, of_processor_bytes: int) -> None:
        """Let a program take its share of a processor's: what begins while another still runs needs room beside it."""
        self._shared_bytes = of_processor_bytes // self._tuning.share - RESERVED_SHARED_BYTES

    @staticmethod
    def supports(network: Network, slots: Slots) -> bool:
        """Tell whether the kernels can compute this network's steps, in these slots."""
        stack = network.config.decoder
        widths = (stack.hidden_size, stack.intermediate_size, stack.heads * stack.head_dim)
        return (
            slots.slots <= MOST_ROWS
            and not stack.attention_bias
            and stack.head_dim >= FEWEST_QUERIES * 2
            and stack.head_dim.bit_count() == 1
            and all(width % COLUMNS == 0 for width in (*widths, stack.kv_heads * stack.head_dim))
            and all(isinstance(module, nn.Linear) for module in (network.head[0], network.head[2]))
        )

    @property
    def demands(self) -> list[Demand]:
        """What `draw` can draw, the least first."""
        most = [min(count, self._vocab_size) for count in CANDIDATES]
        return [Demand(count, min_p=False, search_ties=False) for count in dict.fromkeys(most)]

    def shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        """Return those of the shapes, by rows and lengths, that aren't computed like a longer one of as many rows."""
        longest = {(shape.rows, self._stretches(shape)): shape for shape in shapes}
        return [shape for shape in shapes if shape in longest.values()]

    def think(self, shape: Shape) -> None:
        """Take the last codes in; the hidden states that the next ones are drawn from go to the rows' state."""
        rows, stack, state = shape.rows, self._stack, self._state
        self._embed(rows, self._layers[0])
        for number, layer in enumerate(self._layers):
            window = stack.windows[number] or 0
            parts = self._linear(self._normed, layer.attention.qkv.weight, rows)
            memory = self._slots.keys[number], self._slots.values[number]
            self._attend(shape, parts, state.filled, memory, window, own=True)
            parts = self._linear(self._attended, layer.attention.out.weight, rows)
            self._add_norm(rows, parts, layer.after_attention.gain, layer.before_cross.gain)
            parts = self._linear(self._normed, layer.cross.query.weight, rows)
            text = self._slots.text.keys[number], self._slots.text.values[number]
            self._attend(shape, parts, state.text_tokens, text, 0, own=False)
            parts = self._linear(self._attended, layer.cross.out.weight, rows)
            self._add_norm(rows, parts, layer.after_cross.gain, layer.before_mlp.gain)
            self._gate_up(rows, layer.mlp.gate_up.weight)
            parts = self._linear(self._gated, layer.mlp.down.weight, rows, ahead=self._tuning.down_ahead)
            if number + 1 < len(self._layers):
                self._add_norm(rows, parts, layer.after_mlp.gain, self._layers[number + 1].before_attention.gain)
            else:
                self._add_norm(rows, parts, layer.after_mlp.gain, self._network.decoder.norm.gain, last=True)

    def logits(self, rows: slice) -> Tensor:
        """Return what the rows' hidden states say next, [B, V] float32; too early ends are put down."""
        count = rows.stop - rows.start
        first, last, state = self._before_head, self._head, self._state
        parts = self._linear(state.hidden[rows], first.weight, count)
        self._launch(
            self._kernels.gelu_kernel,
            (count,),
            parts[0],
            first.bias,
            self._normed,
            count,
            width=self._stack.hidden_size,
            PARTS=parts[1],
            WIDTH=_power(self._stack.hidden_size),
            num_warps=8,
        )
        self._launch(
            self._kernels.logits_kernel,
            (self._tiles,),
            self._normed,
            last.weight,
            last.bias,
            state.steps,
            self._logits,
            self._best.view(torch.uint32),
            rows.start,
            count,
            self._vocab_size,
            self._config.end_code,
            self._config.earliest_end_frame,
            TOO_EARLY_LOGIT,
            depth=last.weight.shape[1],
            **self._blocks(count, last.weight.shape[1], self._tuning.depth, 0, self._tuning.ahead, self._tuning.stages),
        )
        return self._logits[:count]

    def draw(self, rows: slice, demand: Demand) -> bool:
        """Draw a code from the hidden state of each of the rows and note it; False, if the demand is too large."""
        if not any(other.holds(demand) for other in self.demands):
            return False
        self.logits(rows)
        self.pick(rows, demand)
        return True

    def pick(self, rows: slice, demand: Demand) -> None:
        """Draw a code for each of the rows from their `logits`, which were computed just before, and note it."""
        state = self._state
        options = state.options
        self._launch(
            self._kernels.draw_kernel,
            (rows.stop - rows.start,),
            self._logits,
            self._best.view(torch.uint32),
            self._tiles_kept,
            self._ids_kept,
            options.temperature,
            options.top_k,
            options.top_p,
            options.greedy.view(torch.int8),
            state.keys,
            state.steps,
            state.last_step,
            state.occupied,
            state.ended.view(torch.int8),
            state.reason,
            state.length,
            state.codes,
            state.last_code,
            rows.start,
            self._vocab_size,
            self._tiles,
            state.codes.shape[1],
            self._config.end_code,
            GOLDEN=signed(GOLDEN),
            FIRST_FACTOR=SHIFTS_AND_FACTORS[0][1],
            SECOND_FACTOR=SHIFTS_AND_FACTORS[1][1],
            COLUMNS=COLUMNS,
            TILES=_power(self._tiles),
            CANDIDATES=next(count for count in CANDIDATES if count >= demand.candidates),
            num_warps=self._tuning.draw_warps,
        )

    def _embed(self, rows: int, layer: DecoderLayer) -> None:
        stack, state = self._stack, self._state
        self._launch(
            self._kernels.embed_kernel,
            (rows,),
            state.last_code,
            self._network.decoder.embedding.weight,
            layer.before_attention.gain,
            state.filled,
            state.total_frames,
            self._frequencies,
            self._x,
            self._normed,
            self._cosines,
            self._sines,
            self._embedding_scale,
            stack.norm_eps,
            self._config.progress_scale,
            width=stack.hidden_size,
            half=stack.head_dim // 2,
            PROGRESS=self._config.progress_rope,
            WIDTH=_power(stack.hidden_size),
            num_warps=8,
        )

    def _linear(self, x: Tensor, weight: Tensor, rows: int, *, ahead: int | None = None) -> tuple[Tensor, int]:
        """Return partial sums [P, B, N] of x [B, K] times weight [N, K], and how many there are."""
        tuning = self._tuning
        ahead = tuning.ahead if ahead is None else ahead
        width, depth = weight.shape
        parts = self._parts_of(width, depth)
        self._launch(
            self._kernels.linear_kernel,
            (width // COLUMNS, parts),
            x,
            weight,
            self._parts,
            rows,
            width,
            depth=depth,
            depth_of_part=depth // parts,
            **self._blocks(rows, depth // parts, tuning.depth, tuning.held, ahead, tuning.stages),
        )
        return self._parts, parts

    def _gate_up(self, rows: int, weight: Tensor) -> None:
        tuning = self._tuning
        width, depth = weight.shape[0] // 2, weight.shape[1]
        self._launch(
            self._kernels.gate_up_kernel,
            (width // COLUMNS,),
            self._normed,
            weight,
            self._gated,
            rows,
            width,
            depth=depth,
            EARLY=tuning.early,
            **self._blocks(
                rows, depth, tuning.gate_depth, tuning.gate_held, tuning.gate_ahead, tuning.gate_stages, weights=2
            ),
        )

    def _attend(
        self,
        shape: Shape,
        parts: tuple[Tensor, int],
        lengths: Tensor,
        memory: tuple[Tensor, Tensor],
        window: int,
        *,
        own: bool,
    ) -> None:
        stack, rows = self._stack, shape.rows
        stretches = self._stretches(shape) if own else 1
        self._launch(
            self._kernels.attention_kernel,
            (rows * stack.kv_heads, stretches),
            parts[0],
            self._cosines,
            self._sines,
            lengths,
            *memory,
            self._attended if stretches == 1 else self._heard,
            self._peaks,
            self._masses,
            rows,
            memory[0].shape[2],
            stack.attention_scale,
            stack.softcap or 1.0,
            kv_heads=stack.kv_heads,
            group=stack.heads // stack.kv_heads,
            size=stack.head_dim,
            window=window,
            stretches=stretches,
            PARTS=parts[1],
            OWN=own,
            TURNED=own or self._config.progress_rope,
            CAPPED=stack.softcap is not None,
            FRAMES=self._tuning.frames,
            STAGES=self._tuning.frame_stages,
            GROUP=_power(stack.heads // stack.kv_heads),
            QUERIES=max(FEWEST_QUERIES, _power(stack.heads // stack.kv_heads)),
            ITEM=memory[0].dtype.itemsize,
            num_warps=self._tuning.attention_warps,
        )
        if stretches > 1:
            self._launch(
                self._kernels.join_kernel,
                (rows * stack.heads,),
                self._heard,
                self._peaks,
                self._masses,
                self._attended,
                rows * stack.heads,
                size=stack.head_dim,
                stretches=stretches,
                STRETCHES=_power(stretches),
                num_warps=4,
            )

    def _add_norm(
        self, rows: int, parts: tuple[Tensor, int], after: Tensor, before: Tensor, *, last: bool = False
    ) -> None:
        state, stack = self._state, self._stack
        self._launch(
            self._kernels.add_norm_kernel,
            (rows,),
            parts[0],
            self._x,
            after,
            before,
            state.hidden if last else self._normed,
            state.filled,
            state.occupied,
            rows,
            stack.norm_eps,
            width=stack.hidden_size,
            PARTS=parts[1],
            WIDTH=_power(stack.hidden_size),
            LAST=last,
            num_warps=8,
        )

    def _launch(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        if self._dependent:
            constants["launch_pdl"] = True
        with self._there:
            kernel[grid](*arguments, **constants, DEPENDENT=self._dependent)

    def _stretches(self, shape: Shape) -> int:
        """Return into how many stretches each row's memory is divided, so that few long rows keep the GPU busy too."""
        most = max(1, self._tuning.programs // (shape.rows * self._stack.kv_heads))
        return min(most, -(-shape.frames // LONG_STRETCH_FRAMES))

    def _parts_of(self, width: int, depth: int) -> int:
        """Return the fewest equal parts of the depth that give every processor something to read."""
        blocks = depth // self._block_depth(depth)
        tiles = width // COLUMNS
        parts = [count for count in range(1, blocks + 1) if blocks % count == 0]
        return next((count for count in parts if tiles * count >= self._tuning.programs), parts[-1])

    def _block_depth(self, depth: int) -> int:
        return self._tuning.depth if depth % self._tuning.depth == 0 else COLUMNS

    def _blocks(
        self, rows: int, reach: int, block: int, held: int, ahead: int, stages: int, *, weights: int = 1
    ) -> dict[str, int]:
        """Return the constants that all products share, for programs that compute a `reach` of the depth each.

        A program takes as much shared memory as the larger of so many blocks of its weights and its input: one for each
        stage, and one more if any are held; or one for each that is held. (As Triton 3.7 compiles them for Hopper.)
        Where blocks have to be smaller than asked for there are more stages: as many bytes then are on their way.
        """
        block_rows = max(FEWEST_QUERIES, _power(rows))

        def fitting(depth: int) -> int:
            """Return how many blocks of that depth there is room for."""
            return self._shared_bytes // ((weights * COLUMNS + block_rows) * depth * self._network.dtype.itemsize)

        wanted = block
        if reach % block or fitting(block) < FEWEST_STAGES + (held > 0):
            block = COLUMNS
        if fitting(block) < FEWEST_STAGES:
            held = 0
        held = min(min(held, reach) // block, fitting(block))
        stages = max(1, min(stages * wanted // block, fitting(block) - (held > 0)))
        return {
            "ahead": min(ahead, reach - held * block),
            "ROWS": block_rows,
            "COLUMNS": COLUMNS,
            "DEPTH": block,
            "HELD": held,
            "STAGES": stages,
            "ITEM": self._network.dtype.itemsize,
            "num_warps": 4,
        }


def fused_step(network: Network, slots: Slots, state: RowState) -> FusedStep | None:
    """Return the fused step where it can be had: on a GPU, with Triton, for half-precision weights."""
    if network.device.type != "cuda" or network.dtype not in (torch.bfloat16, torch.float16):
        return None
    if not FusedStep.supports(network, slots):
        logger.info("This model's shape has no fused step: torch computes it")
        return None
    try:
        return FusedStep(network, slots, state)
    except ImportError as error:
        logger.warning("Without Triton (%s) a step is computed by torch, which takes longer", error)
        return None


def _power(length: int) -> int:
    """Return the power of two that holds a length."""
    return 1 << max(0, length - 1).bit_length()
