"""Where the time went, and the three ways in which published clocks misled."""

# ruff: noqa: E501  (programs as data)

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from floodstage.core.chrome import chrome_trace
from floodstage.core.errors import RunError
from floodstage.core.spans import Spans, process_age_s
from floodstage.programs.inputs.tasks import read_tasks
from floodstage.programs.profile import (
    CPU,
    LATENCY,
    SELF,
    WALL,
    WORKERS,
    Measured,
    concurrency,
    measured,
    read_measured,
    rows_of,
    speedup,
    table,
    write_profile,
)
from floodstage.programs.records import Candidate, Kind, Verdict, verdicts_digest
from floodstage.programs.sandbox.limits import Limits
from floodstage.programs.sandbox.lockdown import best_level
from floodstage.programs.sandbox.tickets import Work
from floodstage.programs.validate import ValidateConfig, validate

from .conftest import FLIP

Write = Callable[[str, Any], Path]
ROOT = Path(__file__).resolve().parents[2]


class Clock:
    """Ticks that a test sets."""

    now = 10.0

    def __call__(self) -> float:
        return self.now


def timed(tree: dict[str, Any], clock: Clock, spans: Spans) -> None:
    """Let time pass as a tree says: seconds, or children; what is under "" is in no span."""
    for name, inside in tree.items():
        if name == "":
            clock.now += inside
            continue
        with spans(name):
            if isinstance(inside, dict):
                timed(inside, clock, spans)
            else:
                clock.now += inside


# -- a sibling subtracted as if it were a child ------------------------------------------------

PUBLISHED = {
    "check_batt": 15.689, "filter": 0.015, "inline": 0.595, "validate": 0.371, "files": 0.015, "differs": 0.155,
    "": 0.203,
}  # fmt: skip
"""Published seconds of six phases one after the other, of 17.043; 0.203 had no timer. Taken for
children of the first, they left "6 s" of it that nobody could explain."""


def test_siblings_are_not_subtracted() -> None:
    clock = Clock()
    spans = Spans(clock)
    timed(PUBLISHED, clock, spans)
    spans.stop()
    rows = {row.path: row for row in rows_of(spans, Work(), [], 0.0)}
    assert math.isclose(rows[("wall",)].seconds, 17.043)
    assert math.isclose(rows[("wall", "check_batt")].self_s or 0, 15.689)
    assert math.isclose(rows[("wall", "unaccounted")].seconds, 0.203)
    wrong = 15.689 - sum(
        seconds for name, seconds in PUBLISHED.items() if name not in ("", "check_batt")
    )
    assert not math.isclose(rows[("wall", "check_batt")].self_s or 0, wrong, rel_tol=0.01)


# -- latencies summed, and shown as work -------------------------------------------------------


def waits(count: int, wall_s: float) -> tuple[Spans, Work, list[Verdict]]:
    """So many programs one after the other in one worker, all of which waited from the start."""
    clock = Clock()
    spans = Spans(clock)
    timed({"wait": wall_s}, clock, spans)
    each_s = wall_s / count
    verdicts = [
        Verdict(str(i), "t", Kind.PASSED, cpu_s=each_s, run_s=each_s, queue_s=i * each_s)
        for i in range(count)
    ]
    return spans, Work(busy_s=wall_s, workers=1, engines=1), verdicts


def test_a_latency_sum_is_no_work_and_no_speedup() -> None:
    """Sums of latencies over wall time gave "27 times"; one worker was busy."""
    spans, work, verdicts = waits(53, 0.099)
    rows = rows_of(spans, work, verdicts, 0.01)
    kinds = {row.path: row.kind for row in rows}
    waited_s = next(row.seconds for row in rows if row.path == ("programs", "queue"))
    assert waited_s / rows[0].seconds > 25  # the published figure
    assert kinds[("programs", "queue")] == kinds[("programs", "reply")] == LATENCY
    assert kinds[("programs", "computing")] == CPU
    assert kinds[("programs", "run")] == kinds[("workers", "busy")] == WORKERS
    assert math.isclose(concurrency(rows), 1.0)
    tree = [row for row in rows if row.kind in (WALL, SELF)]
    assert all(row.path[0] == "wall" for row in tree)
    assert math.isclose(sum(row.self_s or 0.0 for row in tree), rows[0].seconds)
    shown = table(rows, 1)
    assert "26" not in shown
    assert next(line for line in shown.splitlines() if "queue" in line).endswith(LATENCY)


