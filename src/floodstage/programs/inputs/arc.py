"""ARC tasks: a folder of `<id>.json`, or Kaggle's file of challenges with its solutions.

A file of challenges whose solutions are not beside it gives test samples without an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from floodstage.core.errors import InputError
from floodstage.programs.inputs.files import json_of
from floodstage.programs.records import DataTask, Sample

Grid: TypeAlias = list[list[int]]
CHALLENGES, SOLUTIONS = "_challenges", "_solutions"
LONGEST = 30
"""The most rows and columns of a grid."""


def read_folder(folder: Path) -> Iterator[DataTask]:
    """The tasks of a folder in the order of their names. Raises InputError."""
    for path in sorted(folder.glob("*.json")):
        yield _task(path.stem, json_of(path), None, repr(str(path)))


def read_challenges(path: Path) -> Iterator[DataTask]:
    """The tasks of a `*_challenges.json`, with the `*_solutions.json` beside it if there is one.
    Raises InputError."""
    beside = path.with_name(path.name.replace(CHALLENGES, SOLUTIONS))
    solutions = json_of(beside) if CHALLENGES in path.name and beside.is_file() else {}
    tasks = json_of(path)
    if not isinstance(tasks, dict) or not isinstance(solutions, dict):
        raise InputError(f"{str(path)!r} and its solutions must be JSON objects keyed by task.")
    for name, task in tasks.items():
        yield _task(name, task, solutions.get(name), f"{str(path)!r} task {name!r}")


def grid_fault(value: Any) -> str:
    """Why a value is no ARC grid; empty for one: 1 to 30 equal rows of 1 to 30 colours 0 to 9."""
    if not isinstance(value, list | tuple) or not value:
        return f"expected rows, got {type(value).__name__}" if value else "it has no rows"
    if not all(isinstance(row, list | tuple) for row in value):
        return "a row is not a list"
    width = len(value[0])
    if any(len(row) != width for row in value):
        return "rows differ in length"
    if not 1 <= width <= LONGEST or len(value) > LONGEST:
        return f"its size is {len(value)}x{width}, at most {LONGEST}x{LONGEST} is allowed"
    if any(set(map(type, row)) != {int} or min(row) < 0 or max(row) > 9 for row in value):
        return "a cell is not a colour from 0 to 9"
    return ""


def _task(name: str, task: Any, solutions: Any, where: str) -> DataTask:
    if not isinstance(task, dict) or not isinstance(task.get("train"), list):
        raise InputError(f"{where} must be an object with 'train' and 'test', lists of pairs.")
    tests = task.get("test")
    if not isinstance(tests, list):
        raise InputError(f"{where} lacks 'test', a list of pairs.")
    if solutions is not None and (not isinstance(solutions, list) or len(solutions) != len(tests)):
        raise InputError(f"{where} has {len(tests)} tests, its solutions must be a list as long.")
    samples = [_sample(pair, "demo", f"{where} train[{i}]") for i, pair in enumerate(task["train"])]
    for i, pair in enumerate(tests):
        if solutions is not None and isinstance(pair, dict):
            pair = {**pair, "output": solutions[i]}
        samples.append(_sample(pair, "test", f"{where} test[{i}]"))
    return DataTask(name, tuple(samples), (f"solve_{name}", "solve"))


def _sample(pair: Any, part: str, where: str) -> Sample:
    if not isinstance(pair, dict) or "input" not in pair:
        raise InputError(f"{where} must be an object with 'input'.")
    expected = pair.get("output")
    if expected is None and part == "demo":
        raise InputError(f"{where} lacks its 'output'.")
    for name, grid in (("input", pair["input"]), ("output", expected)):
        if grid is not None and (fault := grid_fault(grid)):
            raise InputError(f"{where} {name} is not a grid: {fault}.")
    return Sample((pair["input"],), expected, part)
