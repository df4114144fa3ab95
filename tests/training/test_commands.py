"""Every training command runs, one on the result of the other, at toy size. Needs espeak-ng and WordNet."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from training.wordnet import DIRECTORY as WORDNET
from voice_core.embedded import DIRECTORY as EMBEDDED

TRAINING = Path(__file__).resolve().parents[2] / "training"


def command(name: str, *options: str | Path) -> str:
    """Run a command of training/ and return what it printed."""
    done = subprocess.run(
        [sys.executable, TRAINING / name, *map(str, options)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_commands_make_a_voice_from_nothing(tmp_path: Path) -> None:
    if not WORDNET.is_dir():
        pytest.skip("no WordNet here: apt-get install wordnet-base espeak-ng")
    sound, codes, codec, voice = (tmp_path / name for name in ("sound", "codes", "codec", "voice"))
    command("make_data.py", "--hours", "0.15", "--out", sound)
    command("train_codec.py", "--data", sound, "--out", codec, "--quick")
    command("make_data.py", "--hours", "0.3", "--out", codes, "--codec", EMBEDDED / "codec", "--seed", "1")
    speaker = ("--data", codes, "--codec", EMBEDDED / "codec", "--out", voice, "--quick")
    assert "step 20/20" not in command("train_speaker.py", *speaker)  # too few steps for a line of the log
    assert "resumed at step 20" in command("train_speaker.py", *speaker)
    heard = command("train_recogniser.py", "--data", sound, "--codec", codec, "--out", tmp_path / "judge", "--quick")
    assert "held out: PER" in heard
    told = command("evaluate.py", "--model", voice, "--limit", "3")
    figures = json.loads(told.splitlines()[-1])
    assert figures["sentences"] == 3
    assert figures["per"] > 0.5  # it has hardly begun to learn