def test_real_workers_are_never_busier_than_they_are_many(write: Write, tmp_path: Path) -> None:
    tasks = read_tasks(write("tasks/flip.json", FLIP).parent)
    source = "def solve(I):\n    t = 0\n    for i in range({}): t += i\n    return I"
    given = [Candidate(str(i), "flip", source.format(200_000 + i), "") for i in range(40)]
    spans, work, found = Spans(), Work(), list[Verdict]()
    settings = ValidateConfig(workers=2, limits=Limits(), isolation=best_level().value)
    validate(given, tasks, tmp_path, settings, spans, found.append, work)
    spans.stop()
    rows = rows_of(spans, work, found, time.process_time())
    assert 0.0 < concurrency(rows) <= 2.0
    times = {row.path: row.seconds for row in rows}
    assert times[("programs", "queue")] > times[("programs", "run")]  # more waits than works
    assert (
        times[("programs", "run")] + times[("programs", "start: fork and lock up")] <= work.busy_s
    )
    assert ("wall", "settle", "store") in times


# -- a speed-up over what was never measured, a loop that nobody timed -------------------------


def test_no_speedup_over_what_was_never_measured(tmp_path: Path) -> None:
    run = Measured(2.0, "aa", 5, 2, True, "new")
    base = Measured(5.0, "aa", 5, 2, True, "old")
    assert speedup(run, base) == 2.5
    with pytest.raises(RunError, match="the verdicts differ: aa here, bb there"):
        speedup(run, replace(base, digest="bb"))
    with pytest.raises(RunError, match="old took verdicts from its store"):
        speedup(run, replace(base, fresh=False))
    with pytest.raises(RunError, match="new took verdicts"):
        speedup(replace(run, fresh=False), base)
    with pytest.raises(RunError, match="old was not measured"):
        speedup(run, replace(base, wall_s=0.0))
    with pytest.raises(RunError, match="holds no measured run"):
        read_measured(tmp_path)


def test_a_loop_that_nobody_timed_shows() -> None:
    """32 calls of 79 ms in no span were called "other" and explained away."""
    clock = Clock()
    spans = Spans(clock)
    timed({"demo": 1.461, "test": 0.079, "": 32 * 0.079}, clock, spans)
    spans.stop()
    rows = rows_of(spans, Work(), [], 0.0)
    (lost,) = [row for row in rows if row.kind == SELF]
    assert math.isclose(lost.seconds, 32 * 0.079)
    assert "unaccounted" in (line := next(x for x in table(rows, 1).splitlines() if "unacc" in x))
    assert "62.14%" in line


def test_a_run_that_went_on_does_not_replace_a_whole_one(tmp_path: Path) -> None:
    spans, work, verdicts = waits(3, 1.0)
    rows = rows_of(spans, work, verdicts, 0.0)
    for fresh, kept in ((False, False), (True, True), (False, True)):
        write_profile(tmp_path, measured(rows, verdicts, workers=1, fresh=fresh), rows)
        assert read_measured(tmp_path).fresh is kept


# -- verdicts as one word ----------------------------------------------------------------------


def test_a_digest_knows_verdicts_and_neither_times_nor_order() -> None:
    one = Verdict("a", "t", Kind.WRONG, cpu_s=1.0, queue_s=2.0, attempts=1)
    two = Verdict("b", "t", Kind.EXCEPTION, error="KeyError", line=3)
    same = replace(
        one, cpu_s=3.0, queue_s=9.0, reply_s=1.0, attempts=2, rss_bytes=7, detail="other words"
    )
    assert verdicts_digest([one, two]) == verdicts_digest([two, same])
    for change in (
        {"kind": Kind.PASSED},
        {"error": "E"},
        {"line": 1},
        {"demo_passed": 1},
        {"duplicate_of": "b"},
    ):
        assert verdicts_digest([replace(one, **change), two]) != verdicts_digest([one, two])
    assert verdicts_digest([one]) != verdicts_digest([one, two])


# -- spans -------------------------------------------------------------------------------------


