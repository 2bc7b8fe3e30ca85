"""Programs per second, locked down, beside a process for each sample, in turns A B B A.

Seconds are those of the whole of `validate`: self-test, start of engines, forms, runs, store. A
speed-up is shown only where both arms came to the same verdicts. Records are appended as they
come; a run that was killed goes on. Everything shown is a function of the records.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import Progress

from floodstage.bench.measure import environment, same_settings
from floodstage.bench.records import keep_rows
from floodstage.bench.tables import Table, write_tables
from floodstage.core.errors import ConfigError, InputError, RunError
from floodstage.core.metrics import Cost, Interval, speedup
from floodstage.core.spans import Spans
from floodstage.programs.inputs.tasks import read_tasks
from floodstage.programs.records import Candidate, CheckTask, DataTask, Sample, Task
from floodstage.programs.sandbox.limits import Limits
from floodstage.programs.sandbox.lockdown import Level
from floodstage.programs.sandbox.pool import Pool
from floodstage.programs.sandbox.selftest import selftest
from floodstage.programs.sandbox.values import encode
from floodstage.programs.sandbox.wire import Job, Setup
from floodstage.programs.validate import ValidateConfig, validate

OURS, EACH, ALONE = "floodstage", "a process for each sample", "floodstage, one worker"
CHECKED, EMPTY, TRIVIAL = "HumanEval", "HumanEval, 'return None'", "trivial"
COMPUTING, KILLS = "computing", "kills"
GRID = ((1, 2), (3, 4))
KILL_CPU_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramsBenchConfig:
    """What is measured. `copies` of each problem's own answer are checked, `trivial` programs that
    do nothing are run, `kills` programs that never end are killed at 200 ms of CPU time; a repeat
    is A B B A."""

    problems: str
    copies: int = 10
    trivial: int = 3000
    computing: int = 60
    kills: int = 40
    repeats: int = 2
    workers: int = 2

    def __post_init__(self) -> None:
        for name in ("copies", "trivial", "computing", "kills", "repeats", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)!r}.")


Load = tuple[list[Candidate], dict[str, Task]]
Row = dict[str, Any]


def programs_bench(config: ProgramsBenchConfig, out: Path) -> list[Table]:
    """Measure what `out` lacks, write its summaries, give the tables. Raises InputError for
    problems without answers, SandboxError where programs cannot be locked up."""
    out.mkdir(parents=True, exist_ok=True)
    level = selftest(Level.STRICT).level.value
    checked = _checked(config)
    loads = {
        **{CHECKED: checked, EMPTY: _empty(checked)},
        **{TRIVIAL: _trivial(config), COMPUTING: _computing(config)},
    }
    about = environment("cpu") | {"isolation": level, "cores": os.cpu_count()}
    named = Path(config.problems).name  # where they lie is nobody's
    settings = asdict(config) | {"problems": named}
    same_settings(out, {"settings": settings}, about)
    plan = _plan(config)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("measuring", total=len(plan))

        def more(rows: list[Row]) -> Iterator[Row]:
            held = {_key(row) for row in rows}
            for part, arm, number in plan:
                if (part, arm, number) not in held:
                    yield {
                        **{"part": part, "arm": arm, "number": number},
                        **_measured(part, arm, config, loads),
                    }
                progress.advance(bar)

        rows = keep_rows(out / "records.jsonl", more)
    shown = summarise(rows)
    write_tables(out, shown)
    return shown


def _plan(config: ProgramsBenchConfig) -> list[tuple[str, str, int]]:
    """What is measured in which order; the i-th of one arm pairs with the i-th of the other."""
    found: list[tuple[str, str, int]] = []
    for repeat in range(config.repeats):
        first, second = 2 * repeat, 2 * repeat + 1
        for part, a, b in ((CHECKED, OURS, EACH), (COMPUTING, OURS, ALONE)):
            found += [(part, a, first), (part, b, first), (part, b, second), (part, a, second)]
        found += [(TRIVIAL, OURS, first), (TRIVIAL, OURS, second)]
    return [*found, (EMPTY, OURS, 0), (KILLS, OURS, 0)]


def _key(row: Row) -> tuple[str, str, int]:
    return row["part"], row["arm"], row["number"]


def _measured(part: str, arm: str, config: ProgramsBenchConfig, loads: Mapping[str, Load]) -> Row:
    if part == KILLS:
        return _kills(config)
    candidates, tasks = loads[part]
    if arm == EACH:
        seconds, passed = _process_each(candidates, tasks)
    else:
        seconds, passed = _validated(candidates, tasks, 1 if arm == ALONE else config.workers)
    told = json.dumps(sorted(passed.items())).encode()
    return {
        **{"programs": len(candidates), "seconds": seconds},
        **{"passed": sum(passed.values()), "digest": sha256(told).hexdigest()[:16]},
    }


# -- arms -------------------------------------------------------------------------------------


def _validated(
    candidates: list[Candidate], tasks: dict[str, Task], workers: int
) -> tuple[float, dict[str, bool]]:
    passed: dict[str, bool] = {}
    settings = ValidateConfig(
        workers=workers, limits=Limits(cpu_s=3.0), tuples=True, find_duplicates=False
    )
    with tempfile.TemporaryDirectory() as folder:
        began_s = perf_counter()
        validate(
            candidates, tasks, Path(folder), settings, Spans(),
            lambda v: passed.__setitem__(v.candidate_id, v.passed),
        )  # fmt: skip
        return perf_counter() - began_s, passed


def _process_each(
    candidates: list[Candidate], tasks: dict[str, Task]
) -> tuple[float, dict[str, bool]]:
    programs = []
    for candidate in candidates:
        task = tasks[candidate.task_id]
        assert isinstance(task, CheckTask)
        programs.append(f"{candidate.source}\n{task.checks}\ncheck({task.entries[0]})\n")
    done = subprocess.run(
        [sys.executable, "-m", "floodstage.bench.process_each"],
        input=json.dumps({"programs": programs, "limit_s": 3.0}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RunError(f"A process for each sample failed: {done.stderr.strip()[-300:]}")
    found = json.loads(done.stdout)
    ids = [candidate.id for candidate in candidates]
    return float(found["seconds"]), dict(zip(ids, found["passed"], strict=True))


def _kills(config: ProgramsBenchConfig) -> Row:
    """By how much CPU time programs that never end went over their limit."""
    source = "def f(x):\n    while True: pass"
    limits = asdict(Limits(cpu_s=KILL_CPU_S))
    jobs = [Job(i, source, ("f",), limits, (encode((0,)),)) for i in range(config.kills)]
    began_s = perf_counter()
    with Pool(config.workers, Setup(Level.STRICT.value)) as pool:
        trials = [reply.trials[0] for _, reply in pool.run(jobs)]
    if any(trial["kind"] != "timeout" for trial in trials):
        raise RunError(f"A program that never ends came to {trials[0]['kind']!r}.")
    over = sorted(trial["cpu_s"] - KILL_CPU_S for trial in trials)
    return {"programs": len(jobs), "seconds": perf_counter() - began_s, "over_s": over}


# -- programs ---------------------------------------------------------------------------------


def _checked(config: ProgramsBenchConfig) -> Load:
    tasks = read_tasks(Path(config.problems))
    answers = {
        name: task.answer
        for name, task in tasks.items()
        if isinstance(task, CheckTask) and task.answer and task.calls_check
    }
    if len(answers) < len(tasks):
        raise InputError(
            f"{config.problems!r} holds {len(tasks)} tasks, {len(answers)} of them with their own "
            "answer and a check(): expected HumanEval."
        )
    return [
        Candidate(f"{name} {copy}", name, answer, "")
        for name, answer in answers.items()  # by problem, as files of samples are
        for copy in range(config.copies)
    ], tasks


def _empty(checked: Load) -> Load:
    """The same problems, each with a body that does nothing."""
    _, tasks = checked
    return [
        Candidate(name, name, f"{task.prompt}    return None\n", "")
        for name, task in tasks.items()
        if isinstance(task, CheckTask)
    ], tasks


def _trivial(config: ProgramsBenchConfig) -> Load:
    return _own("def solve(I):\n    return I  # {}", config.trivial, 1)


def _computing(config: ProgramsBenchConfig) -> Load:
    """Many short programs and one that takes as long as all of them together."""
    short = "def solve(I):\n    t = {}\n    for i in range(100000): t += i\n    return I"
    long = (
        f"def solve(I):\n    t = {{}}\n    for i in range({100_000 * config.computing}): t += i\n"
    )
    candidates, tasks = _own(short, config.computing, 6)
    (heavy,), _ = _own(long + "    return I", 1, 6)
    middle = len(candidates) // 2
    heavy = Candidate("long", heavy.task_id, heavy.source, "")
    return [*candidates[:middle], heavy, *candidates[middle:]], tasks


def _own(source: str, count: int, samples: int) -> Load:
    task = DataTask(
        "same", tuple(Sample((GRID,), GRID, "demo") for _ in range(samples)), ("solve",)
    )
    return [Candidate(str(i), "same", source.format(i), "") for i in range(count)], {"same": task}


# -- tables -----------------------------------------------------------------------------------


def summarise(rows: list[Row]) -> list[Table]:
    """The tables of a run, from its records alone."""
    lines: list[tuple[str, ...]] = []
    for part, arm in dict.fromkeys((row["part"], row["arm"]) for row in rows):
        if part == KILLS:
            continue
        found = _of(rows, part, arm)
        programs, seconds = sum(r["programs"] for r in found), sum(r["seconds"] for r in found)
        other = {CHECKED: EACH, COMPUTING: ALONE}.get(part, "")
        compared = against(rows, part, arm, other) if other and arm != other else ""
        rate, passed = f"{programs / seconds:,.1f}", sum(r["passed"] for r in found)
        said = f"{passed:,} of {programs:,}"
        lines.append((part, arm, str(len(found)), said, rate, str(compared)))
    head = ("programs", "arm", "runs", "passed", "programs/s", "speed-up [95 %]")
    note = (
        "All programs / all seconds, self-test, start and store included; no duplicates are looked "
        "for, for all are such. Speed-up over "
        f"'{EACH}' and '{ALONE}', by resampling pairs of runs, where the verdicts are the same."
    )
    shown = [Table("Programs per second", head, tuple(lines), note)]
    if killed := [row for row in rows if row["part"] == KILLS]:
        over_ms = [1000 * x for row in killed for x in row["over_s"]]
        cells = (str(len(over_ms)), f"{median(over_ms):.1f}", f"{max(over_ms):.1f}")
        shown.append(
            Table(
                f"CPU time over a limit of {1000 * KILL_CPU_S:.0f} ms",
                ("programs", "median ms", "most ms"),
                (cells,),
                "By the kernel's count of the killed process.",
            )
        )
    return shown


def _of(rows: list[Row], part: str, arm: str) -> list[Row]:
    found = [row for row in rows if (row["part"], row["arm"]) == (part, arm)]
    return sorted(found, key=lambda row: int(row["number"]))


def against(rows: list[Row], part: str, arm: str, other: str) -> Interval | str:
    """How many times as fast as the other arm; why not, where that cannot be said."""
    ours, theirs = _of(rows, part, arm), _of(rows, part, other)
    pairs = min(len(ours), len(theirs))
    if not pairs:
        return "not measured"
    if len({row["digest"] for row in (*ours, *theirs)}) > 1:
        return "verdicts differ"
    return speedup(_costs(ours[:pairs]), _costs(theirs[:pairs]))


def _costs(rows: list[Row]) -> list[Cost]:
    return [Cost(row["programs"], row["seconds"]) for row in rows]
