"""Mutants are what the seed says, new, traceable to their parents, and readable as candidates."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from floodstage.core.errors import ConfigError, InputError
from floodstage.core.spans import Spans
from floodstage.programs.inputs.candidates import read_candidates, tasks_named_in
from floodstage.programs.mutate import Mutant, Mutation
from floodstage.programs.records import Candidate, source_digest
from floodstage.programs.stages.normal import normal_form, parse
from floodstage.programs.stages.prepare import prepare
from floodstage.programs.stages.purity import library_names

from .test_validate import said

Write = Callable[[str, Any], Path]
LIBRARY = """
def turn(g): return g
def flip(g): return g
def paint(g, colour): return g
def swap(g, one, two=3): return g
def _hidden(g): return g
def first(items, of): return items
"""
SOLVERS = """
from dsl import *

SIZE = 7

def solve_a(grid):
    x = turn(grid)
    y = flip(x)
    return paint(y, 5)

def solve_b(grid):
    best = first(grid, turn)
    return swap(best, 1)
"""
OFFERED = {"dsl": library_names(LIBRARY)}


@pytest.fixture
def parents(write: Write) -> list[Candidate]:
    path = write("solvers.py", SOLVERS)
    return list(read_candidates(path, tasks_named_in(path)))


def mutants(parents: list[Candidate], count: int, **changes: Any) -> list[Mutant]:
    return list(Mutation(parents, libraries={"dsl": LIBRARY}, **changes).take(count))


def test_a_seed_fixes_them_and_more_are_the_same_and_more(parents: list[Candidate]) -> None:
    few = mutants(parents, 30, seed=4)
    assert few == mutants(parents, 30, seed=4) == mutants(parents, 60, seed=4)[:30]
    assert few != mutants(parents, 30, seed=5)
    assert len(few) == 30
    assert Counter(x.task_id for x in few) == {"a": 15, "b": 15}


def test_none_is_like_another_or_like_a_parent(parents: list[Candidate]) -> None:
    found = mutants(parents, 200, seed=1)
    sources = [(x.task_id, x.source) for x in found] + [(x.task_id, x.source) for x in parents]
    forms = {(task, normal_form(text, parse(text), OFFERED).key) for task, text in sources}
    assert len(forms) == len(sources) == 202


def test_equal_ones_are_kept_if_wanted_and_found_before_anything_runs(
    parents: list[Candidate],
) -> None:
    mutation = Mutation(parents, 1, {"dsl": LIBRARY}, keep_equal=True)
    found = [*parents]
    found += [Candidate(str(i), x.task_id, x.source, "", f"solve_{x.task_id}")
              for i, x in enumerate(mutation.take(300))]  # fmt: skip
    ready = prepare(found, OFFERED, Spans())
    whys = Counter(p.verdict.detail.partition(" as ")[0] for p in ready if p.verdict)
    assert mutation.drawn == 300
    assert sum(whys.values()) == mutation.equal
    assert min(whys["the same text"], whys["the same form"]) > 0


def test_each_says_its_parent_and_what_was_changed(parents: list[Candidate]) -> None:
    """One change, undone by hand, gives the parent back."""
    by_id = {parent.id: parent for parent in parents}
    kinds = Counter[str]()
    for mutant in mutants(parents, 120, most_changes=1):
        parent = by_id[mutant.parent]
        assert mutant.parent_digest == source_digest(parent.source)
        assert mutant.task_id == parent.task_id
        (change,) = mutant.changes
        where, _, edit = change.partition(": ")
        old, new = edit.split(" -> ")
        line = parent.source.splitlines()[int(where.removeprefix("line ")) - 1]
        before = ast.unparse(ast.parse(line.strip()))
        after = [x.strip() for x in mutant.source.splitlines()]
        places = [i for i in range(len(before)) if before.startswith(old, i)]
        assert any(before[:i] + new + before[i + len(old) :] in after for i in places), change
        kinds[_kind(old, new)] += 1
    assert set(kinds) == {"constant", "name", "around", "left out"}


def _kind(old: str, new: str) -> str:
    if old.isdigit():
        return "constant"
    return "around" if old in new and "(" in new else "left out" if new in old else "name"


def test_a_constant_of_the_module_and_hidden_functions_stay(parents: list[Candidate]) -> None:
    for mutant in mutants(parents, 200, most_changes=3):
        assert "SIZE = 7" in mutant.source
        assert "_hidden" not in mutant.source


def test_a_program_with_few_mutants_ends(write: Write) -> None:
    path = write("s.py", "def solve_a(g):\n    return 3\n\ndef solve_b(g):\n    return g\n")
    given = list(read_candidates(path, tasks_named_in(path)))
    mutation = Mutation(given)
    assert {x.task_id for x in mutation.take(10**6)} == {"a"}
    assert mutation.equal > 0
    assert list(Mutation(given[1:]).take(5)) == []


def test_work_grows_with_the_count(parents: list[Candidate]) -> None:
    """Draws for each mutant stay few, so that time is linear."""
    for count in (100, 400):
        mutation = Mutation(parents, 0, {"dsl": LIBRARY}, most_changes=5)
        assert len(list(mutation.take(count))) == count
        assert mutation.drawn < 2 * count


def test_the_command_writes_what_validate_reads(write: Write, tmp_path: Path) -> None:
    path, library = write("solvers.py", SOLVERS), write("dsl.py", LIBRARY)
    words = ("mutate", path, "--preload", library, "--count", 25, "--out")
    code, out, err = said(*words, tmp_path / "one.jsonl", "--json")
    assert code == 0, err
    assert json.loads(out)["mutants"] == 25
    assert said(*words, tmp_path / "two.jsonl")[0] == 0
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    found = list(read_candidates(tmp_path / "one.jsonl", tasks_named_in(path)))
    assert len(found) == 25
    assert all("made from solvers:solve_" in x.origin and " -> " in x.origin for x in found)


def test_mistakes_are_said(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="most_changes"):
        Mutation([Candidate("a", "a", "x = 1", "")], most_changes=0)
    with pytest.raises(InputError, match="no program"):
        Mutation([])
    with pytest.raises(InputError, match=r"here is not Python"):
        list(Mutation([Candidate("a", "a", "def", "here")]).take(1))
    code, _, err = said("mutate", write("s.py", "x = 1"), "--out", tmp_path / "o.jsonl")
    assert (code, "names no task" in err) == (1, True)
