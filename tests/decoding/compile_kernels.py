"""Compiles the kernels of the full model's step for a GPU that needn't be there: CAPABILITY SHARED_KB ROWS, 90 228 8.

A process of its own, because the other tests define the kernels for Triton's interpreter. Prints, for each kernel, the
shared memory of a program in bytes, as one JSON object.
"""

import json
import sys
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmarks.sizes import SIZES, config_of
from voice_core.decoding.fused import FusedStep
from voice_core.decoding.graphs import Shape
from voice_core.decoding.sampling import Demand
from voice_core.decoding.slots import Slots
from voice_core.decoding.state import RowState
from voice_core.model.network import Network

TYPES = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.int64: "i64", torch.int32: "i32", torch.int8: "i8"}
FRAMES, TOKENS = 1200, 64  # long enough for memories in several stretches


class Compiler(FusedStep):
    """Compiles what the step would start."""

    target: GPUTarget
    shared_bytes: dict[str, int]

    def _launch(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        options = {"num_warps": constants.pop("num_warps")}
        constants["DEPENDENT"] = self.target.arch >= 90
        names = [parameter.name for parameter in kernel.params]
        types = dict.fromkeys(constants, "constexpr")
        types |= {name: _type(argument) for name, argument in zip(names, arguments, strict=False)}
        aligned = {(names.index(name),): [["tt.divisibility", 16]] for name, kind in types.items() if kind[0] == "*"}
        values = {(names.index(name),): value for name, value in constants.items()}
        source = ASTSource(kernel, {name: types[name] for name in names}, values, aligned)
        compiled = triton.compile(source, target=self.target, options=options)
        self.shared_bytes[kernel.__name__] = max(compiled.metadata.shared, self.shared_bytes.get(kernel.__name__, 0))


def _type(argument: Any) -> str:
    if isinstance(argument, Tensor):
        return "*" + ("u32" if argument.dtype == torch.uint32 else TYPES[argument.dtype])
    return "i32" if isinstance(argument, int) else "fp32"


def main() -> None:
    capability, shared_kb, rows = map(int, sys.argv[1:])
    config = config_of(SIZES["full"])
    with torch.device("meta"):
        network = Network(config).to(torch.bfloat16)
    slots = Slots(config.decoder, rows, FRAMES, TOKENS, torch.device("meta"), torch.bfloat16)
    state = RowState(rows, FRAMES, config, torch.device("cpu"), torch.bfloat16)
    step = Compiler(network, slots, state)
    step.target, step.shared_bytes = GPUTarget("cuda", capability, 32), {}
    step.shared_memory(shared_kb << 10)
    step._layers = step._layers[:1]
    step.think(Shape(rows, FRAMES, TOKENS))
    step.logits(slice(0, rows))
    for demand in step.demands:
        step.draw(slice(0, rows), Demand(demand.candidates, min_p=False))
    print(json.dumps(step.shared_bytes))


if __name__ == "__main__":
    main()
