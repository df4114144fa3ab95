"""What every test may ask for."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # two OpenMP threads on shared cores can fall to a sixth of one thread's speed

FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The ground truth; it lies beside the checkout, so a test that needs it is skipped where it is absent."""
    if not FIXTURES.is_dir():
        pytest.skip(f"no ground truth at {FIXTURES}")
    return FIXTURES
