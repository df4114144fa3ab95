"""The kernels are compiled for cards that aren't there; what they compute is asked in test_fused.py."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

# Shared memory of a processor of an A100, of RTX 40, of Hopper and of RTX 50, of which a program may have all but
# 1 KB (CUDA C++ Programming Guide, "Compute Capabilities"; RTX 30 has as much as RTX 40).
SHARED_KB = {80: 164, 89: 100, 90: 228, 120: 100}
PRODUCTS = ("linear_kernel", "gate_up_kernel", "logits_kernel")
KERNELS = {"embed", "linear", "attention", "add_norm", "gate_up", "gelu", "logits", "draw"}


@pytest.mark.parametrize(("capability", "rows"), [(80, 64), (89, 64), (90, 32), (90, 128), (120, 64)])
def test_every_kernel_of_the_full_model_compiles_and_fits_and_products_twice(capability: int, rows: int) -> None:
    compiled = compile_kernels(capability, rows)
    assert compiled.keys() == {f"{name}_kernel" for name in KERNELS}
    assert max(compiled.values()) <= (SHARED_KB[capability] - 1) << 10
    assert max(compiled[name] for name in PRODUCTS) <= (SHARED_KB[capability] // 2 - 1) << 10


def test_few_long_rows_are_joined() -> None:
    assert "join_kernel" in compile_kernels(90, 8)


def compile_kernels(capability: int, rows: int) -> dict[str, int]:
    """Return the shared memory of every kernel in bytes."""
    command = [sys.executable, "-m", "tests.decoding.compile_kernels"]
    command += map(str, (capability, SHARED_KB[capability], rows))
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    compiled = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert compiled.returncode == 0, compiled.stderr
    shared_bytes: dict[str, int] = json.loads(compiled.stdout.splitlines()[-1])
    return shared_bytes
