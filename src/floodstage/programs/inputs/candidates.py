"""Where programs are read from: samples, a module or folder of `solve_<task>`, loose files.

A sample's `completion` goes on from its task's prompt, a `solution` is whole. A module of
`solve_<task>` functions is cut into one program for each: everything but the other solvers.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from floodstage.core.errors import InputError
from floodstage.programs.inputs.files import Row, rows_of, text_of
from floodstage.programs.records import Candidate, CheckTask, DataTask, Task

SOLVER = "solve_"


def read_candidates(
    path: Path, tasks: Mapping[str, Task], *, libraries: Collection[Path] = ()
) -> Iterator[Candidate]:
    """The programs of a file or folder, in order, ids unique. Files that are `libraries` hold no
    programs. Raises InputError."""
    if path.is_dir():
        skipped = {library.resolve() for library in libraries}
        files = [x for x in sorted(path.rglob("*.py")) if x.resolve() not in skipped]
        if not files:
            raise InputError(f"{str(path)!r} holds no .py files.")
        for file in files:
            yield from _module(file, tasks, file.relative_to(path).with_suffix("").as_posix())
    elif path.suffix == ".py":
        yield from _module(path, tasks, path.stem)
    elif path.name.removesuffix(".gz").endswith(".jsonl"):
        yield from _samples(path, tasks)
    else:
        raise InputError(
            f"{str(path)!r} is no file of programs: expected .jsonl, .jsonl.gz, .py or a folder."
        )


def _samples(path: Path, tasks: Mapping[str, Task]) -> Iterator[Candidate]:
    for number, (where, row) in enumerate(rows_of(path)):
        name = row.get("task_id")
        if not isinstance(name, str | int) or str(name) not in tasks:
            raise InputError(f"{where}: no task {name!r} is among the {len(tasks)} that were read.")
        task = tasks[str(name)]
        given = [key for key in ("solution", "completion") if isinstance(row.get(key), str)]
        if not given:
            raise InputError(f"{where} needs 'completion' or 'solution', a string.")
        prompt = task.prompt if isinstance(task, CheckTask) and given[0] == "completion" else ""
        yield Candidate(f"{number}", task.id, prompt + row[given[0]], where + _lineage(row))


def _lineage(row: Row) -> str:
    """What a mutant's row says of its parent."""
    changes = row.get("changes")
    if not isinstance(row.get("parent"), str) or not isinstance(changes, list):
        return ""
    return f", made from {row['parent']}: {'; '.join(map(str, changes))}"


def tasks_named_in(path: Path) -> dict[str, Task]:
    """A task without samples for each `solve_<task>` function of a .py file or folder, for who
    reads programs and runs none. Raises InputError."""
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    names = [name for file in files if file.suffix == ".py" for name in _solvers(text_of(file))]
    if not names:
        raise InputError(f"{str(path)!r} names no task by a function {SOLVER}<task>: give tasks.")
    ids = [name.removeprefix(SOLVER) for name in names]
    return {x: DataTask(x, (), (f"{SOLVER}{x}",)) for x in ids}


def _module(path: Path, tasks: Mapping[str, Task], name: str) -> Iterator[Candidate]:
    """The programs of one file: one for each `solve_<task>` in it, or the whole file for the task
    that its name or a folder's name begins with."""
    source = text_of(path)
    solvers = _solvers(source)
    if len(solvers) > 1 or (solvers and _named_task(name, tasks) is None):
        yield from _cut(path, source, solvers, tasks, name)
        return
    task_id = _named_task(name, tasks)
    if task_id is None:
        raise InputError(
            f"{str(path)!r} belongs to no task: name the file, its folder or its function "
            f"{SOLVER}<task>, or begin the file's name with the task's id."
        )
    yield Candidate(name, task_id, source, repr(str(path)), next(iter(solvers), None))


def _named_task(name: str, tasks: Mapping[str, Task]) -> str | None:
    """The task that a path without suffix is about: its last part that names one."""
    for part in reversed(name.split("/")):
        word = part.removeprefix(SOLVER)
        for known in (word, word.partition("_")[0], word.partition("-")[0], word.partition(".")[0]):
            if known in tasks:
                return known
        slashed = word.replace("_", "/", 1)  # HumanEval/0 as HumanEval_0.py
        if slashed in tasks:
            return slashed
    return None


def _solvers(source: str) -> dict[str, ast.stmt]:
    """The top-level `solve_` functions; none where the file is not Python: its verdict says so."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(source).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return {}
    return {x.name: x for x in body if isinstance(x, ast.FunctionDef) and x.name.startswith(SOLVER)}


def _cut(
    path: Path, source: str, solvers: dict[str, ast.stmt], tasks: Mapping[str, Task], name: str
) -> Iterator[Candidate]:
    """A program for each solver whose task is known. Lines are kept where they were, so that an
    error's line is that of the file."""
    lines = source.split("\n")
    spans = {entry: _span(node) for entry, node in solvers.items()}
    wanted = [entry for entry in solvers if entry.removeprefix(SOLVER) in tasks]
    if not wanted:
        raise InputError(
            f"{str(path)!r}: none of its {len(solvers)} solvers ({next(iter(solvers))}, ...) "
            f"belongs to one of the {len(tasks)} tasks that were read."
        )
    for entry in wanted:
        first = spans[entry][0]
        kept = list(lines)
        for other, (start, end) in spans.items():
            if other != entry:
                kept[start:end] = [""] * (end - start)
        where = f"{str(path)!r} line {first + 1}"
        task_id = entry.removeprefix(SOLVER)
        yield Candidate(f"{name}:{entry}", task_id, "\n".join(kept).rstrip() + "\n", where, entry)


def _span(node: ast.stmt) -> tuple[int, int]:
    """Lines of a function, its decorators included, from 0 on and half open."""
    assert isinstance(node, ast.FunctionDef)
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return first - 1, node.end_lineno or first
