"""The study of mutants: every program counted once, and the same when it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from floodstage.bench.program_mutants import MutantsConfig, arc_mutants
from floodstage.bench.program_runs import ONE, TWO, summary
from floodstage.core.errors import ConfigError

GRID = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
OTHER = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def folder(at: Path) -> Path:
    """Two tasks of our own under names that the gallery has solvers for, one under none."""
    rules = {
        "67a3c6ac": lambda g: [row[::-1] for row in g],
        "74dd1130": lambda g: [list(row) for row in zip(*g, strict=True)],
        "nobody": lambda g: g,
    }
    at.mkdir()
    for name, rule in rules.items():
        pairs = [{"input": g, "output": rule(g)} for g in (GRID, OTHER)]
        (at / f"{name}.json").write_text(json.dumps({"train": pairs[:1], "test": pairs[1:]}))
    return at


def test_all_are_counted_and_a_second_run_adds_nothing(tmp_path: Path) -> None:
    config = MutantsConfig(tasks=folder(tmp_path / "tasks"), count=80, workers=1)
    found = arc_mutants(config, tmp_path / "run")
    assert (found.programs, found.parents, found.tasks) == (80, 2, 3)
    assert sum(found.verdicts.values()) == 80
    assert found.same_text + found.same_form == found.verdicts["duplicate"]
    assert min(found.same_text, found.same_form, found.verdicts["passed"]) > 0
    assert found.solved == 2
    assert arc_mutants(config, tmp_path / "run") == found  # its CPU time as well
    text = (tmp_path / "run/summary.md").read_text()
    assert f"{found.same_form:,} of an earlier normal form" in text
    few = arc_mutants(MutantsConfig(tasks=config.tasks, count=9, workers=1), tmp_path / "run")
    assert few.programs == 9


@pytest.mark.slow
def test_whole_runs_are_timed_and_compared(tmp_path: Path) -> None:
    config = MutantsConfig(tasks=folder(tmp_path / "tasks"), count=40, workers=1, rounds=1)
    arc_mutants(config, tmp_path / "run")
    rows = [json.loads(x) for x in (tmp_path / "run/timed.jsonl").read_text().splitlines()]
    assert [row["way"] for row in rows[:2]] == [TWO, ONE]
    assert [row["way"] for row in rows[-2:]] == [ONE, TWO]
    assert len({row["digest"] for row in rows}) == 1
    assert all(abs(row["sum_s"] - row["wall_s"]) < 1e-3 for row in rows)
    assert not (tmp_path / "run/timed").exists()
    assert "Whole runs" in (tmp_path / "run/summary.md").read_text()


def test_a_speed_up_needs_the_same_verdicts() -> None:
    row = {"programs": 10, "unaccounted_s": 0.0, "sum_s": 1.0, "busy_s": 1.0, "around_s": 0.0}
    two = {**row, "way": TWO, "number": 0, "wall_s": 1.0, "digest": "a"}
    one = {**row, "way": ONE, "number": 0, "wall_s": 2.0, "digest": "a"}
    assert summary([two, one]).rows[1][5] == "2.00 [2.00, 2.00]"
    assert summary([two, {**one, "digest": "b"}]).rows[1][5] == "verdicts differ"


def test_settings_have_bounds(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="count"):
        MutantsConfig(tasks=tmp_path, count=0)
