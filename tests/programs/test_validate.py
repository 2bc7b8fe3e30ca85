"""From files to verdicts: what is run, what is kept, what survives, what is written."""

# ruff: noqa: E501  (programs as data)

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from floodstage.core.errors import ConfigError, InputError, RunError
from floodstage.core.spans import Spans
from floodstage.programs.inputs.candidates import read_candidates
from floodstage.programs.inputs.tasks import read_tasks
from floodstage.programs.records import Candidate, Kind, Task, Trial, Verdict, source_digest
from floodstage.programs.sandbox import engines
from floodstage.programs.sandbox.limits import Limits
from floodstage.programs.sandbox.lockdown import best_level
from floodstage.programs.sandbox.wire import frame
from floodstage.programs.store.export import speed_of
from floodstage.programs.store.outputs import (
    EMPTY,
    pass_at_k,
    pass_rates,
    result_rows,
    submission,
)
from floodstage.programs.store.store import Store
from floodstage.programs.validate import Selection, ValidateConfig, validate, write_outputs

from .conftest import ADD, FLIP

Write = Callable[[str, Any], Path]
ROOT = Path(__file__).resolve().parents[2]
QUICK = Limits(cpu_s=0.3, idle_s=1.0)


def config(**changes: Any) -> ValidateConfig:
    given = {"workers": 1, "limits": QUICK, "isolation": best_level().value}
    return ValidateConfig(**(given | changes))


def run(
    candidates: list[Candidate], tasks: dict[str, Task], out: Path, **changes: Any
) -> dict[str, Verdict]:
    found: list[Verdict] = []
    validate(candidates, tasks, out, config(**changes), Spans(), found.append)
    assert len(found) == len(candidates)
    return {verdict.candidate_id: verdict for verdict in found}


@pytest.fixture
def flip(write: Write) -> dict[str, Task]:
    return read_tasks(write("tasks/flip.json", FLIP).parent)


FLIPPERS = {
    "right": "def solve(I):\n    return I[::-1]",
    "lists too": "def solve_flip(I):\n    return [list(r) for r in reversed(I)]",
    "the demo only": "def solve(I):\n    return [[3, 4], [1, 2]]",
    "wrong": "def solve(I):\n    return I",
    "no grid": "def solve(I):\n    return [[1], [1, 2]]",
    "raises": "def solve(I):\n    return I[9]",
    "no python": "def solve(",
    "loops": "def solve(I):\n    while True: pass",
    "again": "def solve(grid):\n    return grid[::-1]",
    "mutates": "def solve(I):\n    I.reverse()\n    return I",
}


def flippers() -> list[Candidate]:
    return [Candidate(name, "flip", source, "here") for name, source in FLIPPERS.items()]


def test_grids_are_judged_outside(flip: dict[str, Task], tmp_path: Path) -> None:
    found = run(flippers(), flip, tmp_path / "run")
    assert {name: str(v.kind) for name, v in found.items()} == {
        "right": "passed",
        "lists too": "passed",
        "the demo only": "wrong",
        "wrong": "wrong",
        "no grid": "invalid_output",
        "raises": "exception",
        "no python": "syntax",
        "loops": "timeout",
        "again": "duplicate",
        "mutates": "passed",
    }
    assert found["again"].duplicate_of == "right"
    half = found["the demo only"]
    assert (half.demo_passed, half.demo_total, half.test_passed, half.test_total) == (1, 1, 0, 1)
    assert (found["raises"].error, found["raises"].line) == ("IndexError", 2)
    assert found["right"].form == "shared"
    assert "While" in found["loops"].form


