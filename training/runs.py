"""What every training command shares: a schedule by steps, a log, and a state that survives a stop."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

WARMUP_STEPS = 100
DECAYING_SHARE = 0.2  # of all steps; before them the rate stays up, so that a run can be made longer at any time
CLIP_NORM = 1.0
LOG_EVERY_STEPS = 50
SAVE_EVERY_SECONDS = 60


@dataclass(frozen=True)
class Schedule:
    """A learning rate that rises for a moment, stays, and falls to nothing at the end; steps count, not seconds.

    Until it falls, it doesn't depend on how many steps there will be.
    """

    steps: int
    highest_rate: float
    decay_steps: int | None = None  # None: `DECAYING_SHARE` of all

    def rate(self, step: int) -> float:
        """Return the rate of a step, of 0 .. steps - 1."""
        asked = round(self.steps * DECAYING_SHARE) if self.decay_steps is None else self.decay_steps
        decay_steps = max(1, asked)
        rising = min(1.0, (step + 1) / min(WARMUP_STEPS, self.steps))
        falling = min(1.0, (self.steps - step) / decay_steps)
        return self.highest_rate * rising * falling


class Run:
    """The modules of a training and how far it is; `steps` makes one optimiser step of every loss it is told."""

    def __init__(
        self,
        modules: nn.Module,
        schedule: Schedule,
        state_file: Path,
        *,
        weight_decay: float,
        betas: tuple[float, float],
    ) -> None:
        self._modules = modules
        self._schedule = schedule
        self._state_file = state_file
        self._optimiser = torch.optim.AdamW(
            _decay_matrices_only(modules, weight_decay), lr=schedule.highest_rate, betas=betas, fused=True
        )
        self._averages: dict[str, Tensor] = {}  # of one number each
        self._cpu_seconds_before = 0.0
        self._saved_at = time.monotonic()
        self.step = 0
        if state_file.exists():
            self._load()

    @property
    def cpu_minutes(self) -> float:
        """Core-minutes of all the processes that this run took; those that only make its batches aren't counted."""
        return (self._cpu_seconds_before + time.process_time()) / 60

    def steps(self) -> Iterator[int]:
        """Yield the number of each step still to be made; saves now and then and at the end."""
        while self.step < self._schedule.steps:
            yield self.step
            self.step += 1
            if self.step % LOG_EVERY_STEPS == 0:
                self._log()
            if time.monotonic() - self._saved_at >= SAVE_EVERY_SECONDS:
                self.save()
        self.save()

    def learn(self, loss: Tensor, **shown: Tensor) -> None:
        """Take one step down the loss; `shown` are figures for the log, averaged over the last steps.

        No figure is read before it is printed: a GPU needn't be waited for.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = self._schedule.rate(self.step)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._modules.parameters(), CLIP_NORM)
        self._optimiser.step()
        for name, value in {"loss": loss, **shown}.items():
            self._averages[name] = self._averages.get(name, value.detach()).lerp(value.detach(), 0.02)

    def save(self) -> None:
        """Write the state; the file is replaced as a whole, so that a stop in mid-write loses nothing."""
        state = {
            "modules": self._modules.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "averages": {name: value.item() for name, value in self._averages.items()},
            "step": self.step,
            "cpu_seconds": self.cpu_minutes * 60,
        }
        unfinished = self._state_file.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(self._state_file)
        self._saved_at = time.monotonic()

    def _load(self) -> None:
        state = torch.load(self._state_file, map_location="cpu", weights_only=True)  # wherever it was saved
        self._modules.load_state_dict(state["modules"])
        self._optimiser.load_state_dict(state["optimiser"])
        device = next(self._modules.parameters()).device
        self._averages = {name: torch.tensor(value, device=device) for name, value in state["averages"].items()}
        self.step = state["step"]
        self._cpu_seconds_before = state["cpu_seconds"]
        print(f"resumed at step {self.step}", flush=True)

    def _log(self) -> None:
        figures = " ".join(f"{name} {value.item():.3f}" for name, value in self._averages.items())
        print(
            f"step {self.step}/{self._schedule.steps} {figures} core-minutes {self.cpu_minutes:.1f}",
            flush=True,
        )


def begin(arguments: Namespace) -> None:
    """Set threads and seed, and make the directory of the result."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)


def command_line(description: str) -> ArgumentParser:
    """Return a parser with the options that all training commands have."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="directory of the result and of the run's state")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="on shared cores two can be slower than one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a toy run of seconds, to prove that the program works")
    return parser


def _decay_matrices_only(modules: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Gains, biases and embeddings aren't pulled towards zero."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in modules.named_parameters():
        (decayed if parameter.ndim >= 2 and "embedding" not in name else free).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
