from pathlib import Path

import pytest

from voice_core.errors import CheckpointError
from voice_core.hub import checkpoint_directory


def test_a_directory_is_found_where_it_is(tmp_path: Path) -> None:
    assert checkpoint_directory(str(tmp_path)) == tmp_path


def test_a_name_beside_the_checkpoint_that_refers_to_it_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    (model / "codec").mkdir(parents=True)
    (elsewhere / "codec").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    assert checkpoint_directory("codec", relative_to=model) == model / "codec"
    assert checkpoint_directory("codec") == Path("codec")


def test_a_name_that_no_hub_has_is_refused_without_asking(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such directory: .*model/codec, codec"):
        checkpoint_directory("codec", relative_to=tmp_path / "model")
    for name in ("./here/there", "/no/such/place", "~nobody/x", "a/b/c"):
        with pytest.raises(CheckpointError, match="no such directory"):
            checkpoint_directory(name, relative_to=tmp_path / "model")


def test_a_hub_that_cannot_be_reached_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="somebody/no-such-model: neither a directory nor"):
        checkpoint_directory("somebody/no-such-model")
