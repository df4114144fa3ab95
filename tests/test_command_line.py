from pathlib import Path

import pytest
import soundfile
import torch

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
        (["say", "Hello", "--seed", "-1"], "--seed: -1 must be at least 0 and at most 9007199254740991"),
        (["say", "Hello", "--temperature", "-0.5"], "--temperature: -0.5 must be at least 0 and at most 2"),
        (["say", "Hello", "--temperature", "nan"], "--temperature: nan must be"),
        (["say", "Hello", "--top-p", "0"], "--top-p: 0.0 must be above 0 and at most 1"),
        (["say", "Hello", "--top-k", "-3"], "--top-k: -3 must be at least 0"),
        (["say", "Hello", "--seconds", "-1"], "--seconds: -1.0 must be above 0"),
        (["say", "Hello", "--seconds", "inf"], "--seconds: inf must be above 0"),
        (["say", "Hello", "--pause-seconds", "nan"], "--pause-seconds: nan must be at least 0 and at most 10"),
        (["say", "Hello \udcff"], "text: is not valid UTF-8"),
        (["say", "Hello 世界"], "input: this voice can't read '世', '界'"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_an_exit_code(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--device", "cpu"]) == 1
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["say", "Hello", "--device", "cuda"]) == 1
    assert capsys.readouterr().err == (
        "error: device: 'cuda' is asked for, but there is no GPU here; 'auto' and 'cpu' do without\n"
    )
