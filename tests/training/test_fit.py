"""The training loop on a task of a few numbers: steps, checkpoints, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from floodstage.core.errors import CheckpointError, ConfigError
from floodstage.training import fit as fitting
from floodstage.training.fit import FitConfig, fit, make_optimizers

CONFIG = FitConfig(steps=6, evaluate_every=2, save_every_s=0.0, matrix_lr=0.05)


class Line:
    """Learn a linear map. A batch is a function of its number; the run falls at `fall_at`."""

    def __init__(self, fall_at: int = -1, width: int = 4) -> None:
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))
        self.fall_at = fall_at
        self.exported: list[dict[str, float]] | None = None

    def batches(self, start: int) -> Iterator[tuple[int, Tensor]]:
        while True:
            g = torch.Generator().manual_seed(start)
            yield start, torch.randn(8, 3, generator=g)
            start += 1

    def loss(self, batch: tuple[int, Tensor]) -> tuple[Tensor, int]:
        number, x = batch
        if number == self.fall_at:
            raise RuntimeError("killed")
        return ((self.model(x) - x[:, :2] - 1) ** 2).mean(), 8

    def evaluate(self) -> Mapping[str, float]:
        return {"size": sum(float(p.detach().norm()) for p in self.model.parameters())}

    def export(self, folder: Path, history: list[dict[str, float]]) -> None:
        self.exported = history


def untimed(history: list[dict[str, float]] | None) -> list[dict[str, float]]:
    assert history is not None
    return [{k: v for k, v in row.items() if k != "tokens_per_s"} for row in history]


def quiet(said: str) -> None:
    pass


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("fall_at", [1, 3, 5])
def test_a_killed_run_ends_like_an_unbroken_one(tmp_path: Path, fall_at: int) -> None:
    whole = Line()
    fit(whole, CONFIG, tmp_path / "whole", report=quiet)
    with pytest.raises(RuntimeError, match="killed"):
        fit(Line(fall_at), CONFIG, tmp_path / "killed", report=quiet)
    (tmp_path / "killed" / "checkpoint.pt.part").write_bytes(b"half a checkpoint")
    again, said = Line(), list[str]()
    fit(again, CONFIG, tmp_path / "killed", report=said.append)
    assert said[0] == f"Going on after step {fall_at} of 6."
    assert same(again.model, whole.model)
    assert untimed(again.exported) == untimed(whole.exported)
    rows = (tmp_path / "killed" / "history.jsonl").read_text().splitlines()
    assert untimed([json.loads(row) for row in rows]) == untimed(whole.exported)
    assert [row["step"] for row in untimed(whole.exported)] == [2, 4, 6]


def test_a_finished_run_is_only_exported_again(tmp_path: Path) -> None:
    first, again = Line(), Line()
    fit(first, CONFIG, tmp_path, report=quiet)
    fit(again, CONFIG, tmp_path, report=quiet)
    assert same(first.model, again.model)
    assert again.exported == first.exported


def test_how_often_a_run_is_saved_may_change(tmp_path: Path) -> None:
    fit(Line(), CONFIG, tmp_path, report=quiet)
    fit(Line(), replace(CONFIG, save_every_s=9.0), tmp_path, report=quiet)


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "another kind"])
def test_a_corrupt_checkpoint_is_one_error(tmp_path: Path, damage: str) -> None:
    fit(Line(), CONFIG, tmp_path, report=quiet)
    path = tmp_path / "checkpoint.pt"
    content = path.read_bytes()
    damaged = {"cut": content[: len(content) // 2], "garbage": b"\x80" * 999, "empty": b""}
    if damage in damaged:
        path.write_bytes(damaged[damage])
    else:
        torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt' cannot be read: [^\n]*$"):
        fit(Line(), CONFIG, tmp_path, report=quiet)


@pytest.mark.parametrize(
    "changes", [{"steps": 9}, {"seed": 2}, {"matrix_lr": 0.1, "clip": 2.0}], ids=str
)
def test_another_configuration_is_refused_by_name(tmp_path: Path, changes: dict[str, Any]) -> None:
    fit(Line(), CONFIG, tmp_path, report=quiet)
    with pytest.raises(CheckpointError, match=f"another configuration .*{list(changes)[-1]}"):
        fit(Line(), replace(CONFIG, **changes), tmp_path, report=quiet)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    fit(Line(), CONFIG, tmp_path, report=quiet)
    with pytest.raises(CheckpointError, match="is of another model"):
        fit(Line(width=5), CONFIG, tmp_path, report=quiet)


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path) -> None:
    task = Line()
    with torch.no_grad():
        task.model[0].weight.fill_(float("nan"))
    with pytest.raises(ConfigError, match="not a number at step 1: lower the learning rates"):
        fit(task, CONFIG, tmp_path, report=quiet)


def test_the_rate_rises_stays_and_falls_to_nearly_nothing() -> None:
    config = FitConfig(steps=100, warmup=0.1, decay=0.4)
    rates = [config.rate(step) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert set(rates[10:60]) == {1.0}
    assert rates[-1] == pytest.approx(1 / 40)
    assert all(a >= b for a, b in pairwise(rates[10:]))


@pytest.mark.parametrize("changes", [{"steps": 0}, {"tokens_per_step": 63}], ids=str)
def test_a_run_of_no_steps_or_too_few_tokens_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="steps must be >= 1 and tokens_per_step >= 64"):
        FitConfig(**changes)


def test_matrices_inside_the_layers_and_only_they_go_to_muon(tiny: Any) -> None:
    from floodstage.engine.build import load_target

    model: Any = load_target(tiny.target, torch.float32, torch.device("cpu"))
    muon, adam = make_optimizers(model, FitConfig())
    matrices = {id(p) for group in muon.param_groups for p in group["params"]}
    others = {id(p) for group in adam.param_groups for p in group["params"]}
    names = {n for n, p in model.named_parameters() if id(p) in matrices}
    assert names == {n for n, _ in model.named_parameters() if "proj" in n}
    assert matrices | others == {id(p) for p in model.parameters()}
    assert not matrices & others


def test_a_half_written_checkpoint_never_replaces_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        fit(Line(fall_at=3), CONFIG, tmp_path, report=quiet)

    def full(state: object, file: Any) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(fitting.torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        fit(Line(), CONFIG, tmp_path, report=quiet)
    monkeypatch.undo()
    again, whole = Line(), Line()
    fit(again, CONFIG, tmp_path, report=quiet)
    fit(whole, CONFIG, tmp_path / "whole", report=quiet)
    assert same(again.model, whole.model)
