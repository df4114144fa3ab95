"""Finds a checkpoint: a directory on this machine, or a repository of the Hugging Face hub."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from voice_core.errors import CheckpointError

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# Nothing that could run code: no .py, no pickle.
CONFIG_FILE = "config.json"
MODEL_FILES = ("*.json", "*.safetensors", "tokenizer.model")
# A checkpoint names the text model that it grew from as its tokenizer, and the weights beside that aren't needed.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json")
ANSWER_WITHIN_SECONDS = 10.0  # the hub, before a download begins


def checkpoint_directory(name: str, *, relative_to: Path | None = None, files: Sequence[str] = MODEL_FILES) -> Path:
    """Return the local directory of the checkpoint `name`.

    A directory `name` in `relative_to` (where the checkpoint lies that refers to this one) is taken first,
    then a directory `name`, then the repository of the hub with that id, of which the `files` are downloaded once and
    kept in the hub's cache. Raises CheckpointError if none of them can be had.
    """
    candidates = [Path(os.path.expanduser(name))]
    if relative_to is not None:
        candidates.insert(0, relative_to / name)
    for directory in candidates:
        if directory.is_dir():
            return directory
    if not HUB_ID.fullmatch(name):
        raise CheckpointError(name, "", f"no such directory: {', '.join(map(str, candidates))}")
    return _download(name, files)


def _download(hub_id: str, files: Sequence[str]) -> Path:
    """Return the snapshot of a repository; what is already in the cache is not downloaded again."""
    from huggingface_hub import snapshot_download  # slow to import, and a local checkpoint doesn't need it

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(files), etag_timeout=ANSWER_WITHIN_SECONDS))
    except Exception as error:  # an HTTP library's own errors among them: any of them means "not to be had"
        raise CheckpointError(
            hub_id, "", f"neither a directory nor to be had from the Hugging Face hub: {error}"
        ) from error
