"""The kernels are compiled for cards that aren't there; what they compute is asked in test_fused.py."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

# Shared memory that a program may have on an A100, on RTX 40, on Hopper and on RTX 50 (CUDA C++ Programming Guide,
# "Compute Capabilities"; RTX 30 has as much as RTX 40).
MOST_SHARED_BYTES = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10, 120: 99 << 10}
ROWS = 64  # no other number of rows takes more
KERNELS = {"embed", "linear", "attention", "add_norm", "gate_up", "gelu", "logits", "draw"}


@pytest.mark.parametrize("capability", list(MOST_SHARED_BYTES))
def test_every_kernel_of_the_full_model_compiles_and_fits(capability: int) -> None:
    compiled = compile_kernels(capability, ROWS)
    assert compiled.keys() == {f"{name}_kernel" for name in KERNELS}
    assert max(compiled.values()) <= MOST_SHARED_BYTES[capability]


def test_few_long_rows_are_joined() -> None:
    assert "join_kernel" in compile_kernels(90, 8)


def compile_kernels(capability: int, rows: int) -> dict[str, int]:
    """Return the shared memory of every kernel in bytes."""
    command = [sys.executable, "-m", "tests.decoding.compile_kernels", str(capability), str(rows)]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    compiled = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert compiled.returncode == 0, compiled.stderr
    shared_bytes: dict[str, int] = json.loads(compiled.stdout.splitlines()[-1])
    return shared_bytes