def test_expected_answers_are_in_no_job(
    flip: dict[str, Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that leaves the driver, byte for byte."""
    sent: list[bytes] = []
    monkeypatch.setattr(engines, "frame", lambda payload: sent.append(payload) or frame(payload))
    run(flippers()[:1], flip, tmp_path)
    assert any(b"[[5,6],[7,8]]" in payload for payload in sent)
    assert not any(b"[[7,8],[5,6]]" in x or b"[[3,4],[1,2]]" in x for x in sent)


def test_tuples_and_a_preloaded_library(write: Write, flip: dict[str, Task]) -> None:
    library = write(
        "dsl.py", "def hmirror(grid):\n    return grid[::-1]\n\ndef twice(f, x): return f(f(x))\n"
    )
    module = write(
        "solvers.py",
        "from dsl import *\n\ndef solve_flip(I):\n    assert type(I) is tuple\n    return hmirror(I)\n",
    )
    found = run(
        list(read_candidates(module, flip)), flip, library.parent / "run", preload=(library,),
        tuples=True,
    )  # fmt: skip
    assert [v.kind for v in found.values()] == [Kind.PASSED]


def test_forms_are_run_beside_their_programs(write: Write, flip: dict[str, Task]) -> None:
    """A library that is not as pure as was said: the row says that the form disagrees."""
    library = write("dsl.py", "N = []\ndef count(x):\n    N.append(1)\n    return len(N)\n")
    sources = {
        "pure": "def solve(I):\n    return I[::-1]",
        "raw": "def solve(I):\n    for _ in I: pass\n    return I[::-1]",
        "not": "from dsl import *\ndef solve(I):\n    return [[count(I), count(I)]]",
    }
    given = [Candidate(name, "flip", text, "here") for name, text in sources.items()]
    found = run(given, flip, library.parent / "run", preload=(library,), check_forms=True)
    assert found["pure"].form == "shared"
    assert "For" in found["raw"].form
    assert found["not"].form.startswith("disagrees on sample 0")


def test_problems_with_checks(write: Write) -> None:
    tasks = read_tasks(write("p.jsonl", [ADD]))
    bodies = ["    return a + b\n", "    return None\n", "    return 1 / 0\n"]
    rows = [{"task_id": "Own/0", "completion": body} for body in bodies]
    path = write("s.jsonl", rows)
    found = run(list(read_candidates(path, tasks)), tasks, path.parent / "run")
    assert [str(v.kind) for v in found.values()] == ["passed", "wrong", "exception"]
    assert found["2"].line == 3


def test_a_run_goes_on_and_runs_nothing_twice(flip: dict[str, Task], tmp_path: Path) -> None:
    first = run(flippers()[:3], flip, tmp_path)
    with sqlite3.connect(tmp_path / "verdicts.sqlite") as base:
        base.execute("UPDATE verdicts SET cpu_s = 77 WHERE candidate_id = 'right'")
    base.close()
    second = run(flippers(), flip, tmp_path)
    assert second["right"].cpu_s == 77
    assert set(second) == set(FLIPPERS) > set(first)
    changed = [Candidate("right", "flip", FLIPPERS["wrong"], "here")]
    assert run(changed, flip, tmp_path)["right"].kind is Kind.WRONG


def test_failures_of_ours_are_run_again(flip: dict[str, Task], tmp_path: Path) -> None:
    run(flippers()[:1], flip, tmp_path)
    with sqlite3.connect(tmp_path / "verdicts.sqlite") as base:
        base.execute("UPDATE verdicts SET kind = 'infra'")
    base.close()
    assert run(flippers()[:1], flip, tmp_path)["right"].kind is Kind.PASSED


def test_a_store_belongs_to_one_setting(flip: dict[str, Task], tmp_path: Path) -> None:
    run(flippers()[:1], flip, tmp_path)
    with pytest.raises(RunError, match="another limits"):
        run(flippers()[:1], flip, tmp_path, limits=Limits(cpu_s=0.4))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "verdicts.sqlite").write_text("no database, but long enough " * 9)
    with pytest.raises(RunError, match="cannot be used"):
        run(flippers()[:1], flip, tmp_path / "other")


def test_a_killed_run_goes_on_without_loss(write: Write, tmp_path: Path) -> None:
    """kill -9 of the driver at several moments; in the end every verdict is there once."""
    tasks = write("tasks/flip.json", FLIP).parent
    for i in range(300):
        write(f"many/flip_{i:03}.py", f"def solve(I):\n    for _ in range({i}): pass\n    return I")
    words = [sys.executable, "-c", "from floodstage.cli.main import main; main()", "programs", "validate",
             str(tmp_path / "many"), "--tasks", str(tasks), "--out", str(tmp_path / "run"), "--workers", "1",
             "--isolation", best_level().value, "--json"]  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    for wait_s in (0.9, 1.2, 1.5):
        process = subprocess.Popen(
            words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(wait_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout.splitlines()[-1])["verdicts"] == {"wrong": 300}
    with sqlite3.connect(tmp_path / "run" / "verdicts.sqlite") as base:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        counts = base.execute("SELECT count(*), count(DISTINCT candidate_id) FROM verdicts")
        assert counts.fetchone() == (300, 300)
        assert base.execute("SELECT count(*) FROM trials").fetchone() == (600,)
    base.close()


def test_sources_are_kept_once_and_come_back(tmp_path: Path) -> None:
    with Store(tmp_path, {}) as store:
        for name in ("a", "b"):
            candidate = Candidate(name, "t", "x = '\ud800'\n", "here")
            store.add(candidate, Verdict(name, "t", Kind.WRONG), [Trial(Kind.WRONG)])
    with Store(tmp_path) as store:
        assert store.source("b") == "x = '\ud800'\n"
        assert store.base.execute("SELECT count(*) FROM sources").fetchone() == (1,)
        assert [v.kind for v in store.verdicts()] == [Kind.WRONG] * 2
        assert store.trials("a") == [Trial(Kind.WRONG)]
        with pytest.raises(RunError, match="no candidate 'c'"):
            store.source("c")


# -- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "right", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 2), (5, 1, 5)]
)
def test_pass_at_k_is_the_share_of_all_choices(n: int, right: int, k: int) -> None:
    choices = list(combinations(range(n), k))
    share = sum(any(i < right for i in choice) for choice in choices) / len(choices)
    assert math.isclose(pass_at_k(n, right, k), share, abs_tol=1e-12)


def test_pass_rates_count_duplicates_and_not_our_failures() -> None:
    verdicts = [
        Verdict("a", "t", Kind.PASSED),
        Verdict("b", "t", Kind.DUPLICATE, duplicate_of="a"),
        Verdict("c", "t", Kind.WRONG),
        Verdict("d", "t", Kind.INFRA),
        Verdict("e", "u", Kind.WRONG),
        Verdict("f", "u", Kind.TIMEOUT),
    ]
    rates = pass_rates(verdicts, (1, 2, 3))
    assert set(rates) == {"pass@1", "pass@2"}
    assert math.isclose(rates["pass@1"], (2 / 3 + 0) / 2)
    words = [(row["result"], row["passed"], row["verdict"]) for row in result_rows(verdicts)]
    assert words[1] == ("passed", True, "duplicate")
    assert words[5] == ("timed out", False, "timeout")


def test_a_submission_ranks_on_demo_pairs_only(flip: dict[str, Task], tmp_path: Path) -> None:
    """Two programs that are right on the demo beat one that is right on the test alone."""
    right = "[[3, 4], [1, 2]]"
    sources = {
        "test only": "def solve(I):\n    return [[7, 8], [5, 6]]",
        "demo a": f"def solve(I):\n    return {right} if I[0][0] == 1 else [[1]]",
        "demo b": f"def solve(I):\n    return {right} if I[0][0] == 1 else [[1]] * 1",
        "demo c": f"def solve(I):\n    return {right} if I[0][0] == 1 else [[2]]",
    }
    candidates = [Candidate(name, "flip", text, "here") for name, text in sources.items()]
    run(candidates, flip, tmp_path)
    written = write_outputs(tmp_path, "x", flip, candidates)
    assert [path.name for path in written] == ["x_results.jsonl", "submission.json"]
    made = json.loads((tmp_path / "submission.json").read_text())
    assert made == {"flip": [{"attempt_1": [[1]], "attempt_2": [[2]]}]}
    rows = [json.loads(line) for line in (tmp_path / "x_results.jsonl").read_text().splitlines()]
    assert [row["candidate"] for row in rows] == list(sources)
    assert rows[1]["solution"] == sources["demo a"]


def test_a_submission_has_every_task_and_both_attempts(flip: dict[str, Task]) -> None:
    assert submission(flip, [], lambda x: [], len) == {
        "flip": [{"attempt_1": EMPTY, "attempt_2": EMPTY}]
    }


# -- options ----------------------------------------------------------------------------------


def test_selection() -> None:
    every = [Candidate(str(i), "ab"[i % 2], "", "") for i in range(20)]
    assert [c.id for c in Selection(tasks=("b",), start=2, count=3).of(every)] == ["5", "7", "9"]
    drawn = Selection(count=-5, seed=4).of(every)
    assert drawn == Selection(count=-5, seed=4).of(every) != Selection(count=-5, seed=5).of(every)
    assert len(drawn) == 5
    assert [every.index(c) for c in drawn] == sorted(every.index(c) for c in drawn)
    assert [c.id for c in Selection(tasks=("b",), ids=("7", "4", "3")).of(every)] == ["3", "7"]
    with pytest.raises(InputError, match="No candidate is for the task 'c'"):
        Selection(tasks=("c",)).of(every)
    with pytest.raises(InputError, match="No candidate has the id '77'"):
        Selection(ids=("77",)).of(every)


def test_settings_have_bounds() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'strict'"):
        config(isolation="stric")
    with pytest.raises(ConfigError, match="workers"):
        config(workers=0)


# -- the command ------------------------------------------------------------------------------


def said(*words: object) -> tuple[int, str, str]:
    """The command line in an interpreter in which torch cannot be imported."""
    code = "import sys; sys.modules['torch'] = None; from floodstage.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "programs", *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_the_command_works_without_torch(write: Write, tmp_path: Path) -> None:
    tasks = write("tasks/flip.json", FLIP).parent
    write("loose/flip_a.py", FLIPPERS["right"])
    loose = write("loose/flip_b.py", FLIPPERS["wrong"]).parent
    words = (
        "validate",
        loose,
        "--tasks",
        tasks,
        "--out",
        tmp_path / "run",
        "--isolation",
        best_level(),
    )
    code, out, err = said(*words, "--dry-run")
    assert (code, "2  to run" in out, (tmp_path / "run").exists()) == (0, True, False), err
    code, out, err = said(*words)
    assert code == 0, err
    assert "1  passed" in out
    assert "unaccounted" in out
    code, out, err = said(*words, "--json")
    about = json.loads(out)
    assert (code, about["verdicts"]) == (0, {"passed": 1, "wrong": 1})
    rows = [row for row in about["profile"] if row["kind"] == "wall"]
    assert {row["kind"] for row in about["profile"][len(rows) :]} >= {"CPU", "latency sum"}
    assert abs(sum(r["self_s"] for r in rows) - rows[0]["seconds"]) < 1e-3


def test_explain_says_why(flip: dict[str, Task], tmp_path: Path) -> None:
    run(flippers(), flip, tmp_path)
    code, out, err = said("explain", tmp_path, "raises", "--source")
    assert code == 0, err
    for words in ("raises for flip: exception in line 2", "IndexError", "sample 1:", "I[9]"):
        assert words in out
    assert "a While" in said("explain", tmp_path, "loops")[1]
    assert json.loads(said("explain", tmp_path, "again", "--json")[1])["duplicate_of"] == "right"
    code, _, err = said("explain", tmp_path, "nobody")
    assert (code, "no candidate 'nobody'" in err) == (1, True)
    assert said("explain", tmp_path / "x", "a")[0] == 1


def test_the_best_programs_become_a_folder_that_can_be_moved(
    flip: dict[str, Task], tmp_path: Path
) -> None:
    run(flippers(), flip, tmp_path / "run")
    code, out, err = said("export", tmp_path / "run", "--to", tmp_path / "a", "--keep", 3)
    assert (code, out.split()[0]) == (0, "3"), err
    (tmp_path / "a").rename(tmp_path / "b")
    links = sorted((tmp_path / "b" / "solve_flip").rglob("*.py"))
    assert [link.relative_to(tmp_path / "b").parts[1] for link in links] == ["2000"] * 3
    texts = {link.read_text() for link in links}
    assert texts == {FLIPPERS[name] for name in ("right", "lists too", "mutates")}
    assert {source_digest(link.read_text()) for link in links} == {link.stem for link in links}
    assert said("export", tmp_path / "run", "--to", tmp_path / "c", "--keep", 0)[0] == 2
    assert said("export", tmp_path / "run", "--to", tmp_path / "c", "--keep", 9)[1].startswith("4 ")


def test_a_step_of_speed_is_a_factor_of_e() -> None:
    assert [speed_of(math.exp(-n) * 1.01) for n in (0, 1, 5, 8)] == [11, 12, 16, 19]
    assert speed_of(0.0) == speed_of(1e-9) == 20


def test_mistakes_are_one_sentence(write: Write, tmp_path: Path) -> None:
    tasks = write("tasks/flip.json", FLIP).parent
    given = ("validate", tmp_path / "x.jsonl", "--tasks", tasks, "--out", tmp_path / "run")
    for words, code, message in (
        (given, 1, "cannot be read"),
        ((*given, "--isolation", "high"), 2, "Unknown isolation 'high'"),
        ((*given, "--cpu", 0), 2, "cpu_s must be at least"),
        (("selftest", "--isolation", "x"), 2, "Unknown isolation"),
    ):
        found, _, err = said(*words)
        assert (found, message in err, "Traceback" in err) == (code, True, False), err


def test_the_self_test_command_says_the_level() -> None:
    code, out, _ = said("selftest", "--json")
    assert (code, json.loads(out)["level"]) == (0, best_level().value)


# -- real data --------------------------------------------------------------------------------


def test_all_of_humaneval_in_split_mode(humaneval: Path, tmp_path: Path) -> None:
    tasks = read_tasks(humaneval)
    given = [Candidate(f"right {t.id}", t.id, t.answer, "") for t in tasks.values()]  # type: ignore[union-attr]
    given += [
        Candidate(f"none {t.id}", t.id, t.prompt + "    return None\n", "")  # type: ignore[union-attr]
        for t in tasks.values()
    ]
    found = run(given, tasks, tmp_path, workers=2, limits=Limits(cpu_s=3.0))
    counts = Counter((name.split()[0], v.kind) for name, v in found.items())
    assert counts == {("right", Kind.PASSED): 164, ("none", Kind.WRONG): 164}
