"""What the trainers refuse to begin with: each would learn for hours what nobody wanted, without a word."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from training.features import ENCODER_FILE
from training.make_data import MADE_FILE, check_making, note_making
from training.train_speaker import check_same_voice
from training.voice_files import QUICK_SIZE, VoiceSize, write_voice_files


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    (tmp_path / "codec").mkdir()
    (tmp_path / "codec" / ENCODER_FILE).write_bytes(b"a codebook")
    return tmp_path / "codec"


def test_codes_of_another_codec_are_not_learned(tmp_path: Path, codec: Path) -> None:
    with pytest.raises(SystemExit, match=r"--data: .* is missing"):
        check_making(tmp_path, codec)
    note_making(tmp_path / MADE_FILE, 1, codec, 120)
    check_making(tmp_path, codec)
    (codec / ENCODER_FILE).write_bytes(b"another one")
    with pytest.raises(SystemExit, match=r"--codec: .* by another one"):
        check_making(tmp_path, codec)


def test_sound_is_not_taken_for_codes(tmp_path: Path, codec: Path) -> None:
    note_making(tmp_path / MADE_FILE, 7, None, 3)
    with pytest.raises(SystemExit, match=r"--data: .* hold sound"):
        check_making(tmp_path, codec)


def test_fewer_hours_than_there_are_leave_what_is_told_of_them(tmp_path: Path) -> None:
    for hours in (3, 1, 4):
        note_making(tmp_path / MADE_FILE, 7, None, hours)
        assert json.loads((tmp_path / MADE_FILE).read_text())["hours"] == max(hours, 3)


def test_a_quick_run_does_not_overwrite_a_voice_of_another_size(tmp_path: Path) -> None:
    check_same_voice(tmp_path, QUICK_SIZE)
    write_voice_files(tmp_path, VoiceSize())
    check_same_voice(tmp_path, VoiceSize())
    for other in (QUICK_SIZE, replace(VoiceSize(), codes=128)):
        with pytest.raises(SystemExit, match=r"--out: .* of another size"):
            check_same_voice(tmp_path, other)