def test_what_went_before_counts_as_wall_time() -> None:
    clock = Clock()
    spans = Spans(clock, keep_events=True)
    spans.before("start-up", 0.5)
    timed({"work": 1.0}, clock, spans)
    spans.stop()
    assert [(r.path[-1], r.seconds) for r in spans.rows()] == [
        ("wall", 1.5),
        ("start-up", 0.5),
        ("work", 1.0),
    ]
    assert spans.unaccounted_s == 0.0


def test_the_age_of_a_process_is_the_kernels() -> None:
    code = (
        "import time; time.sleep(0.3)\n"
        "from floodstage.core.spans import process_age_s; print(process_age_s())"
    )
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert 0.3 <= float(done.stdout) <= time.monotonic() - began_s + 0.02
    assert process_age_s() > 0.1


def test_a_picture_has_every_stretch() -> None:
    clock = Clock()
    spans = Spans(clock, keep_events=True)
    timed({"outer": {"": 0.25, "inner": 0.5}}, clock, spans)
    spans.picture("engine 1", "job 3", 10.1, 10.4)
    made = chrome_trace(spans.events or (), spans.began)
    names = {e["args"]["name"]: e["tid"] for e in made["traceEvents"] if e["ph"] == "M"}
    assert names == {"driver": 0, "engine 1": 1}
    found = {
        e["name"]: (e["tid"], e["ts"], e["dur"]) for e in made["traceEvents"] if e["ph"] == "X"
    }
    assert found == {
        "outer": (0, 0.0, 750000.0),
        "inner": (0, 250000.0, 500000.0),
        "job 3": (1, 100000.0, 300000.0),
    }


# -- the command -------------------------------------------------------------------------------


def said(*words: object) -> tuple[dict[str, Any], str]:
    code = "from floodstage.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "programs", "validate", *map(str, words), "--json"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True,
        timeout=200, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_all_time_of_a_command_is_accounted_for(write: Write, tmp_path: Path) -> None:
    """Rows sum to the wall time, hardly any of which is nobody's; then a run against it."""
    tasks = write("tasks/flip.json", FLIP).parent
    for i in range(120):
        many = write(
            f"many/flip_{i:03}.py", f"def solve(I):\n    for _ in range({i}): pass\n    return I"
        ).parent
    words = (many, "--tasks", tasks, "--isolation", best_level(), "--workers", 2)
    first, _ = said(*words, "--out", tmp_path / "a", "--trace", tmp_path / "t.json")
    rows = first["profile"]
    wall_s = rows[0]["seconds"]
    assert abs(sum(r["self_s"] for r in rows if r["kind"] == WALL) - wall_s) < 1e-3
    (lost,) = [r for r in rows if r["kind"] == SELF]
    assert lost["seconds"] <= 0.01 * wall_s
    names = {r["path"][-1] for r in rows}
    assert names >= {
        *(
            "start-up",
            "imports",
            "read",
            "self-test",
            "cache",
            "parse",
            "form",
            "start engines",
            "send",
            "wait",
        ),
        *(
            "receive",
            "judge",
            "store",
            "progress",
            "stop",
            "report",
            "busy",
            "idle",
            "queue",
            "reply",
        ),
    }
    tracks = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert {e["args"]["name"] for e in tracks if e["ph"] == "M"} == {
        "driver",
        "engine 1",
        "engine 2",
    }
    assert sum(e["name"].startswith("job ") for e in tracks) == 120

    again, err = said(*words, "--out", tmp_path / "a", "--baseline", tmp_path / "a")
    assert (again["speedup"], again["digest"]) == (None, first["digest"])
    assert "No speed-up: the run took verdicts from its store" in err
    other, err = said(*words, "--out", tmp_path / "b", "--baseline", tmp_path / "a")
    assert other["speedup"] == pytest.approx(wall_s / other["profile"][0]["seconds"])
    assert "the same verdicts" in err
    fewer, err = said(*words, "--out", tmp_path / "c", "--baseline", tmp_path / "a", "--count", 60)
    assert fewer["speedup"] is None
    assert "No speed-up: the verdicts differ" in err
    _, err = said(*words, "--out", tmp_path / "d", "--baseline", tmp_path / "nowhere")
    assert "No speed-up: " in err
