"""Lessons keep the law of their task and never show what is held out; training goes on after a
kill as if nothing had happened."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice, product
from pathlib import Path

import pytest
import torch

from floodstage.core.errors import CheckpointError
from floodstage.models.canvas import DENOISER, WRITER, fresh_canvas
from floodstage.models.load import load_canvas
from floodstage.text.grids import MODULUS, affine_held_out, faults, puzzles
from floodstage.training import canvas as module
from floodstage.training.canvas import (
    CanvasRun,
    CanvasShape,
    CanvasTask,
    filling_loss,
    greedy_grids,
    train_canvas,
    writing_loss,
)
from floodstage.training.fit import FitConfig
from floodstage.training.lessons import CELLS, Lesson, constants, puzzle_pool, source, turned

CPU = torch.device("cpu")
SHAPE = CanvasShape(hidden=16, layers=3, heads=2, kv_heads=1, inner=16)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pools")


@pytest.mark.parametrize("task", ["sum", "affine"])
def test_lines_keep_their_law(task: str, pools: Path) -> None:
    lessons = source(task, pools, 0, 256, print)
    sizes = set()
    for seed in range(40):
        one = lessons.draw(2048, generator(seed))
        b, h, w = one.solution.shape
        sizes.add((h, w))
        assert h * w <= CELLS
        assert one.rows.shape == (b, h)
        assert (one.rows[:, 1:] > one.rows[:, :-1]).all()
        assert (one.columns[:, 1:] > one.columns[:, :-1]).all()
        i, j = one.rows[:, :, None], one.columns[:, None]
        if task == "sum":
            assert (one.solution == i + j).all()
            assert int(one.solution.max()) < 256
            assert not one.given.any()
        else:
            # Whatever lines were taken: cell + corner = head of its row + head of its column.
            ends = one.solution[:, :1] + one.solution[:, :, :1]
            assert ((one.solution + one.solution[:, :1, :1] - ends) % MODULUS == 0).all()
            assert one.given[:, :2, 0].all()
            assert one.given[:, 0, :2].all()
            whole = (one.rows == torch.arange(h)).all(1) & (one.columns == torch.arange(w)).all(1)
            for k in whole.nonzero().flatten().tolist():
                given = [[None] * w for _ in range(h)]
                assert not faults(task, given, one.solution[k].tolist())
    assert len(sizes) > 20


def test_constants_that_are_held_out_are_never_drawn() -> None:
    drawn = {tuple(row) for row in constants(20_000, generator()).tolist()}
    every = list(product(range(MODULUS), repeat=3))
    held = {row for row in every if affine_held_out(*row)}
    assert 0.02 < len(held) / len(every) < 0.1
    assert drawn == set(every) - held


@pytest.mark.parametrize(("task", "n"), [("latin", 5), ("sudoku", 9)])
def test_turned_puzzles_keep_their_law(task: str, n: int, pools: Path) -> None:
    pool = puzzle_pool(task, n, 4, pools, lambda line: None)
    many = turned(pool.long().repeat(5, 1, 1, 1), 3 if task == "sudoku" else 1, generator())
    for given, solution in many.tolist():
        clues = [[x or None for x in row] for row in given]
        assert not faults(task, clues, solution)
    assert len({str(x) for x in many[:, 1].tolist()}) > 15


def test_a_symmetry_that_breaks_the_law_is_found(pools: Path) -> None:
    """Rows of different bands exchanged: a latin square still, a sudoku no more."""
    pool = puzzle_pool("sudoku", 9, 4, pools, lambda line: None)
    many = turned(pool.long().repeat(5, 1, 1, 1), 1, generator())
    broken = [faults("sudoku", [[None] * 9] * 9, s) for s in many[:, 1].tolist()]
    assert any(broken)


def test_pools_go_on_and_say_what_is_broken(tmp_path: Path) -> None:
    whole = puzzle_pool("latin", 4, 6, tmp_path / "a", lambda line: None)
    puzzle_pool("latin", 4, 3, tmp_path / "b", lambda line: None)
    path = tmp_path / "b" / "latin-4.jsonl"
    path.write_text(path.read_text() + '{"given": [[1,')  # killed while writing
    assert torch.equal(puzzle_pool("latin", 4, 6, tmp_path / "b", lambda line: None), whole)
    path.write_text('{"given": 3}\n' * 6)
    with pytest.raises(CheckpointError, match="does not hold latin puzzles of 4x4"):
        puzzle_pool("latin", 4, 6, tmp_path / "b", lambda line: None)


def test_a_lesson_belongs_to_its_step(pools: Path) -> None:
    task = CanvasTask(
        fresh_canvas(SHAPE.config("affine"), DENOISER, 0),
        source("affine", pools, 0, 64, print),
        FitConfig(tokens_per_step=256),
        (),
    )
    first = [x for x, _ in islice(task.batches(0), 4)]
    later = next(iter(task.batches(3)))[0]
    assert torch.equal(first[3].solution, later.solution)
    assert torch.equal(first[3].given, later.given)


def one_lesson() -> Lesson:
    puzzle = next(puzzles("affine", 3, 4))
    given = torch.tensor([[[x is not None for x in row] for row in puzzle.given]])
    return Lesson(
        torch.tensor([puzzle.solution]), given, torch.arange(3)[None], torch.arange(4)[None]
    )


def test_the_denoiser_never_sees_what_it_predicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every hole masked the loss does not depend on what the holes would hold."""
    monkeypatch.setattr(module, "_HALF", 1.0)
    monkeypatch.setattr(module, "_NOISY", 0.0)
    model = fresh_canvas(SHAPE.config("affine"), DENOISER, 0)
    seen = []
    model.places.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    one = one_lesson()
    filling_loss(model, one, generator())
    assert (seen[0][~one.given] == model.mask_id).all()
    assert torch.equal(seen[0][one.given], one.solution[one.given])


