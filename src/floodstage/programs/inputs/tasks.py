"""Where tasks are read from: one name for a folder, a challenges file or a file of problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from floodstage.core.errors import InputError, unknown
from floodstage.programs.inputs.arc import CHALLENGES, read_challenges, read_folder
from floodstage.programs.inputs.problems import read_problems
from floodstage.programs.records import DataTask, Task

PARTS = ("all", "demo", "test")


def read_tasks(path: Path) -> dict[str, Task]:
    """Every task of `path` by its id, in order.

    A folder holds ARC tasks (`<id>.json`, or Kaggle's `*_challenges.json`) or HumanEval or MBPP
    files (`*.jsonl`, `*.jsonl.gz`); a file is one of these. Raises InputError.
    """
    if not path.exists():
        raise InputError(f"{str(path)!r} does not exist: expected a file or folder of tasks.")
    found: dict[str, Task] = {}
    for task in _read(path):
        if task.id in found:
            raise InputError(f"{str(path)!r} holds two tasks with the id {task.id!r}.")
        found[task.id] = task
    if not found:
        raise InputError(
            f"{str(path)!r} holds no tasks: expected <id>.json or *_challenges.json (ARC), "
            "or *.jsonl of problems (HumanEval, MBPP)."
        )
    return found


def only_part(tasks: Mapping[str, Task], part: str) -> dict[str, Task]:
    """The tasks with their samples of one of PARTS; a task with checks stays as it is, one without
    such samples is left out. Raises ConfigError, InputError."""
    if part not in PARTS:
        raise unknown("part", part, PARTS)
    if part == "all":
        return dict(tasks)
    found: dict[str, Task] = {}
    for task in tasks.values():
        if not isinstance(task, DataTask):
            found[task.id] = task
        elif has_part(task, part):
            kept = tuple(sample for sample in task.samples if sample.part == part)
            found[task.id] = replace(task, samples=kept)
    if not found:
        raise InputError(f"None of the {len(tasks)} tasks has {part} samples.")
    return found


def has_part(task: DataTask, part: str) -> bool:
    """Whether a task has samples of that part."""
    return any(sample.part == part for sample in task.samples)


def _read(path: Path) -> list[Task]:
    if path.is_file():
        return list(read_challenges(path) if CHALLENGES in path.name else read_problems(path))
    problems = sorted(p for p in path.iterdir() if p.name.endswith((".jsonl", ".jsonl.gz")))
    challenges = sorted(path.glob(f"*{CHALLENGES}.json"))
    if problems and challenges:
        raise InputError(f"{str(path)!r} holds both {challenges[0].name} and {problems[0].name}.")
    if problems:
        return [task for file in problems for task in read_problems(file)]
    if challenges:
        return [task for file in challenges for task in read_challenges(file)]
    return list(read_folder(path))
