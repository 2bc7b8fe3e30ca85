"""`floodstage canvas` as a person types it."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
import typer

from floodstage.cli.canvas import bench, solve
from floodstage.core.errors import ConfigError
from floodstage.engine.canvas import load_canvas
from floodstage.text.grids import faults, puzzles, read_csv, write_csv


def solvable() -> tuple[str, str]:
    """A puzzle that the shipped model solves, and one that it does not."""
    engine = load_canvas("canvas-sudoku")
    yes = no = ""
    for puzzle in islice(puzzles("sudoku", 9, 9, seed=900_001), 40):
        if engine.solve(puzzle.given).right:
            yes = yes or write_csv(puzzle.given)
        else:
            no = no or write_csv(puzzle.given)
        if yes and no:
            break
    return yes, no


def test_a_csv_is_filled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out, film = (tmp_path / name for name in ("in.csv", "out.csv", "film.png"))
    file.write_text("?,?,?\n?,?,?\n")
    solve(str(file), task="sum", out=out, film=film, json=True)
    filled = read_csv(out.read_text())
    assert not faults("sum", read_csv(file.read_text()), filled)
    assert film.read_bytes()[:4] == b"\x89PNG"
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["right"] is True
    assert "6 holes of 2x3" in said.err
    assert "right by the law of 'sum'" in said.err


def test_what_is_not_right_is_said_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yes, no = solvable()
    file = tmp_path / "in.csv"
    file.write_text(yes)
    solve(str(file), remask=0.0)
    found = capsys.readouterr()
    assert not faults("sudoku", read_csv(yes), read_csv(found.out))
    file.write_text(no)
    with pytest.raises(typer.Exit) as stopped:
        solve(str(file), remask=0.0, passes=10)
    assert stopped.value.exit_code == 1
    assert "NOT right" in capsys.readouterr().err


def test_sizes_are_read_or_refused() -> None:
    with pytest.raises(ConfigError, match="sizes such as 64x64"):
        bench(size="64")
    with pytest.raises(ConfigError, match="sizes such as 64x64"):
        bench(size="0x4")


def test_timing_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    bench(target="math-nano", tokens=16, passes=2, repeats=1)
    assert "the output means nothing" in capsys.readouterr().out
