"""What is made of pip-audit's answer."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

PATH = Path(__file__).resolve().parents[1] / ".ci" / "audit.py"


def judged(*dependencies: dict[str, Any]) -> tuple[list[str], int]:
    spec = importlib.util.spec_from_file_location("audit", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    told: tuple[list[str], int] = module.judged(dependencies)
    return told


def package(*vulnerabilities: dict[str, Any]) -> dict[str, Any]:
    return {"name": "left-pad", "version": "1.0", "vulns": list(vulnerabilities)}


def test_a_vulnerability_that_a_newer_version_mends_counts() -> None:
    lines, fixable = judged(package({"id": "CVE-1", "fix_versions": ["1.1"]}, {"id": "CVE-2", "fix_versions": []}))
    assert fixable == 1
    assert lines[0] == "audit: left-pad 1.0: CVE-1, mended in 1.1"
    assert lines[1] == "audit: left-pad 1.0: CVE-2, nothing mends it yet"


def test_an_index_without_advisories_is_no_clean_bill() -> None:
    assert judged({"name": "left-pad", "skip_reason": "not found"}) == (
        ["audit: skipped, the index here knows no advisories"],
        0,
    )


def test_no_vulnerability_is_told_with_how_much_was_looked_at() -> None:
    lines, fixable = judged(package(), {"name": "own", "skip_reason": "not found"})
    assert (lines, fixable) == (["audit: 1 packages, 0 vulnerabilities, 1 packages not known there"], 0)
