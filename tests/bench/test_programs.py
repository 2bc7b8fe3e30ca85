"""The bench of programs, small: both arms come to the same, tables are made of records alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from floodstage.bench.process_each import passed
from floodstage.bench.programs import (
    ALONE,
    CHECKED,
    COMPUTING,
    EACH,
    EMPTY,
    KILLS,
    OURS,
    TRIVIAL,
    ProgramsBenchConfig,
    against,
    programs_bench,
    summarise,
)
from floodstage.core.errors import ConfigError, InputError, RunError
from floodstage.core.metrics import Interval
from floodstage.programs.sandbox.lockdown import Level, best_level

ADD = {
    "task_id": "Own/0",
    "prompt": 'def add(a, b):\n    """The sum."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(f):\n    assert f(1, 2) == 3\n",
}


def test_a_process_for_each_sample_tells_right_from_wrong() -> None:
    assert passed("assert 1 + 1 == 2", 2.0)
    assert not passed("assert 1 + 1 == 3", 2.0)
    assert not passed("while True: pass", 0.2)
    assert not passed("import os\nos.kill(0, 0)", 2.0)
    assert not passed("raise SystemExit(0)", 2.0)


@pytest.mark.skipif(best_level() is not Level.STRICT, reason="this kernel lacks Landlock")
def test_a_run_is_measured_in_turns_and_goes_on(tmp_path: Path) -> None:
    problems = tmp_path / "p.jsonl"
    problems.write_text(json.dumps(ADD) + "\n")
    config = ProgramsBenchConfig(
        problems=str(problems), copies=2, trivial=4, computing=2, kills=2, repeats=1
    )
    shown = programs_bench(config, tmp_path / "run")
    path = tmp_path / "run" / "records.jsonl"
    lines = path.read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    arms = [(row["part"], row["arm"]) for row in rows]
    assert arms[:4] == [(CHECKED, OURS), (CHECKED, EACH), (CHECKED, EACH), (CHECKED, OURS)]
    assert arms[4:8] == [
        (COMPUTING, OURS),
        (COMPUTING, ALONE),
        (COMPUTING, ALONE),
        (COMPUTING, OURS),
    ]
    assert arms[8:] == [(TRIVIAL, OURS), (TRIVIAL, OURS), (EMPTY, OURS), (KILLS, OURS)]
    assert all(row["passed"] == row["programs"] for row in rows[:-2])
    assert rows[-2]["passed"] == 0
    assert all(0.0 <= x < 0.02 for x in rows[-1]["over_s"])
    assert isinstance(against(rows, CHECKED, OURS, EACH), Interval)
    assert shown == summarise(rows)
    path.write_text("".join(line + "\n" for line in lines[:5]) + lines[5][:9])
    programs_bench(config, tmp_path / "run")
    again = path.read_text().splitlines()
    assert again[:5] == lines[:5]
    assert len(again) == len(lines)
    with pytest.raises(RunError, match="another settings"):
        programs_bench(ProgramsBenchConfig(problems=str(problems), copies=1), tmp_path / "run")


def row(arm: str, number: int, seconds: float, digest: str = "a") -> dict[str, object]:
    return {
        **{"part": CHECKED, "arm": arm, "number": number, "programs": 10},
        **{"seconds": seconds, "digest": digest, "passed": 10},
    }


def test_a_speedup_needs_both_arms_and_the_same_verdicts() -> None:
    rows = [row(OURS, 0, 1.0), row(EACH, 0, 4.0), row(EACH, 1, 2.0), row(OURS, 1, 1.0)]
    found = against(rows, CHECKED, OURS, EACH)
    assert isinstance(found, Interval)
    assert (found.value, found.low, found.high) == (3.0, 2.0, 4.0)
    assert against(rows[:1], CHECKED, OURS, EACH) == "not measured"
    assert against([*rows, row(EACH, 2, 1.0, "b")], CHECKED, OURS, EACH) == "verdicts differ"
    (table,) = summarise(rows)
    assert table.rows[0] == (CHECKED, OURS, "2", "20 of 20", "10.0", "3.00 [2.00, 4.00]")


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    problems = tmp_path / "p.jsonl"
    problems.write_text(json.dumps({**ADD, "canonical_solution": None}) + "\n")
    with pytest.raises(InputError, match="expected HumanEval"):
        programs_bench(ProgramsBenchConfig(problems=str(problems)), tmp_path / "run")
    with pytest.raises(ConfigError, match="repeats must be at least 1"):
        ProgramsBenchConfig(problems="x", repeats=0)
