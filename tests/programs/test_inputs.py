"""What is read is what was written, and what cannot be read says where and why."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from floodstage.core.errors import InputError
from floodstage.programs.inputs.arc import grid_fault
from floodstage.programs.inputs.candidates import read_candidates
from floodstage.programs.inputs.tasks import read_tasks
from floodstage.programs.records import CheckTask, DataTask

from .conftest import ADD, ASKED, FLIP, PAIR

Write = Callable[[str, Any], Path]
MBPP: dict[str, Any] = {
    "task_id": 7,
    "text": "t",
    "code": "def f(x):\n    return x",
    "test_setup_code": "import math",
    "test_list": ["assert f(1) == 1", "assert math.isclose(g(2), max(2, 1))"],
}

# -- tasks ------------------------------------------------------------------------------------


def test_a_folder_of_arc_tasks(write: Write) -> None:
    folder = write("tasks/flip.json", FLIP).parent
    (task,) = read_tasks(folder).values()
    assert isinstance(task, DataTask)
    assert task.entries == ("solve_flip", "solve")
    assert [(s.part, s.inputs, s.expected) for s in task.samples] == [
        ("demo", (PAIR["input"],), PAIR["output"]),
        ("test", (ASKED["input"],), ASKED["output"]),
    ]


def test_kaggle_challenges_take_their_solutions_from_beside_them(write: Write) -> None:
    unasked = {"train": [PAIR], "test": [{"input": ASKED["input"]}]}
    path = write("k/arc-agi_x_challenges.json", {"flip": unasked, "other": unasked})
    assert [s.expected for s in read_tasks(path)["flip"].samples] == [PAIR["output"], None]  # type: ignore[union-attr]
    write("k/arc-agi_x_solutions.json", {"flip": [ASKED["output"]]})
    for place in (path, path.parent):
        tasks = read_tasks(place)
        assert tasks["flip"].samples[1].expected == ASKED["output"]  # type: ignore[union-attr]
        assert tasks["other"].samples[1].expected is None  # type: ignore[union-attr]


def test_humaneval_plain_and_gzipped(write: Write, tmp_path: Path) -> None:
    plain = write("p.jsonl", [ADD])
    packed = tmp_path / "q.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_tasks(plain) == read_tasks(packed)
    task = read_tasks(plain)["Own/0"]
    assert isinstance(task, CheckTask)
    assert task.entries == ("add",)
    assert task.answer == ADD["prompt"] + ADD["canonical_solution"]


def test_mbpp_calls_what_nobody_defines(write: Write) -> None:
    task = read_tasks(write("m.jsonl", [MBPP]))["7"]
    assert isinstance(task, CheckTask)
    assert (task.entries, task.calls_check) == (("f", "g"), False)
    assert task.checks.startswith("import math\nassert f(1) == 1\n")
    asked = ['"""', "t", *MBPP["test_list"], '"""', ""]
    assert (task.prompt, task.question) == ("", "\n".join(asked))
    assert read_tasks(write("n.jsonl", [{**MBPP, "text": None}]))["7"].question == ""
    listed = write("m.json", json.dumps([{**MBPP, "test_imports": ["import math"]}]))
    assert read_tasks(listed)["7"] == task


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"task_id": 1}\n{oops\n', ["a.jsonl' line 1", "'entry_point'"]),
        ("b.jsonl", json.dumps(ADD) + "\n\n{oops\n", ["b.jsonl' line 3", "not JSON"]),
        ("c.jsonl", "[1]\n", ["c.jsonl' line 1", "list"]),
        ("d.jsonl", [{**ADD, "prompt": 3}], ["line 1", "'prompt'", "int"]),
        ("e.jsonl", [{**ADD, "test": "def check(:"}], ["line 1", "'test' is not Python"]),
        ("f.jsonl", [ADD, ADD], ["two tasks", "'Own/0'"]),
        ("g.jsonl", [{**MBPP, "test_list": ["assert 1"]}], ["line 1", "no function"]),
        ("h/x.json", {"train": [{"input": [[1]]}], "test": []}, ["x.json' train[0]", "'output'"]),
        ("i/x.json", {"train": [{"input": [[1], [1, 2]], "output": [[1]]}], "test": []},
         ["train[0] input", "rows differ"]),
        ("j/x.json", {"train": []}, ["lacks 'test'"]),
        ("k/readme.txt", "nothing", ["no tasks"]),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_where(
    write: Write, name: str, content: Any, words: list[str]
) -> None:
    path = write(name, content)
    with pytest.raises(InputError) as caught:
        read_tasks(path.parent if "/" in name else path)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_cut_gzip_is_an_error_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ADD).encode())[:-12])
    with pytest.raises(InputError, match=r"cut\.jsonl\.gz' cannot be read"):
        read_tasks(path)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ([[0, 9]], ""),
        (((1,), (2,)), ""),
        ([], "no rows"),
        ([[]], "its size"),
        ([[1], [1, 2]], "differ"),
        ([[True]], "colour"),
        ([[1.0]], "colour"),
        ([[10]], "colour"),
        ([[1] * 31], "its size"),
        ([1], "not a list"),
        (7, "got int"),
        ("ab", "got str"),
    ],
)
def test_a_grid_is_equal_rows_of_colours(value: Any, fault: str) -> None:
    found = grid_fault(value)
    assert bool(found) == bool(fault)
    assert fault in found


# -- programs ---------------------------------------------------------------------------------


def test_samples_go_on_from_the_prompt_or_are_whole(write: Write) -> None:
    tasks = read_tasks(write("p.jsonl", [ADD]))
    rows = [
        {"task_id": "Own/0", "completion": "    return 3\n"},
        {"task_id": "Own/0", "solution": "def add(a, b): return 3"},
    ]
    path = write("s.jsonl", rows)
    first, second = read_candidates(path, tasks)
    assert first.source == ADD["prompt"] + "    return 3\n"
    assert second.source == rows[1]["solution"]
    assert (first.id, second.id) == ("0", "1")
    assert "line 2" in second.origin


def test_a_sample_of_no_task_says_so(write: Write) -> None:
    tasks = read_tasks(write("p.jsonl", [ADD]))
    for row, words in (({"task_id": "X"}, "no task 'X'"), ({"task_id": "Own/0"}, "completion")):
        with pytest.raises(InputError, match=words):
            list(read_candidates(write("s.jsonl", [row]), tasks))


SOLVERS = """from dsl import *

