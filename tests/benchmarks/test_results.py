"""Results that are kept: a file holds what its program writes today, or says that it doesn't."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from benchmarks.reporting import RESULTS, table

OLDER = "**Older than its program.**"
KEPT = sorted(RESULTS.glob("*.md"))


@pytest.mark.parametrize("file", KEPT, ids=[file.stem for file in KEPT])
def test_a_results_file_has_the_columns_of_its_program(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    command = re.search(r"`python benchmarks/(\w+)\.py", text)
    assert command, "the command that gives it isn't told"
    columns = getattr(importlib.import_module(f"benchmarks.{command[1]}"), "COLUMNS", None)
    assert columns is None or table(columns, []) in text or OLDER in text
