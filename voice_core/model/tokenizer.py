"""Text to the ids that the encoder reads: the checkpoint's own tokenizer, and the order of prompt and text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from voice_core.errors import CheckpointError
from voice_core.hub import TOKENIZER_FILES, checkpoint_directory
from voice_core.model.config import ModelConfig

Encode = Callable[[str], list[int]]

_SPECIAL = re.compile(r"<[^<>]*>|\[[A-Z]+\]")  # <pad>, [UNK]


@dataclass(frozen=True)
class TextTokenizer:
    """Turns a text, with the transcript of a voice prompt before it, into the ids of one encoder row."""

    encode: Encode  # one stretch of text, without special tokens
    separator_id: int
    prefix_id: int | None
    suffix_id: int | None
    alphabet: str | None = None  # every character it reads, if it goes letter by letter

    def row_ids(self, text: str, transcript: str = "") -> tuple[int, ...]:
        """Return prefix + transcript + separator + text + suffix; the transcript's part only where there is one."""
        ids = self.encode(text.strip())
        if transcript.strip():
            ids = [*self.encode(transcript.strip()), self.separator_id, *ids]
        if self.suffix_id is not None:
            ids = [*ids, self.suffix_id]
        if self.prefix_id is not None:
            ids = [self.prefix_id, *ids]
        return tuple(ids)


def load_tokenizer(directory: Path, config: ModelConfig) -> TextTokenizer:
    """Return the tokenizer of the checkpoint in `directory`, or else the one that its config names."""
    reader = _reader_in(tokenizer_directory(directory, config))
    return TextTokenizer(
        reader.encode, config.text_separator_id, config.text_prefix_id, config.text_suffix_id, reader.alphabet
    )


def tokenizer_directory(directory: Path, config: ModelConfig) -> Path:
    """Return where the tokenizer of the checkpoint in `directory` lies; CheckpointError if it has none."""
    if _has_tokenizer(directory):
        return directory
    if config.tokenizer_name is None:
        reason = "no tokenizer.json or tokenizer.model here, and config.json names none, nor a t5gemma_model_name"
        raise CheckpointError(str(directory), "text_tokenizer_name", reason)
    named = checkpoint_directory(config.tokenizer_name, relative_to=directory, files=TOKENIZER_FILES)
    if not _has_tokenizer(named):
        reason = f"{config.tokenizer_name!r} holds neither tokenizer.json nor tokenizer.model"
        raise CheckpointError(str(directory / "config.json"), "text_tokenizer_name", reason)
    return named


class _Reader(NamedTuple):
    encode: Encode
    alphabet: str | None


def _has_tokenizer(directory: Path) -> bool:
    return (directory / "tokenizer.json").is_file() or (directory / "tokenizer.model").is_file()


def _reader_in(directory: Path) -> _Reader:
    file = directory / "tokenizer.json"
    return _fast_reader(file) if file.is_file() else _slow_reader(directory)


def _fast_reader(file: Path) -> _Reader:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception for any fault of the file
        raise CheckpointError(str(file), "", f"not a readable tokenizer ({error})") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    return _Reader(encode, _alphabet(tokenizer.get_vocab(), encode))


def _slow_reader(directory: Path) -> _Reader:
    from transformers import AutoTokenizer  # imported only here: it takes seconds

    tokenizer = AutoTokenizer.from_pretrained(str(directory), trust_remote_code=False)
    return _Reader(lambda text: list(tokenizer.encode(text, add_special_tokens=False)), None)


def _alphabet(ids: Mapping[str, int], encode: Encode) -> str | None:
    """Return the characters that a tokenizer of single letters reads, capitals included; None for any other."""
    if any(len(token) > 1 and not _SPECIAL.fullmatch(token) for token in ids):
        return None
    written = {form for token in ids if len(token) == 1 for form in (token, token.upper()) if len(form) == 1}
    specials = {number for token, number in ids.items() if len(token) > 1}  # what is unknown becomes one of them
    return "".join(sorted(form for form in written if (read := encode(form)) and not specials & set(read)))
