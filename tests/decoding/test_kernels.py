"""The kernels are compiled for cards that aren't there; what they compute is asked in test_fused.py."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

# Shared memory that a program may have on an A100 and on Hopper (CUDA C++ Programming Guide, "Compute Capabilities").
MOST_SHARED_BYTES = {80: 163 << 10, 90: 227 << 10}
KERNELS = {"embed", "linear", "attention", "join", "add_norm", "gate_up", "gelu", "logits", "draw"}


@pytest.mark.parametrize("capability", list(MOST_SHARED_BYTES))
def test_every_kernel_of_the_full_model_compiles_and_fits(capability: int) -> None:
    command = [sys.executable, "-m", "tests.decoding.compile_kernels", str(capability), "8"]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    compiled = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert compiled.returncode == 0, compiled.stderr
    shared_bytes = json.loads(compiled.stdout.splitlines()[-1])
    assert shared_bytes.keys() == {f"{name}_kernel" for name in KERNELS}
    assert max(shared_bytes.values()) <= MOST_SHARED_BYTES[capability]
