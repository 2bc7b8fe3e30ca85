"""Generators and solvers of the gallery check each other; those for ARC are right on real tasks."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from floodstage.programs.gallery.files import LIBRARY, write_gallery
from floodstage.programs.gallery.tasks import GENERATORS, gallery
from floodstage.programs.inputs.arc import grid_fault
from floodstage.programs.inputs.candidates import read_candidates, tasks_named_in
from floodstage.programs.inputs.tasks import read_tasks
from floodstage.programs.stages.normal import normal_form, parse
from floodstage.programs.stages.purity import library_names

from .test_validate import said

HERE = files("floodstage.programs.gallery")
LIBRARY_TEXT = (HERE / LIBRARY).read_text()


def solvers(name: str) -> dict[str, Any]:
    """A module of solvers, run here over the library."""
    space: dict[str, Any] = {}
    exec(LIBRARY_TEXT.replace("from __future__ import annotations", ""), space)
    exec((HERE / "solvers" / f"{name}.txt").read_text().replace("from grids import *", ""), space)
    return {k.removeprefix("solve_"): v for k, v in space.items() if k.startswith("solve_")}


def frozen(grid: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, grid))


def test_every_task_has_a_solver_that_is_right_whatever_the_seed() -> None:
    own = solvers("own")
    assert set(own) == set(GENERATORS)
    assert len(own) >= 30
    for seed in range(8):
        for name, task in gallery(seed).items():
            for sample in task.samples:
                assert own[name](frozen(sample.inputs[0])) == frozen(sample.expected), name


def test_tasks_are_grids_that_a_seed_fixes_and_that_ask_for_something() -> None:
    assert gallery(3) == gallery(3) != gallery(4)
    for name, task in gallery(3).items():
        assert [sample.part for sample in task.samples] == ["demo"] * 3 + ["test"] * 2
        assert any(sample.inputs[0] != sample.expected for sample in task.samples), name
        for sample in task.samples:
            assert not grid_fault(sample.inputs[0])
            assert not grid_fault(sample.expected)


def test_solvers_of_public_tasks_are_right_on_every_pair(arc: Path) -> None:
    found = solvers("arc")
    assert len(found) >= 100
    for name, solve in found.items():
        task = json.loads((arc / f"{name}.json").read_text())
        for pair in task["train"] + task["test"]:
            assert solve(frozen(pair["input"])) == frozen(pair["output"]), name


@pytest.mark.parametrize(("name", "least"), [("own", 1.0), ("arc", 0.9)])
def test_solvers_have_normal_forms_over_the_library(
    name: str, least: float, tmp_path: Path
) -> None:
    """Else no two of their mutants would be found to be the same."""
    offered = {"grids": library_names(LIBRARY_TEXT)}
    write_gallery(tmp_path)
    path = tmp_path / "solvers" / f"{name}.py"
    found = [x.source for x in read_candidates(path, tasks_named_in(path))]
    shared = sum(normal_form(text, parse(text), offered).reason == "" for text in found)
    assert shared >= least * len(found)


def test_the_files_are_read_back_as_they_were(tmp_path: Path) -> None:
    write_gallery(tmp_path, seed=2)
    tasks = read_tasks(tmp_path / "tasks")
    assert tasks == {name: gallery(2)[name] for name in sorted(GENERATORS)}
    found = list(read_candidates(tmp_path / "solvers/own.py", tasks))
    assert {candidate.task_id for candidate in found} == set(tasks)


def test_the_demo_solves_all_and_says_where_time_went(tmp_path: Path) -> None:
    code, out, err = said("demo", "--mutants", 150, "--out", tmp_path / "demo", "--json")
    assert code == 0, err
    about = json.loads(out.splitlines()[-1])
    assert (about["programs"], about["solved"]) == (len(GENERATORS) + 150, len(GENERATORS))
    assert set(about["verdicts"]) >= {"passed", "wrong", "exception", "duplicate"}
    assert abs(sum(row["self_s"] or 0.0 for row in about["profile"])
               - about["profile"][0]["seconds"]) < 1e-3  # fmt: skip
    assert "made from own:solve_" in err
    code, out, _ = said("explain", tmp_path / "demo/run", len(GENERATORS))
    assert (code, "made from own:solve_" in out) == (0, True)
