"""Known vulnerabilities of the pinned dependencies: python .ci/audit.py [--report]

Fails for those that a newer version mends; with --report it never fails, so that an advisory of this morning or a
machine without a network stops nobody's work (`make check` asks that way, `make audit` the strict way). pip-audit calls
it success when its index knows no advisories at all; here that is said.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
PATIENCE_SECONDS = 120


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--report", action="store_true", help="tell, and never fail")
    report = parser.parse_args(arguments).report
    try:
        command = ["-m", "pip_audit", "-r", str(CONSTRAINTS), "--no-deps", "--disable-pip", "-f", "json"]
        command = [sys.executable, *command]
        run = subprocess.run(command, capture_output=True, check=False, text=True, timeout=PATIENCE_SECONDS)
        dependencies = json.loads(run.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        print("audit: skipped, the advisories can't be reached from here")
        return 0
    lines, fixable = judged(dependencies)
    print("\n".join(lines))
    return 1 if fixable and not report else 0


def judged(dependencies: Sequence[dict[str, Any]]) -> tuple[list[str], int]:
    """Return what is to be told of them, and how many vulnerabilities a newer version would mend."""
    audited = [one for one in dependencies if "skip_reason" not in one]
    if not audited:
        return ["audit: skipped, the index here knows no advisories"], 0
    lines, fixable = [], 0
    for one in audited:
        for found in one.get("vulns", []):
            fixed_in = ", ".join(found.get("fix_versions", []))
            fixable += bool(fixed_in)
            mended = f"mended in {fixed_in}" if fixed_in else "nothing mends it yet"
            lines.append(f"audit: {one['name']} {one['version']}: {found['id']}, {mended}")
    skipped = len(dependencies) - len(audited)
    lines.append(f"audit: {len(audited)} packages, {len(lines)} vulnerabilities, {skipped} packages not known there")
    return lines, fixable


if __name__ == "__main__":
    sys.exit(main())
