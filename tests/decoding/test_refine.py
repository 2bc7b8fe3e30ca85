"""Refinement: schedules fill what they say, clues stay, grids do not disturb each other, and what
turns out wrong can be taken back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from floodstage.core.errors import ConfigError
from floodstage.decoding import refine as module
from floodstage.decoding.refine import SCHEDULES, Filled, Refinement, fill, refine
from floodstage.models.canvas import Canvas

VALUES = 5
MASK = VALUES


@dataclass
class Scripted:
    """Stands where a denoiser stands: logits by a rule that sees the cells."""

    rule: Callable[[Tensor], tuple[Tensor, Tensor]]  # cells -> values and their probabilities
    mask_id: int = MASK
    calls: int = 0

    def __call__(self, canvas: Canvas) -> Tensor:
        self.calls += 1
        value, sure = self.rule(canvas.cells)
        rest = ((1 - sure) / (VALUES - 1)).log()[..., None].expand(*value.shape, VALUES)
        return rest.scatter(-1, value[..., None], sure.log()[..., None])


def truth(shape: torch.Size) -> Tensor:
    i, j = torch.meshgrid(torch.arange(shape[1]), torch.arange(shape[2]), indexing="ij")
    return ((i + 2 * j) % VALUES).expand(shape)


def graded(cells: Tensor) -> tuple[Tensor, Tensor]:
    """The right value, surer the more of the grid is known, and by place: no two alike."""
    known = (cells != MASK).double().mean((1, 2))[:, None, None]
    n = cells.shape[1] * cells.shape[2]
    place = torch.arange(n, dtype=torch.float64).view(cells.shape[1:]) / n
    return truth(cells.shape), 0.4 + 0.35 * known + 0.2 * place


def holes(count: int = 1, h: int = 4, w: int = 5) -> Canvas:
    """Grids with one clue more than their number; a clue is never the right value."""
    cells = torch.full((count, h, w), MASK)
    for i in range(count):
        right = truth(cells.shape)[i].flatten()[: i + 1]
        cells[i].view(-1)[: i + 1] = (right + 1) % VALUES
    return Canvas.of(cells, cells != MASK)


def run(canvas: Canvas, rule: Any = graded, **settings: Any) -> Filled:
    check = settings.pop("check", None)
    settings = {"remask": 0.0, **settings}
    return fill(Scripted(rule), canvas, Refinement(**settings), check=check)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("remask", [0.0, 0.5])
def test_clues_stay_and_no_hole_is_left(schedule: str, remask: float) -> None:
    canvas = holes(3)
    found = run(canvas, schedule=schedule, remask=remask, passes=6)
    assert (found.cells != MASK).all()
    assert (found.cells == canvas.cells)[canvas.locked].all()
    assert (found.cells == truth(found.cells.shape))[~canvas.locked].all()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_leave_what_they_say(schedule: str) -> None:
    found = run(holes(), schedule=schedule, passes=5)
    at = [n / 5 for n in range(1, 6)]
    share = [1 - x if schedule == "linear" else math.cos(math.pi / 2 * x) for x in at]
    assert [r.holes for r in found.records[:-1]] == [math.floor(19 * x) for x in share[:-1]]
    assert found.records[-1].holes == 0
    assert sum(r.fixed for r in found.records) == 19


def test_one_fills_the_surest_each_time() -> None:
    model = Scripted(graded)
    seen: list[Tensor] = [holes().cells]
    for step in refine(model, holes(), Refinement(schedule="one", passes=3)):  # type: ignore[arg-type]
        changed = (step.cells != seen[-1]).flatten().nonzero().flatten().tolist()
        assert changed == [20 - step.record.number]  # the last place is the surest
        seen.append(step.cells.clone())
    assert model.calls == len(seen) - 1 == 19


def test_a_threshold_fills_what_is_sure_and_at_least_one() -> None:
    found = run(holes(), threshold=0.55, passes=20)
    n = torch.arange(20, dtype=torch.float64) / 20
    sure = 0.4 + 0.35 / 20 + 0.2 * n >= 0.55
    assert found.records[0].fixed == int(sure.sum())
    assert 1 < int(sure.sum()) < 19
    slow = run(holes(), threshold=1.0, passes=30)
    assert [r.fixed for r in slow.records] == [1] * 19


def test_the_last_pass_fills_what_is_left() -> None:
    found = run(holes(), threshold=1.0, passes=3)
    assert [r.fixed for r in found.records] == [1, 1, 17]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_grid_of_a_batch_gets_what_it_gets_alone(schedule: str) -> None:
    canvas = holes(4)
    together = run(canvas, schedule=schedule, passes=4, threshold=0.6, remask=0.45)
    for i in range(4):
        alone = Canvas.of(canvas.cells[i : i + 1], canvas.locked[i : i + 1])
        one = run(alone, schedule=schedule, passes=4, threshold=0.6, remask=0.45)
        assert (one.cells[0] == together.cells[i]).all()
        assert int(one.passes[0]) == int(together.passes[i])


def misled(cells: Tensor) -> tuple[Tensor, Tensor]:
    """Sure and wrong at the first cell while little is known; right and sure once more is."""
    value, known = truth(cells.shape).clone(), (cells != MASK).double().mean((1, 2))
    early = known < 0.3
    value[early, 0, 0] = (value[early, 0, 0] + 1) % VALUES
    return value, torch.full(cells.shape, 0.95, dtype=torch.float64)


def blank(count: int = 1) -> Canvas:
    cells = torch.full((count, 3, 3), MASK)
    return Canvas.of(cells, cells != MASK)


def test_what_turns_out_wrong_is_taken_back() -> None:
    kept = run(blank(), misled, threshold=0.9)
    assert int(kept.passes) == 1
    assert int((kept.cells != truth(kept.cells.shape)).sum()) == 1
    mended = run(blank(), misled, threshold=0.9, remask=0.5)
    assert (mended.cells == truth(mended.cells.shape)).all()
    # Filled, mended, and a pass that changes nothing.
    assert int(mended.passes) == 3
    assert [r.changed for r in mended.records] == [0, 1, 0]


def test_a_satisfied_checker_ends_it() -> None:
    asked: list[int] = []

    def check(number: int, cells: list[list[int]]) -> bool:
        asked.append(number)
        return cells == truth(torch.Size((1, 3, 3)))[0].tolist()

    found = run(blank(2), misled, threshold=0.9, remask=0.5, check=check)
    assert found.passes.tolist() == [2, 2]
    assert sorted(asked) == [0, 0, 1, 1]


def right_for(wanted: int) -> Callable[[int, list[list[int]]], bool]:
    """Knows the law; satisfied by one grid of the batch only."""
    right = truth(torch.Size((1, 4, 5)))[0].tolist()
    return lambda number, cells: (
        number == wanted and cells[1:] == right[1:] and all(MASK not in row for row in cells)
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_whole_grid_that_satisfies_the_checker_is_done(schedule: str) -> None:
    slow = {"schedule": schedule, "threshold": 1.0, "passes": 6}
    canvas = holes(3)
    found = run(canvas, check=right_for(1), **slow)
    alone = run(canvas, **slow)
    assert int(found.passes[1]) == 1 < int(alone.passes[1])
    # The others go on as they would have.
    assert found.passes[[0, 2]].tolist() == alone.passes[[0, 2]].tolist()
    assert (found.cells == alone.cells).all()
    assert (found.cells == canvas.cells)[canvas.locked].all()
    assert found.records[0].holes < alone.records[0].holes


def test_nothing_is_proposed_if_so_asked() -> None:
    slow = {"threshold": 1.0, "passes": 6, "propose": False}
    found = run(holes(3), check=right_for(1), **slow)
    assert found.passes.tolist() == run(holes(3), **slow).passes.tolist()


def test_full_grids_take_no_pass() -> None:
    model = Scripted(graded)
    cells = truth(torch.Size((2, 3, 3))).clone()
    canvas = Canvas.of(cells, torch.zeros_like(cells, dtype=torch.bool))
    found = fill(model, canvas, Refinement())  # type: ignore[arg-type]
    assert (found.cells == cells).all()
    assert model.calls == 0
    assert found.records == ()


def test_the_trace_counts_errors() -> None:
    canvas = holes()
    steps = list(
        refine(
            Scripted(misled),  # type: ignore[arg-type]
            blank(),
            Refinement(threshold=0.9, remask=0.5),
            truth=truth(blank().cells.shape),
        )
    )
    assert [s.record.errors for s in steps] == [1, 0, 0]
    assert run(canvas).records[0].errors is None


@pytest.mark.parametrize(
    ("name", "bug"),
    [
        ("choose", lambda r, n, wanting, sure, total: torch.ones_like(wanting)),
        ("choose", lambda r, n, wanting, sure, total: wanting & (sure <= sure.min())),
        ("holes_left", lambda r, n, total: total * 0),
    ],
)
def test_the_laws_catch_a_planted_bug(name: str, bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, name, bug)
    with pytest.raises(AssertionError):
        test_one_fills_the_surest_each_time()


def test_settings_out_of_range() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'cosine'"):
        Refinement(schedule="cosin")
    with pytest.raises(ConfigError, match="passes must be >= 1"):
        Refinement(passes=0)
    with pytest.raises(ConfigError, match=r"threshold must be in \[0, 1\]"):
        Refinement(threshold=1.5)
