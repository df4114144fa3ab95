from pathlib import Path

import pytest
import soundfile

from voice_core.__main__ import main


@pytest.mark.parametrize("ending", ["wav", "flac", "opus"])
def test_say_writes_a_file_that_plays(tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str) -> None:
    output = tmp_path / f"hello.{ending}"
    assert main(["say", "Hello there. How are you?", "-o", str(output), "--device", "cpu"]) == 0
    samples, _ = soundfile.read(output)
    assert abs(samples).max() > 0.05
    assert "segments" in capsys.readouterr().out


def test_seconds_are_kept(tmp_path: Path) -> None:
    output = tmp_path / "slow.wav"
    assert main(["say", "This is a test of the time.", "-o", str(output), "--seconds", "3", "--device", "cpu"]) == 0
    assert soundfile.info(output).duration == pytest.approx(3, rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["say", "", "-o", "x.wav"], "input: holds nothing to say"),
        (["say", "Hello", "-o", "x.docx"], "docx"),
        (["say", "Hello", "--model", "/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_an_exit_code(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--device", "cpu"]) == 1
    assert message in capsys.readouterr().err
