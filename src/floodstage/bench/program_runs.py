"""Whole runs of `programs validate` on the same candidates, in turns, each a process of its own.

What is timed is what a user types, from the start of the process; each run says itself where its
time went (`profile.json`). Rows are kept as they come, so a killed measurement goes on.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from floodstage.bench.records import keep_rows
from floodstage.bench.tables import Table
from floodstage.core.errors import RunError
from floodstage.core.metrics import Cost, speedup
from floodstage.programs import profile

ONE, TWO = "one worker", "two workers"
CORE = "one worker, everything on one core"
RAY = "Ray, two actors of one worker each"
WAYS = {
    TWO: ("--workers", "2"),
    ONE: ("--workers", "1"),
    CORE: ("--workers", "1"),
    RAY: ("--backend", "ray", "--nodes", "2", "--workers", "1"),
}
Row = dict[str, Any]


def timed_runs(words: Sequence[str], out: Path, rounds: int) -> Table:
    """The same command in each of the ways that can be taken here, forwards and then backwards,
    `rounds` times. Raises RunError for a run that fails."""
    ways = {n: w for n, w in WAYS.items() if n != RAY or importlib.util.find_spec("ray")}
    plan = [
        (name, 2 * i + back) for i in range(rounds) for back in (0, 1) for name in _turn(ways, back)
    ]

    def more(rows: list[Row]) -> Iterator[Row]:
        held = {(row["way"], row["number"]) for row in rows}
        todo = [entry for entry in plan if entry not in held]
        for name, number in track(todo, "timing", console=Console(stderr=True)):
            cores = {min(os.sched_getaffinity(0))} if name == CORE else os.sched_getaffinity(0)
            row = _run(words, ways[name], out / "timed", cores)
            yield {"way": name, "number": number, **row}

    return summary(keep_rows(out / "timed.jsonl", more))


def _turn(ways: Mapping[str, Sequence[str]], back: int) -> list[str]:
    return list(ways)[:: -1 if back else 1]


def _run(words: Sequence[str], way: Sequence[str], folder: Path, cores: set[int]) -> Row:
    """One run in a new folder, which goes when it was read."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "floodstage.cli.main", "programs", "validate", *words, *way]
    done = subprocess.run(
        [*command, "--out", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=partial(os.sched_setaffinity, 0, cores),
    )
    if done.returncode:
        raise RunError(f"{' '.join(way)} failed: {done.stderr.strip()[-500:]}")
    told = json.loads((folder / profile.FILE).read_text())
    shutil.rmtree(folder)
    run, rows = told["run"], told["rows"]
    return {
        **{key: run[key] for key in ("wall_s", "digest", "programs")},
        "unaccounted_s": _seconds(rows, profile.SELF, "unaccounted"),
        "sum_s": sum(row["self_s"] for row in rows if row["kind"] == profile.WALL),
        "busy_s": _seconds(rows, profile.WORKERS, "busy"),
        "around_s": _seconds(rows, profile.WALL, "start cluster", "stop"),
    }


def _seconds(rows: Sequence[Row], kind: str, *names: str) -> float:
    return float(
        sum(row["seconds"] for row in rows if row["kind"] == kind and row["path"][-1] in names)
    )


def summary(rows: Sequence[Row]) -> Table:
    """A line for each way: a function of the rows alone."""
    lines: list[tuple[str, ...]] = []
    two = _of(rows, TWO)
    for name in dict.fromkeys(row["way"] for row in rows):
        found = _of(rows, name)
        wall_s = sum(row["wall_s"] for row in found)
        lines.append(
            (
                name,
                str(len(found)),
                f"{wall_s / len(found):,.2f}",
                f"{sum(row['programs'] for row in found) / wall_s:,.1f}",
                f"{sum(row['busy_s'] for row in found) / wall_s:.2f}",
                _against(two, found, name),
                f"{100 * max(row['unaccounted_s'] / row['wall_s'] for row in found):.2f} %",
                f"{1000 * max(abs(row['sum_s'] - row['wall_s']) for row in found):.3f}",
                f"{sum(row['around_s'] for row in found) / len(found):.2f}",
            )
        )
    head = ("run", "runs", "wall s", "programs/s", "busy workers", f"speed-up of {TWO} [95 %]",
            "unaccounted, most", "rows - wall, most ms", "cluster s")  # fmt: skip
    note = (
        "Wall time from the start of the process, means of runs in turns. Speed-up by resampling "
        "pairs of runs, said only where all verdicts are the same. 'cluster': starting and ending "
        "what runs the programs, part of the wall time. One worker has its driver, engine and "
        "programs side by side, so it takes more than one core where it may."
    )
    return Table("Whole runs", head, tuple(lines), note)


def _of(rows: Sequence[Row], name: str) -> list[Row]:
    return sorted((row for row in rows if row["way"] == name), key=lambda row: int(row["number"]))


def _against(two: Sequence[Row], found: Sequence[Row], name: str) -> str:
    if name == TWO or not two:
        return ""
    if len({row["digest"] for row in (*two, *found)}) > 1:
        return "verdicts differ"
    pairs = min(len(two), len(found))
    costs = [[Cost(r["programs"], r["wall_s"]) for r in rows[:pairs]] for rows in (two, found)]
    return str(speedup(*costs))
