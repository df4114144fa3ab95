"""The schedule goes by steps, and a stopped run goes on where it was."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.runs import WARMUP_STEPS, Run, Schedule


def test_the_rate_rises_stays_and_falls_to_nothing_in_the_last_fifth() -> None:
    schedule = Schedule(steps=10_000, highest_rate=1.0)
    assert schedule.rate(0) == pytest.approx(1 / WARMUP_STEPS)
    assert schedule.rate(5_000) == schedule.rate(8_000) == 1
    assert schedule.rate(9_000) == pytest.approx(0.5)
    assert schedule.rate(9_999) == pytest.approx(1 / 2000)


def test_until_it_falls_the_rate_knows_no_end() -> None:
    short, long = Schedule(1000, 1.0, decay_steps=300), Schedule(5000, 1.0, decay_steps=300)
    assert [short.rate(step) for step in range(700)] == [long.rate(step) for step in range(700)]
    assert short.rate(850) == pytest.approx(0.5)


def run_of(module: nn.Module, file: Path, steps: int) -> Run:
    return Run(module, Schedule(steps, 0.1), file, weight_decay=0.0, betas=(0.9, 0.99))


def test_steps_go_downhill(tmp_path: Path) -> None:
    module = nn.Linear(1, 1, bias=False)
    run = run_of(module, tmp_path / "run.state", steps=400)
    for _ in run.steps():
        run.learn((module.weight - 3).square().sum())
    assert module.weight.item() == pytest.approx(3, abs=0.1)
    assert run.step == 400


def test_a_stopped_run_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    file = tmp_path / "run.state"
    module = nn.Linear(2, 2)
    run = run_of(module, file, steps=5)
    for _ in run.steps():
        run.learn(module.weight.square().sum())

    later = nn.Linear(2, 2)
    resumed = run_of(later, file, steps=8)
    assert resumed.step == 5
    assert torch.equal(later.weight, module.weight)
    assert list(resumed.steps()) == [5, 6, 7]


def test_a_stopped_run_learns_as_one_that_went_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimiser's means, too, are as they were."""
    monkeypatch.setattr("training.runs.WARMUP_STEPS", 1)  # or the short run would warm up sooner

    def learn(steps: int, file: Path) -> Tensor:
        torch.manual_seed(0)
        module = nn.Linear(2, 2)
        run = Run(module, Schedule(steps, 0.1, decay_steps=0), file, weight_decay=0.0, betas=(0.9, 0.99))
        for _ in run.steps():
            run.learn((module.weight - 3).square().sum() + module.bias.square().sum())
        return module.weight.detach()

    learn(5, tmp_path / "stopped.state")
    assert torch.equal(learn(8, tmp_path / "stopped.state"), learn(8, tmp_path / "whole.state"))


def test_no_decay_can_be_asked_for() -> None:
    assert Schedule(200, 1.0, decay_steps=0).rate(199) == 1


def test_the_log_tells_running_means_and_a_stop_doesnt_lose_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, module = tmp_path / "run.state", nn.Linear(1, 1)
    run = run_of(module, file, steps=50)
    for step in run.steps():
        run.learn(module.weight.square().sum() * 0 + 2, met=torch.tensor(1.0 if step == 0 else 0.0))
    assert f"loss 2.000 met {0.98**49:.3f}" in capsys.readouterr().out
    resumed = run_of(module, file, steps=100)
    for _ in resumed.steps():
        resumed.learn(module.weight.square().sum() * 0 + 2, met=torch.tensor(0.0))
    assert f"met {0.98**99:.3f}" in capsys.readouterr().out