@deco
def solve_flip(I):
    return flip(I)

K = 3

def solve_other(I):
    return 1 / 0

def solve_unknown(I):
    pass
"""


def test_a_module_of_solvers_is_cut_into_programs(write: Write) -> None:
    tasks = read_tasks(write("tasks/flip.json", FLIP).parent) | {"other": DataTask("other", (), ())}
    flip, other = read_candidates(write("solvers.py", SOLVERS), tasks)
    assert (flip.id, flip.task_id, flip.entry) == ("solvers:solve_flip", "flip", "solve_flip")
    assert "K = 3" in flip.source
    assert "from dsl import *" in flip.source
    assert "other" not in flip.source
    assert "@deco" in flip.source
    assert "@deco" not in other.source
    assert other.source.split("\n")[9] == "    return 1 / 0"  # the line is that of the file


def test_loose_files_find_their_task_by_name_or_folder(write: Write) -> None:
    tasks = read_tasks(write("tasks/flip.json", FLIP).parent)
    for name in ("flip.py", "solve_flip.py", "flip_a.py", "solve_flip/900/x.py"):
        write(f"loose/{name}", "def solve(I): return I")
    write("loose/dsl.py", "")
    write("loose/flip/broken.py", "def (")
    where = write("loose/any.py", "def solve_flip(I): return I")
    found = list(read_candidates(where.parent, tasks, libraries=[where.parent / "dsl.py"]))
    assert {c.task_id for c in found} == {"flip"}
    assert len({c.id for c in found}) == 6
    with pytest.raises(InputError, match="belongs to no task"):
        list(read_candidates(where.parent, tasks))


# -- real data --------------------------------------------------------------------------------


def test_all_of_humaneval(humaneval: Path) -> None:
    tasks = read_tasks(humaneval)
    assert len(tasks) == 164
    assert all(isinstance(t, CheckTask) and t.answer for t in tasks.values())


def test_all_of_arc(arc: Path) -> None:
    tasks = read_tasks(arc)
    assert len(tasks) == 400
    assert sum(len(t.samples) for t in tasks.values()) == 1718  # type: ignore[union-attr]
