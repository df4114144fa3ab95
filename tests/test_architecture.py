"""The repository's rules that no single module can keep by itself."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the ground up: a module imports only from its own layer or from those before it.
LAYERS = [
    ["errors", "speech"],
    ["seeds", "hub", "batching", "tracing", "memory", "judging", "fingerprint"],
    ["text", "audio", "subtitles"],
    ["planning", "timeline"],
    ["mastering"],
    ["embedded", "model", "codec"],
    ["decoding", "voices"],
    ["synthesizer"],
    ["__main__"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

SERVER_PACKAGES = {"ray", "starlette", "fastapi", "uvicorn", "deployments"}

# What a GPU machine with nothing but torch, numpy and safetensors must be able to import.
BARE = ["voice_core.model.checkpoint", "voice_core.decoding.engine", "voice_core.codec.worker", "benchmarks.decode"]
NOT_BARE = [
    "ray",
    "soundfile",
    "soxr",
    "pyloudnorm",
    "scipy",
    "av",
    "transformers",
    "tokenizers",
    "pyopenjtalk",
    "pypinyin",
    "sentencex",
    "regex",
]


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module or ""


def test_voice_core_knows_no_server() -> None:
    for file in (ROOT / "voice_core").rglob("*.py"):
        foreign = {name.partition(".")[0] for name in imports(file)} & SERVER_PACKAGES
        assert not foreign, f"{file.relative_to(ROOT)} imports {foreign}"


def test_imports_inside_voice_core_point_one_way() -> None:
    for file in (ROOT / "voice_core").rglob("*.py"):
        place = file.relative_to(ROOT / "voice_core").with_suffix("").parts[0]
        if place == "__init__":
            continue
        for name in imports(file):
            package, _, rest = name.partition(".")
            if package == "voice_core" and rest:
                assert LEVEL[rest.partition(".")[0]] <= LEVEL[place], f"{file.relative_to(ROOT)} imports {name}"


def test_nothing_that_is_shipped_imports_what_is_not() -> None:
    for package in ("voice_core", "deployments"):
        for file in (ROOT / package).rglob("*.py"):
            foreign = {name.partition(".")[0] for name in imports(file)} & {"benchmarks", "tests", "training"}
            assert not foreign, f"{file.relative_to(ROOT)} imports {foreign}"


@pytest.mark.parametrize("module", BARE)
def test_decoding_runs_without_server_audio_and_text_packages(module: str) -> None:
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in NOT_BARE)
    command = [sys.executable, "-c", f"import sys\n{blocked}import {module}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
