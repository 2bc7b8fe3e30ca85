"""Canvases by name: what a person gives, what comes back, and what is said of mistakes."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

import floodstage
from floodstage.core.errors import CheckpointError, ConfigError
from floodstage.decoding.refine import Refinement
from floodstage.engine import canvas as module
from floodstage.engine.canvas import CanvasTwin, load_canvas, load_twin, pass_bytes, prompts_of
from floodstage.models.canvas import DENOISER, WRITER, Writer, fresh_canvas
from floodstage.text.grids import Puzzle, faults, puzzles
from floodstage.training.canvas import CanvasShape, greedy_grids, save_canvas

SHAPE = CanvasShape(hidden=16, layers=2, heads=2, kv_heads=1, inner=16)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Untrained models of every task."""
    root = tmp_path_factory.mktemp("canvas")
    found = {}
    for task in ("sum", "affine", "latin", "sudoku"):
        for kind in (DENOISER, WRITER):
            folder = root / f"{task}-{kind}"
            save_canvas(folder, fresh_canvas(SHAPE.config(task), kind, 0))
            found[f"{task} {kind}"] = str(folder)
    return found


def test_the_shipped_sum_is_exact_on_a_size_it_never_saw() -> None:
    engine = floodstage.load_canvas("canvas-sum")
    found = engine.solve([[None] * 64 for _ in range(64)])
    assert found.right
    assert found.cells[63][63] == 126
    assert found.passes <= 10


def test_the_shipped_sudoku_keeps_clues_and_solves_some() -> None:
    engine = floodstage.load_canvas("canvas-sudoku")
    asked = list(islice(puzzles("sudoku", 9, 9, seed=900_001), 8))
    found = engine.solve_batch([p.given for p in asked], Refinement(passes=32, remask=0.5))
    for puzzle, solution in zip(asked, found, strict=True):
        for clues, row in zip(puzzle.given, solution.cells, strict=True):
            assert all(x is None or x == y for x, y in zip(clues, row, strict=True))
        # The checker's word, not the model's: right means that it is the only solution.
        assert solution.right == (solution.cells == puzzle.solution)
    assert any(s.right for s in found)


def test_passes_show_the_grid_on_its_way(folders: dict[str, str]) -> None:
    engine = load_canvas(folders["affine CanvasDenoiser"])
    puzzle = next(puzzles("affine", 4, 5))
    steps = list(engine.passes(puzzle.given, Refinement(schedule="linear", passes=4)))
    holes = [sum(x is None for row in cells for x in row) for _, cells in steps]
    assert holes == [record.holes for record, _ in steps]
    assert holes == sorted(holes, reverse=True)
    assert holes[-1] == 0


def test_the_twin_writes_what_its_one_pass_reading_says(folders: dict[str, str]) -> None:
    twin = load_twin(folders["sum CanvasWriter"])
    with torch.no_grad():
        for p in twin.model.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    twin.model.fuse()
    given = next(puzzles("sum", 4, 5)).given
    (written,) = twin.write([given])
    assert len({x for row in written for x in row}) > 2  # else anything would agree
    assert greedy_grids(twin.model, [Puzzle("sum", given, written)])[0].tolist() == written
    assert twin.write([given] * 3) == [written] * 3


def test_prompts_repeat_clues_to_one_length(folders: dict[str, str]) -> None:
    twin = load_twin(folders["sum CanvasWriter"])
    assert isinstance(twin, CanvasTwin)
    assert isinstance(twin.model, Writer)
    few = [[5, None], [None, None]]
    many = [[5, 6], [7, None]]
    rows = prompts_of(twin.model, [few, many]).tolist()
    assert len(set(rows[0][:3])) == 1
    assert len(set(rows[1][:3])) == 3
    assert rows[0][0] == rows[1][0]
    assert rows[0][3] == rows[1][3]  # the start
    with pytest.raises(ConfigError, match="with and without clues"):
        prompts_of(twin.model, [few, [[None, None], [None, None]]])


@pytest.mark.parametrize("task", ["sum", "affine", "latin"])
def test_a_grid_of_one_cell(task: str, folders: dict[str, str]) -> None:
    engine = load_canvas(folders[f"{task} CanvasDenoiser"])
    found = engine.solve([[None]])
    assert len(found.cells) == len(found.cells[0]) == 1
    assert found.right == (not faults(task, [[None]], found.cells))


def test_mistakes_are_said(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    sudoku = load_canvas(folders["sudoku CanvasDenoiser"])
    empty: list[list[int | None]] = [[None] * 9 for _ in range(9)]
    twice = [list(row) for row in empty]
    twice[0][0] = twice[0][8] = 7
    with pytest.raises(
        ConfigError, match=r"contradict each other.*row 1, column 9: 7 stands twice"
    ):
        sudoku.solve(twice)
    wild = [list(row) for row in empty]
    wild[2][3] = 12
    with pytest.raises(ConfigError, match="Row 3, column 4: 12 is out of range"):
        sudoku.solve(wild)
    with pytest.raises(ConfigError, match="rows of one length"):
        sudoku.solve([[1, 2], [3]])
    with pytest.raises(ConfigError, match="one size: got 9x9 and 1x1"):
        sudoku.solve_batch([empty, [[None]]])
    with pytest.raises(ConfigError, match="A sudoku is 9x9"):
        sudoku.solve([[None] * 4 for _ in range(4)])
    with pytest.raises(ConfigError, match="at least one"):
        sudoku.solve_batch([])
    total = load_canvas(folders["sum CanvasDenoiser"])
    with pytest.raises(ConfigError, match=r"values up to 298; the model knows 0 \.\. 255"):
        total.solve([[None] * 150 for _ in range(150)])
    latin = load_canvas(folders["latin CanvasDenoiser"])
    with pytest.raises(ConfigError, match="the model knows up to 9"):
        latin.solve([[None] * 12 for _ in range(12)])
    monkeypatch.setattr(module, "free_memory", lambda device: 1000)
    with pytest.raises(ConfigError, match=r"1 grids of 20x20 need about .* are free"):
        total.solve([[None] * 20 for _ in range(20)])
    with pytest.raises(CheckpointError, match="expected a CanvasDenoiser"):
        load_canvas(folders["sum CanvasWriter"])
    with pytest.raises(ConfigError, match="Did you mean 'canvas-sudoku'"):
        load_canvas("canvas-sudoko")


def test_memory_is_not_underestimated() -> None:
    """What torch holds at the peak of a pass is a little less than what is asked for."""
    from torch.profiler import ProfilerActivity, profile

    engine = load_canvas("canvas-sum")
    given = [[[None] * 60 for _ in range(60)]]
    canvas = engine.canvas(given)
    with (
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found,
        torch.inference_mode(),
    ):
        engine.fill(given, canvas, Refinement(passes=1))
    held = peak = 0
    for event in found.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    asked = pass_bytes(engine.model, 3600)
    assert 0.6 * asked < peak < asked, (peak, asked)


def test_the_shipped_models_are_small() -> None:
    from floodstage.engine.build import ASSETS

    for folder in ASSETS.glob("canvas-*"):
        assert (folder / "model.safetensors").stat().st_size < 16 * 2**20
        assert "floodstage train canvas" in (Path(folder) / "MODEL_CARD.md").read_text()
