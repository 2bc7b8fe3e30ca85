"""The one training loop: step, evaluate, save, go on after a kill.

A `Task` brings the model and its loss. Matrices are trained by Muon, the rest by AdamW; the
learning rate warms up, stays and falls to zero. A checkpoint is written beside the old one and
moved over it, so a half-written file is never read.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from floodstage.core.errors import CheckpointError, ConfigError
from floodstage.training.muon import Muon

QUIET_S = 60.0
"""Where there is no terminal for a bar, a line this often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How long and how hard to train."""

    steps: int = 2000
    tokens_per_step: int = 4096
    matrix_lr: float = 0.02  # Muon (Jordan et al. 2024)
    other_lr: float = 3e-3  # AdamW, for embeddings, norms and biases
    weight_decay: float = 0.0
    warmup: float = 0.02  # share of the steps
    decay: float = 0.4  # share of the steps in which the rate falls to zero
    clip: float = 1.0
    seed: int = 0
    evaluate_every: int = 250
    save_every_s: float = 120.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.tokens_per_step < 64:
            raise ConfigError(
                "steps must be >= 1 and tokens_per_step >= 64, "
                f"got {self.steps!r} and {self.tokens_per_step!r}."
            )

    def rate(self, step: int) -> float:
        """The factor on the learning rates at `step`."""
        up = max(1, round(self.warmup * self.steps))
        down = max(1, round(self.decay * self.steps))
        return min(1.0, (step + 1) / up, (self.steps - step) / down)


class Task(Protocol):
    """What is trained."""

    @property
    def model(self) -> nn.Module:
        """Holds the parameters to train and to save."""

    def batches(self, start: int) -> Iterator[Any]:
        """Endless batches, beginning with number `start`."""

    def loss(self, batch: Any) -> tuple[Tensor, int]:
        """The mean loss, and how many tokens the batch holds."""

    def evaluate(self) -> Mapping[str, float]:
        """Held-out figures."""

    def export(self, folder: Path, history: list[dict[str, float]]) -> None:
        """Write the finished model."""


Report = Callable[[str], None]
Probe = Callable[[Any], Mapping[str, float]]
"""More held-out figures of the model in training, from whoever set the training up."""


def fit(task: Task, config: FitConfig, run: Path, *, report: Report = print) -> None:
    """Train until `config.steps`; go on from `run` if it holds a checkpoint of the same config.

    Raises CheckpointError if the checkpoint is unreadable or of another configuration.
    """
    run.mkdir(parents=True, exist_ok=True)
    optimizers = make_optimizers(task.model, config)
    step, history = _resume(run, task.model, optimizers, config)
    if step:
        report(f"Going on after step {step} of {config.steps}.")
    torch.manual_seed(config.seed + step)
    saved = spoken = time.monotonic()
    with _progress() as bar:
        job = bar.add_task("training", total=config.steps, completed=step, note="")
        for batch in task.batches(step):
            if step >= config.steps:
                break
            loss, speed = _step(task, batch, optimizers, config, step)
            step += 1
            note = f"loss {loss:.3f} · {speed:,.0f} tokens/s"
            bar.update(job, completed=step, note=note)
            if not bar.console.is_terminal and time.monotonic() - spoken > QUIET_S:
                report(f"step {step} of {config.steps} · {note}")
                spoken = time.monotonic()
            last = step == config.steps
            if step % config.evaluate_every == 0 or last:
                row = {"step": step, "loss": loss, "tokens_per_s": speed, **task.evaluate()}
                history.append(row)
                report(" · ".join(f"{k} {v:,.4g}" for k, v in row.items()))
            if last or time.monotonic() - saved > config.save_every_s:
                _save(run, task.model, optimizers, config, step, history)
                saved = time.monotonic()
    task.export(run / "model", history)


def make_optimizers(model: nn.Module, config: FitConfig) -> list[torch.optim.Optimizer]:
    """Muon for matrices inside the layers, AdamW for everything else that is trained."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            matrix = p.ndim == 2 and not any(k in name for k in ("embed", "head"))
            (matrices if matrix else others).append(p)
    made: list[torch.optim.Optimizer] = []
    if matrices:
        made.append(Muon(matrices, lr=config.matrix_lr, weight_decay=config.weight_decay))
    if others:
        made.append(
            torch.optim.AdamW(others, lr=config.other_lr, betas=(0.9, 0.95), weight_decay=0.0)
        )
    for optimizer in made:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return made


def _step(
    task: Task,
    batch: Any,
    optimizers: list[torch.optim.Optimizer],
    config: FitConfig,
    step: int,
) -> tuple[float, float]:
    start = time.perf_counter()
    with autocast(task.model):
        loss, tokens = task.loss(batch)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(task.model.parameters(), config.clip)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * config.rate(step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    value = float(loss.detach())
    if value != value:  # NaN
        raise ConfigError(f"The loss is not a number at step {step + 1}: lower the learning rates.")
    return value, tokens / (time.perf_counter() - start)


def autocast(model: nn.Module) -> AbstractContextManager[Any]:
    """bfloat16 on CUDA; nothing elsewhere (these CPUs gain nothing from it)."""
    if next(model.parameters()).device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        refresh_per_second=2,
    )


def _save(
    run: Path,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    config: FitConfig,
    step: int,
    history: list[dict[str, float]],
) -> None:
    state = {
        "config": asdict(config),
        "step": step,
        "history": history,
        "model": model.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
    }
    part = run / "checkpoint.pt.part"
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(run / "checkpoint.pt")
    (run / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))


def _resume(
    run: Path,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    config: FitConfig,
) -> tuple[int, list[dict[str, float]]]:
    path = run / "checkpoint.pt"
    if not path.is_file():
        return 0, []
    try:
        state = dict(torch.load(path, map_location="cpu", weights_only=True))
        theirs = dict(state["config"])
    except Exception as error:  # torch raises a different kind for every way to be broken
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{str(path)!r} cannot be read: {reason}") from error
    ours = asdict(config)
    changed = [k for k in ours if k not in ("save_every_s",) and ours[k] != theirs.get(k)]
    if changed:
        raise CheckpointError(
            f"{str(run)!r} holds a run of another configuration ({', '.join(changed)} differ): "
            "choose another folder or the same settings."
        )
    try:
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{str(path)!r} is of another model: {reason}") from error
    return int(state["step"]), list(state["history"])
