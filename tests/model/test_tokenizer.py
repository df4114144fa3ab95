import json
import shutil
from pathlib import Path

import pytest

from tests.toy import toy_config
from voice_core.embedded import DIRECTORY
from voice_core.errors import CheckpointError
from voice_core.model.config import parse_config, read_config
from voice_core.model.tokenizer import TextTokenizer, load_tokenizer

LETTERS = TextTokenizer(lambda text: [ord(letter) for letter in text], separator_id=999, prefix_id=None, suffix_id=None)


def test_a_prompt_puts_its_transcript_before_the_text() -> None:
    assert LETTERS.row_ids(" ab ", " c ") == (99, 999, 97, 98)
    assert LETTERS.row_ids("ab") == (97, 98)


def test_prefix_and_suffix_enclose_everything() -> None:
    tokenizer = TextTokenizer(LETTERS.encode, 999, prefix_id=1, suffix_id=2)
    assert tokenizer.row_ids("b", "a") == (1, 97, 999, 98, 2)


def test_the_embedded_tokenizer_reads_letters() -> None:
    tokenizer = load_tokenizer(DIRECTORY, read_config(DIRECTORY))
    assert tokenizer.row_ids("Ab.") == (1, 2, 3, 30, 1)


def test_a_tokenizer_of_letters_tells_its_alphabet() -> None:
    alphabet = load_tokenizer(DIRECTORY, read_config(DIRECTORY)).alphabet
    assert alphabet is not None
    assert set("azAZ ',.?!:;-") <= set(alphabet)
    assert not set("1é世<\n") & set(alphabet)


def test_a_tokenizer_of_words_has_no_alphabet(tmp_path: Path) -> None:
    tokenizer = json.loads((DIRECTORY / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["the"] = 36
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert load_tokenizer(tmp_path, parse_config(toy_config(), "config.json")).alphabet is None


def test_a_named_tokenizer_is_looked_up_beside_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    shutil.copy(DIRECTORY / "tokenizer.json", tmp_path / "words")
    config = parse_config(toy_config(text_tokenizer_name="words"), "config.json")
    assert load_tokenizer(tmp_path, config).row_ids("a") == (2,)


def test_without_one_of_its_own_the_text_models_tokenizer_is_taken_and_not_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def download(hub_id: str, *, allow_patterns: list[str], etag_timeout: float) -> str:
        assert hub_id == "google/t5gemma-2b-2b-ul2"
        asked.append(allow_patterns)
        shutil.copy(DIRECTORY / "tokenizer.json", tmp_path)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    named = {"text_tokenizer_name": None, "t5gemma_model_name": "google/t5gemma-2b-2b-ul2"}
    config = parse_config(toy_config(**named), "config.json")
    assert load_tokenizer(tmp_path / "model", config).row_ids("a") == (2,)
    (patterns,) = asked
    assert "tokenizer.json" in patterns
    assert not [pattern for pattern in patterns if Path("model.safetensors").match(pattern)]


def test_a_missing_tokenizer_is_one_clear_error(tmp_path: Path) -> None:
    config = parse_config(toy_config(), "config.json")
    with pytest.raises(CheckpointError, match=r"text_tokenizer_name: no tokenizer.json"):
        load_tokenizer(tmp_path, config)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a readable tokenizer"):
        load_tokenizer(tmp_path, config)
