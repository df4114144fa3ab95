"""Tells models apart by what they sound like, without reading all of their files.

A checkpoint of 10 GB can't be hashed whole at every start. Small files are; of a large one its size, the list of its
tensors, the beginning of each of them, and samples spread evenly over it. Training changes all of a tensor, so whatever
was trained further is seen. What isn't is a change by hand of a few numbers in the middle of a tensor.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

SAMPLES = 256  # of a large file, evenly spread from its first byte to its last
SAMPLE_BYTES = 65_536
TENSOR_BYTES = 4096  # at the beginning of each
WHOLE_BYTES = SAMPLES * SAMPLE_BYTES  # a file so small is read whole
LARGEST_HEADER_BYTES = 100_000_000  # what safetensors itself takes

MODEL_FILES = ("*.json", "*.safetensors", "*.model")  # all that a checkpoint is read from
TOKENIZER_FILES = ("tokenizer*",)

_PACKAGE = Path(__file__).parent


def model_fingerprint(model: Path, codec: Path, tokenizer: Path, *settings: str) -> str:
    """Return a hash of all that decides what a segment sounds like: weights, configurations, our code, and `settings`.

    The arguments are the directories of a model, its codec and its tokenizer. Names and places of directories don't
    count: a copy is the same model. Raises OSError if a file can't be read.
    """
    digest = hashlib.sha256()
    for directory, patterns in ((model, MODEL_FILES), (codec, MODEL_FILES), (tokenizer, TOKENIZER_FILES)):
        for file in _files(directory, patterns):
            _note(digest, f"{file.name} {_sampled(file)}")
        _note(digest, "")
    for source in sorted(_PACKAGE.rglob("*.py")):  # a version would be the same for every change between two releases
        _note(digest, f"{source.relative_to(_PACKAGE).as_posix()} {hashlib.sha256(source.read_bytes()).hexdigest()}")
    for setting in settings:
        _note(digest, setting)
    return digest.hexdigest()


def _note(digest: hashlib._Hash, line: str) -> None:
    digest.update(line.encode() + b"\n")


def _files(directory: Path, patterns: Iterable[str]) -> list[Path]:
    found = {file for pattern in patterns for file in directory.glob(pattern) if file.is_file()}
    return sorted(found, key=lambda file: file.name)


def _sampled(path: Path) -> str:
    """Return a hash of a file's size and of as much of its content as the module's first lines say."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start, length in _places(file, size):
            file.seek(start)
            digest.update(file.read(length))
    return digest.hexdigest()


def _places(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Yield where to read a file of `size` bytes, and how much."""
    if size <= WHOLE_BYTES:
        yield 0, size
        return
    header_bytes = int.from_bytes(file.read(8), "little")
    if file.name.endswith(".safetensors") and header_bytes <= min(size - 8, LARGEST_HEADER_BYTES):
        header = file.read(header_bytes)  # before the first yield: whoever takes it moves on in the file
        yield 0, 8 + header_bytes
        for start, end in _tensors(header):
            yield 8 + header_bytes + start, min(TENSOR_BYTES, end - start)
    for number in range(SAMPLES):
        yield number * (size - SAMPLE_BYTES) // (SAMPLES - 1), SAMPLE_BYTES


def _tensors(header: bytes) -> list[tuple[int, int]]:
    """Return from where to where each tensor of a safetensors file goes; none if the header isn't one."""
    try:
        places = [tensor["data_offsets"] for name, tensor in json.loads(header).items() if name != "__metadata__"]
        return sorted((int(start), int(end)) for start, end in places)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []  # the loader will say what is wrong with it
