"""What can be done with a store: keep the best, sweep, run again, compare, hand on as Parquet."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from floodstage.core.errors import ConfigError, InputError, RunError
from floodstage.programs.inputs.tasks import only_part, read_tasks
from floodstage.programs.records import Candidate, DataTask, Kind, Task, Trial, Verdict
from floodstage.programs.store.compare import compare
from floodstage.programs.store.parquet import write_parquet
from floodstage.programs.store.store import Store
from floodstage.programs.store.upkeep import sweep
from floodstage.programs.validate import Selection, write_outputs
from floodstage.programs.verify import verifiable, verify

from .conftest import FLIP
from .test_validate import FLIPPERS, flippers, run, said

Write = Callable[[str, Any], Path]


@pytest.fixture
def flip(write: Write) -> dict[str, Task]:
    return read_tasks(write("tasks/flip.json", FLIP).parent)


def change(folder: Path, *statements: str) -> None:
    base = sqlite3.connect(folder / "verdicts.sqlite")
    with base:
        for statement in statements:
            base.execute(statement)
    base.close()


def ranked(name: str, demo: int, test: int, cells: float = 0.0, cpu_s: float = 0.1) -> Verdict:
    kind = Kind.PASSED if demo + test == 5 else Kind.WRONG
    return Verdict(name, "t", kind, demo_passed=demo, demo_total=3, test_passed=test,
                   test_total=2, cells=cells, cpu_s=cpu_s)  # fmt: skip


# -- keeping ----------------------------------------------------------------------------------


def test_the_best_are_kept_and_test_answers_rank_nothing(tmp_path: Path) -> None:
    """In order: demo samples, likeness, speed, size. Verdicts stay, so nothing runs twice."""
    made = [
        ranked("test alone", 0, 2),
        ranked("demo", 3, 0),
        ranked("near", 1, 2, cells=0.9),
        ranked("far", 1, 2, cells=0.2),
        ranked("slow", 1, 2, cells=0.9, cpu_s=2.0),
    ]
    with Store(tmp_path, {}) as store:
        for verdict in made:
            one = Candidate(verdict.candidate_id, "t", f"x = {verdict.candidate_id!r}", "here")
            store.add(one, verdict, [Trial(Kind.WRONG, output="[[1]]")])
        again = Candidate("twin", "t", "x = 'demo'", "here")
        store.add(again, Verdict("twin", "t", Kind.DUPLICATE, duplicate_of="demo"))
    for keep, left in ((3, {"demo", "near", "slow"}), (2, {"demo", "near"})):
        with Store(tmp_path) as store:
            found = sweep(store, keep)
            assert found.programs_after == len(left)
            assert {c.id for c in store.candidates()} - {"twin"} == left
            assert {v.candidate_id for v in made if store.trials(v.candidate_id)} == left
            assert len(store.done()) == len(list(store.verdicts())) == 6
            with pytest.raises(RunError, match="not among the best"):
                store.source("test alone")
    with Store(tmp_path) as store, pytest.raises(ConfigError, match="keep"):
        sweep(store, 0)


def test_a_run_that_was_swept_goes_on(flip: dict[str, Task], tmp_path: Path) -> None:
    run(flippers(), flip, tmp_path)
    with Store(tmp_path) as store:
        sweep(store, 1)
    change(tmp_path, "UPDATE verdicts SET cpu_s = 77")
    found = run(flippers(), flip, tmp_path)
    assert {v.cpu_s for v in found.values()} == {77}
    assert len(write_outputs(tmp_path, "x", flip, flippers())) == 2


def test_programs_of_no_verdict_are_swept(flip: dict[str, Task], tmp_path: Path) -> None:
    run(flippers()[:2], flip, tmp_path)
    run([Candidate("right", "flip", FLIPPERS["wrong"], "here")], flip, tmp_path)
    change(tmp_path, "INSERT INTO trials (candidate_id, sample) VALUES ('nobody', 0)")
    code, out, err = said("gc", tmp_path, "--json")
    assert (code, json.loads(out)["programs_before"], json.loads(out)["programs_after"]) == (
        0, 3, 2,
    ), err  # fmt: skip
    with Store(tmp_path) as store:
        assert {c.source for c in store.candidates()} == {FLIPPERS["wrong"], FLIPPERS["lists too"]}
        assert store.trials("nobody") == []


# -- running again ----------------------------------------------------------------------------


def test_what_does_not_come_again_is_found(flip: dict[str, Task], tmp_path: Path) -> None:
    run(flippers(), flip, tmp_path)
    chosen = verifiable(tmp_path, Selection())
    assert {c.id for c in chosen} == set(FLIPPERS) - {"again"}
    assert verify(tmp_path, chosen, flip).changed == ()
    change(
        tmp_path,
        "UPDATE verdicts SET kind = 'passed' WHERE candidate_id = 'wrong'",
        "UPDATE trials SET output = '[[0]]' WHERE candidate_id = 'right' AND sample = 1",
    )
    found = verify(tmp_path, chosen, flip)
    assert {(x.first, x.what, x.before, x.after) for x in found.changed} == {
        ("wrong", "verdict", Kind.PASSED, Kind.WRONG),
        ("right", "output", Kind.PASSED, Kind.PASSED),
    }
    with Store(tmp_path) as store:  # the run itself is as it was
        assert next(v for v in store.verdicts() if v.candidate_id == "wrong").passed


def test_a_function_s_own_name_is_kept_for_running_again(write: Write, tmp_path: Path) -> None:
    tasks: dict[str, Task] = {
        "flip": DataTask("flip", read_tasks(write("t/flip.json", FLIP).parent)["flip"].samples, ())  # type: ignore[union-attr]
    }
    given = [Candidate("a", "flip", "def mine(I):\n    return I[::-1]", "here", "mine")]
    assert run(given, tasks, tmp_path / "run")["a"].passed
    found = verify(tmp_path / "run", verifiable(tmp_path / "run", Selection()), tasks)
    assert (found.same, found.changed) == (1, ())


def test_other_tasks_are_refused_before_anything_runs(
    flip: dict[str, Task], write: Write, tmp_path: Path
) -> None:
    run(flippers()[:1], flip, tmp_path / "run")
    other = read_tasks(write("other/flip.json", {**FLIP, "test": []}).parent)
    heard: list[Verdict] = []
    with pytest.raises(RunError, match="another tasks"):
        verify(tmp_path / "run", flippers()[:1], other, report=heard.append)
    assert not heard


def test_verify_and_compare_as_commands(flip: dict[str, Task], tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(flippers()[: 6 if name == "one" else 5], flip, tmp_path / name)
    words = ("verify", tmp_path / "one", "--tasks", tmp_path / "tasks")
    code, out, err = said(*words)
    assert (code, "6 programs were run again; 0 came to" in out) == (0, True), err
    change(tmp_path / "one", "UPDATE verdicts SET kind = 'timeout' WHERE candidate_id = 'right'")
    code, out, _ = said(*words)
    assert (code, "right for flip: timeout -> passed" in out) == (1, True)
    code, out, _ = said("compare", tmp_path / "one", tmp_path / "two")
    assert code == 0
    assert out.startswith("4 programs as before, 1 changed, 1 only in")
    assert "right for flip: timeout -> passed" in out
    code, _, err = said("compare", tmp_path / "one", tmp_path / "none")
    assert (code, "no run folder" in err, (tmp_path / "none").exists()) == (1, True, False)


def test_programs_are_compared_by_text_whatever_their_ids(tmp_path: Path) -> None:
    """A duplicate counts as its original."""
    for name, ids in (("one", "abc"), ("two", "xyz")):
        with Store(tmp_path / name, {}) as store:
            store.add(Candidate(ids[0], "t", "p", ""), Verdict(ids[0], "t", Kind.PASSED))
            store.add(Candidate(ids[1], "t", "q", ""),
                      Verdict(ids[1], "t", Kind.DUPLICATE, duplicate_of=ids[0])
                      if name == "one" else Verdict(ids[1], "t", Kind.PASSED))  # fmt: skip
            store.add(Candidate(ids[2], "u", "p", ""), Verdict(ids[2], "u", Kind.CRASH))
    with Store(tmp_path / "one") as one, Store(tmp_path / "two") as two:
        assert (compare(one, two).same, compare(one, two).changed) == (3, ())


# -- files and options ------------------------------------------------------------------------


def test_parquet_holds_every_verdict_and_trial(flip: dict[str, Task], tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    run(flippers(), flip, tmp_path)
    with Store(tmp_path) as store:
        assert write_parquet(store, tmp_path / "v.parquet") == len(FLIPPERS)
        count = write_parquet(store, tmp_path / "t.parquet", trials=True)
        verdicts = {v.candidate_id: v for v in store.verdicts()}
        trials = [(v, i, t) for v in verdicts for i, t in enumerate(store.trials(v))]
        identity = store.identity()
    table = pq.read_table(tmp_path / "v.parquet")
    for row in table.to_pylist():
        verdict = verdicts[row["candidate_id"]]
        assert all(row[name] == getattr(verdict, name) for name in verdict.__dataclass_fields__)
        assert row["size_bytes"] == len(FLIPPERS[verdict.candidate_id])
    assert json.loads(table.schema.metadata[b"floodstage"]) == identity
    rows = pq.read_table(tmp_path / "t.parquet").to_pylist()
    assert len(rows) == count == len(trials) > len(FLIPPERS)
    for row, (name, sample, trial) in zip(rows, trials, strict=True):
        assert (row["candidate_id"], row["sample"], row["task_id"]) == (name, sample, "flip")
        assert all(row[x] == getattr(trial, x) for x in trial.__dataclass_fields__)


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with Store(tmp_path, {}) as store, pytest.raises(ConfigError, match=r"floodstage\[parquet\]"):
        write_parquet(store, tmp_path / "v.parquet")


def test_samples_of_one_part_alone(flip: dict[str, Task], tmp_path: Path) -> None:
    given = [Candidate("a", "flip", FLIPPERS["the demo only"], "here")]
    for part, kind, totals in (("demo", Kind.PASSED, (1, 0)), ("test", Kind.WRONG, (0, 1))):
        tasks = only_part(flip, part)
        found = run(given, tasks, tmp_path / part)["a"]
        assert (found.kind, (found.demo_total, found.test_total)) == (kind, totals)
        written = [path.name for path in write_outputs(tmp_path / part, "x", tasks, given)]
        assert ("submission.json" in written) == (part == "test")
    with pytest.raises(ConfigError, match="Unknown part 'tests'"):
        only_part(flip, "tests")
    with pytest.raises(InputError, match="None of the 1 tasks has test samples"):
        only_part(only_part(flip, "demo"), "test")


def test_a_run_without_cache_runs_all_again(flip: dict[str, Task], tmp_path: Path) -> None:
    run(flippers()[:1], flip, tmp_path)
    change(tmp_path, "UPDATE verdicts SET kind = 'wrong'")
    assert run(flippers()[:1], flip, tmp_path)["right"].kind is Kind.WRONG
    assert run(flippers()[:1], flip, tmp_path, cached=False)["right"].passed
    assert run(flippers()[:1], flip, tmp_path)["right"].passed
