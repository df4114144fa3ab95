"""Every training command runs, one on the result of the other, at toy size. Needs espeak-ng and WordNet."""

import ctypes.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np
import pytest

from training import choose, evaluate, export, make_data, train_codec, train_recogniser, train_speaker
from training.corpus import read_corpus, shard_path
from training.wordnet import DIRECTORY as WORDNET
from voice_core.embedded import DIRECTORY as EMBEDDED


def command(module: ModuleType, *options: str | Path) -> None:
    """Run a command of training/ as if it were called with the options, without a process of its own."""
    with patch.object(sys, "argv", [str(module.__file__), *map(str, options)]):
        module.main()


needs_a_teacher = pytest.mark.skipif(
    not WORDNET.is_dir() or ctypes.util.find_library("espeak-ng") is None,
    reason="no teacher or no WordNet: apt-get install libespeak-ng1 espeak-ng-data wordnet-base",
)


@needs_a_teacher
def test_the_commands_make_a_voice_from_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound, codes, codec, voice, package = (tmp_path / name for name in ("sound", "codes", "codec", "voice", "package"))
    command(make_data, "--hours", "0.1", "--out", sound)
    command(train_codec, "--data", sound, "--out", codec, "--quick")
    command(make_data, "--hours", "0.25", "--out", codes, "--codec", codec, "--seed", "1")
    speaker = ("--data", codes, "--codec", codec, "--out", voice, "--quick")
    command(train_speaker, *speaker, "--keep", "10", "--batch-frames", "2000", "--late-ends", "0.3", "--hurry", "0.3")
    command(train_recogniser, "--data", sound, "--codec", codec, "--out", tmp_path / "judge", "--quick")
    command(export, "--voice", voice / "step-10", voice, "--out", package)
    printed = capsys.readouterr().out
    assert "held out: log-mel distance" in printed
    assert "held out: PER" in printed
    assert "resumed" not in printed
    command(train_speaker, *speaker)
    assert "resumed at step 20" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="step 15 won't be met, this run goes from step 20 to 20"):
        command(train_speaker, *speaker, "--keep", "10", "15")
    codebook = (codec / "encoder.safetensors").read_bytes()
    command(train_codec, "--data", codes.parent / "sound", "--out", codec, "--quick", "--threads", "2")
    assert (codec / "encoder.safetensors").read_bytes() == codebook
    command(choose, package, "--texts", "2", "--learned", codes)
    (chosen,) = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert chosen["per"] > 0.5
    assert chosen["stretch"] == 1
    assert 0 <= chosen["greetings_ended"] <= 1

    # The last one as anybody would call it: it starts the service, and this process couldn't stop Ray again.
    options = ("--model", package, "--quick", "--limit", "2")
    told = subprocess.run([sys.executable, evaluate.__file__, *options], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    figures = json.loads(told.stdout.splitlines()[-1])
    assert figures["sentences"] == 2
    assert set(figures["paces"]) == {"0.8", "1", "1.3"}
    assert figures["codec_log_mel"] > 0
    assert figures["per"] > 0.5  # it has hardly begun to learn


@needs_a_teacher
def test_shards_of_another_seed_codec_or_length_are_not_mixed(tmp_path: Path) -> None:
    part = ("--hours", f"{5 / 3600}", "--out", tmp_path)
    command(make_data, *part)
    command(make_data, *part)
    with pytest.raises(SystemExit, match="made with seed 0, not 1"):
        command(make_data, *part, "--seed", "1")
    with pytest.raises(SystemExit, match="codebook_sha256 None"):
        command(make_data, *part, "--codec", EMBEDDED / "codec")
    with pytest.raises(SystemExit, match=r"the shards there are of 0\.00138889 hours"):
        command(make_data, "--hours", "2", "--out", tmp_path)
    (tmp_path / "made.json").unlink()
    with pytest.raises(SystemExit, match=r"made\.json is missing"):
        command(make_data, *part)


@needs_a_teacher
def test_a_shard_holds_the_same_whatever_was_made_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_data, "SHARD_SECONDS", 20)
    both, second_alone = tmp_path / "both", tmp_path / "second"
    command(make_data, "--hours", f"{40 / 3600}", "--seed", "3", "--out", both)
    second_alone.mkdir()
    shutil.copy(both / "made.json", second_alone)
    shard_path(second_alone, 0).touch()  # existing ones are kept
    command(make_data, "--hours", f"{40 / 3600}", "--seed", "3", "--out", second_alone)
    shard_path(second_alone, 0).unlink()
    shard_path(both, 0).unlink()
    second, again = read_corpus(both), read_corpus(second_alone)
    assert [(each.text, each.voice) for each in second] == [(each.text, each.voice) for each in again]
    assert all(np.array_equal(one.signal, other.signal) for one, other in zip(second, again, strict=True))