def test_the_twin_never_sees_the_cell_it_predicts() -> None:
    model = fresh_canvas(SHAPE.config("affine"), WRITER, 0)
    one = one_lesson()
    one = replace(one, given=torch.zeros_like(one.given))
    other = one.solution.clone()
    other[0, 2, 3] = (other[0, 2, 3] + 1) % MODULUS  # the last cell
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3)
        ids, _ = module.sequence(model, one, generator())
        changed, _ = module.sequence(model, replace(one, solution=other), generator())
    assert torch.equal(ids, changed)
    assert writing_loss(model, one, generator()) != writing_loss(
        model, replace(one, solution=other), generator()
    )


@pytest.mark.parametrize("twin", [False, True])
def test_a_killed_run_ends_with_the_same_weights(
    twin: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module,
        "held_out_instances",
        lambda task: tuple(islice(puzzles(task, 5, 6, "heldout"), 2)),
    )
    run = CanvasRun(
        task="affine",
        twin=twin,
        shape=SHAPE,
        fit=FitConfig(steps=6, tokens_per_step=128, evaluate_every=3, save_every_s=0.0),
    )
    kind = WRITER if twin else DENOISER
    whole = train_canvas(run, tmp_path / "whole", CPU, lambda line: None)
    real, seen = module.CanvasTask.loss, []

    def killed(self: CanvasTask, batch: object) -> object:
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return real(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(module.CanvasTask, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        train_canvas(run, tmp_path / "cut", CPU, lambda line: None)
    cut = train_canvas(run, tmp_path / "cut", CPU, lambda line: None)
    assert len(seen) == 7  # 3, the kill, and only the 3 that were lacking
    both = [load_canvas(x, dtype=torch.float32, device=CPU, kind=kind) for x in (whole, cut)]
    for a, b in zip(both[0].parameters(), both[1].parameters(), strict=True):
        assert torch.equal(a, b)
    history = [json.loads(x) for x in (tmp_path / "cut/history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in history] == [3, 6]
    assert "exact_5x6" in history[0]
    with pytest.raises(CheckpointError, match="another configuration"):
        train_canvas(replace(run, task="sum"), tmp_path / "cut", CPU, lambda line: None)


def test_learning_lowers_the_loss(pools: Path) -> None:
    for kind, loss in ((DENOISER, filling_loss), (WRITER, writing_loss)):
        model = fresh_canvas(CanvasShape(hidden=32, layers=2, inner=48).config("sum"), kind, 0)
        lessons = source("sum", pools, 0, 256, print)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        losses = []
        for step in range(30):
            value = loss(model, lessons.draw(512, generator(step)), generator(step))  # type: ignore[operator]
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(value.detach()))
        assert sum(losses[-5:]) < 0.75 * sum(losses[:5]), kind


def test_greedy_grids_are_what_the_law_above_says() -> None:
    model = fresh_canvas(SHAPE.config("affine"), WRITER, 0)
    asked = list(islice(puzzles("affine", 3, 4), 2))
    found = greedy_grids(model, asked)
    assert found.shape == (2, 3, 4)
