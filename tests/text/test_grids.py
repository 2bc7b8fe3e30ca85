"""Grids: instances keep their law, the checker finds what breaks it, CSV comes back."""

from __future__ import annotations

import time
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floodstage.core.errors import ConfigError
from floodstage.text.grids import (
    MODULUS,
    TASKS,
    Puzzle,
    contradictions,
    faults,
    held_out,
    puzzles,
    read_csv,
    solutions,
    write_csv,
)

SIZES = {"sum": (7, 12), "affine": (9, 5), "latin": (6, 6), "sudoku": (9, 9)}


def some(task: str, count: int = 5, split: str = "train", seed: int = 0) -> list[Puzzle]:
    return list(islice(puzzles(task, *SIZES[task], split, seed=seed), count))  # type: ignore[arg-type]


@pytest.mark.parametrize("task", TASKS)
def test_the_solution_is_right_and_fits_the_clues(task: str) -> None:
    for puzzle in some(task):
        assert faults(task, puzzle.given, list(map(list, puzzle.solution))) == []
        assert contradictions(task, puzzle.given) == []
        assert (puzzle.height, puzzle.width) == SIZES[task]


@pytest.mark.parametrize("task", TASKS)
def test_every_changed_cell_is_found(task: str) -> None:
    puzzle = some(task)[0]
    for i in range(puzzle.height):
        for j in range(puzzle.width):
            wrong = [list(row) for row in puzzle.solution]
            wrong[i][j] = wrong[i][j] % 5 + 1 if wrong[i][j] % 5 + 1 != wrong[i][j] else 6
            assert faults(task, puzzle.given, wrong), (i, j)
            wrong[i][j] = None  # type: ignore[call-overload]
            assert faults(task, puzzle.given, wrong)


@pytest.mark.parametrize(("task", "box"), [("latin", 0), ("sudoku", 3)])
def test_the_solution_is_the_only_one(task: str, box: int) -> None:
    for puzzle in some(task, 3):
        assert list(solutions(puzzle.given, box)) == [puzzle.solution]
        holes = sum(cell is None for row in puzzle.given for cell in row)
        assert holes > 0.4 * puzzle.height * puzzle.width


def test_search_finds_every_square() -> None:
    empty = [[None] * 4 for _ in range(4)]
    assert sum(1 for _ in solutions(empty)) == 576  # OEIS A002860
    assert sum(1 for _ in solutions(empty, 2)) == 288  # sudokus of 4 x 4
    assert list(solutions([[1, 1], [None, None]])) == []


def test_constants_of_affine_can_be_inferred() -> None:
    for puzzle in some("affine", 20):
        known = [(i, j) for i, row in enumerate(puzzle.given) for j, x in enumerate(row)
                 if x is not None]  # fmt: skip
        assert {(0, 0), (0, 1), (1, 0)} <= set(known)
        assert len(known) <= 8
        assert all(0 <= x < MODULUS for row in puzzle.solution for x in row)


def test_held_out_solutions_are_never_trained_on() -> None:
    for task in ("affine", "latin", "sudoku"):
        assert all(held_out(task, p.solution) for p in some(task, 3, "heldout"))
        assert not any(held_out(task, p.solution) for p in some(task, 10))


def test_instances_belong_to_their_seed() -> None:
    assert some("sudoku", 2) == some("sudoku", 2)
    assert some("latin", 2) != some("latin", 2, seed=1)


def test_contradictory_clues_are_found() -> None:
    puzzle = some("sudoku")[0]
    given = [list(row) for row in puzzle.given]
    i, j = next((i, j) for i, row in enumerate(given) for j, x in enumerate(row) if x is None)
    given[i][j] = puzzle.solution[i][(j + 1) % 9]
    given[i][(j + 1) % 9] = puzzle.solution[i][(j + 1) % 9]
    assert any("twice in its row" in f.why for f in contradictions("sudoku", given))
    assert contradictions("affine", [[5, None], [None, MODULUS]])
    assert contradictions("affine", [[0, 1, 2], [None, None, 5], [3, None, None]])
    assert not contradictions("affine", [[None, None], [None, 6]])
    assert contradictions("sum", [[0, 1], [None, 3]])


@given(st.lists(st.lists(st.none() | st.integers(-99, 99), min_size=3, max_size=3), min_size=1))
def test_csv_comes_back(cells: list[list[int | None]]) -> None:
    assert read_csv(write_csv(cells)) == cells


def test_mistakes_are_said() -> None:
    with pytest.raises(ConfigError, match="Line 2 has 1 cells, the first one 2"):
        read_csv("1,2\n3\n")
    with pytest.raises(ConfigError, match="Line 1, cell 2: 'x' is neither"):
        read_csv("1,x\n")
    with pytest.raises(ConfigError, match="holds no grid"):
        read_csv("\n\n")
    with pytest.raises(ConfigError, match="Did you mean 'sudoku'"):
        next(puzzles("sudoko", 9, 9))
    with pytest.raises(ConfigError, match="A sudoku is 9x9"):
        next(puzzles("sudoku", 4, 4))
    with pytest.raises(ConfigError, match="as high as wide"):
        next(puzzles("latin", 4, 5))
    with pytest.raises(ConfigError, match="at least one cell"):
        next(puzzles("sum", 0, 5))
    with pytest.raises(ConfigError, match="rows of one length"):
        faults("sum", [[0], [1, 2]], [[0]])
    with pytest.raises(ConfigError, match="the given one 1x1"):
        faults("sum", [[0]], [[0, 1]])


@pytest.mark.parametrize("task", ["sum", "affine", "latin"])
def test_a_grid_of_one_cell(task: str) -> None:
    puzzle = next(puzzles(task, 1, 1, "heldout" if task == "sum" else "train"))
    assert faults(task, puzzle.given, list(map(list, puzzle.solution))) == []


def test_large_grids_come_at_once() -> None:
    start = time.perf_counter()
    puzzle = next(puzzles("affine", 100, 100))
    assert faults("affine", puzzle.given, list(map(list, puzzle.solution))) == []
    assert time.perf_counter() - start < 5
