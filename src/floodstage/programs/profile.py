"""Where the time of a run went, each row with what it is; and how much faster a run was.

Three kinds of seconds must not be mixed. *wall* rows are the driver's, a tree whose self times sum
to the whole. Sums over workers and CPU time pass side by side with it, and may be more than it.
*latency* sums count who waits, many at once, and say nothing about speed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from floodstage.core.errors import RunError
from floodstage.core.files import write_whole
from floodstage.core.spans import SpanRow, Spans
from floodstage.programs.records import Verdict, verdicts_digest
from floodstage.programs.sandbox.tickets import Work

FILE = "profile.json"
WALL, SELF, CPU = "wall", "self", "CPU"
WORKERS, LATENCY = "wall, sum over workers", "latency sum"


@dataclass(frozen=True, slots=True)
class Row:
    """Seconds of one kind. `self_s` and `calls` are those of wall rows only."""

    kind: str
    path: tuple[str, ...]
    seconds: float
    self_s: float | None = None
    calls: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run took and came to. `fresh` if it ran everything itself, nothing from a store."""

    wall_s: float
    digest: str
    programs: int
    workers: int
    fresh: bool
    name: str = ""


def rows_of(
    spans: Spans, work: Work, verdicts: Sequence[Verdict], driver_cpu_s: float
) -> list[Row]:
    """Every row of a run, the tree of wall time first, what nothing accounts for last in it."""
    tree = spans.rows()
    found = [_wall_row(row) for row in tree]
    found.append(Row(SELF, ("wall", "unaccounted"), tree[0].self_s))
    found += [
        Row(CPU, ("driver", "computing"), driver_cpu_s),
        Row(CPU, ("programs", "computing"), sum(v.cpu_s for v in verdicts)),
        Row(WORKERS, ("programs", "start: fork and lock up"), sum(v.start_s for v in verdicts)),
        Row(WORKERS, ("programs", "run"), sum(v.run_s for v in verdicts)),
        Row(WORKERS, ("workers", "start"), work.starting_s),
        Row(WORKERS, ("workers", "busy"), work.busy_s),
        Row(WORKERS, ("workers", "busy, a program is being killed"), work.killing_s),
        Row(WORKERS, ("workers", "idle"), work.idle_s),
        Row(WORKERS, ("workers", "lost with a dead worker"), work.lost_s),
        Row(LATENCY, ("programs", "queue"), sum(v.queue_s for v in verdicts)),
        Row(LATENCY, ("programs", "reply"), sum(v.reply_s for v in verdicts)),
    ]
    return found


def _wall_row(row: SpanRow) -> Row:
    return Row(WALL, row.path, row.seconds, row.self_s, row.calls)


def measured(
    rows: Sequence[Row], verdicts: Sequence[Verdict], *, workers: int, fresh: bool, name: str = ""
) -> Measured:
    """What a run can be compared by."""
    digest = verdicts_digest(verdicts)
    return Measured(rows[0].seconds, digest, len(verdicts), workers, fresh, name)


def concurrency(rows: Sequence[Row]) -> float:
    """How many workers were busy on average: at most as many as there are."""
    busy = next(row.seconds for row in rows if row.path == ("workers", "busy"))
    return busy / rows[0].seconds


def speedup(run: Measured, baseline: Measured) -> float:
    """How many times as fast as a baseline that was measured and came to the same verdicts.
    Raises RunError where the two cannot be compared, and why."""
    for each in (run, baseline):
        if not each.fresh:
            raise RunError(f"{each.name or 'the run'} took verdicts from its store")
        if each.wall_s <= 0.0:
            raise RunError(f"{each.name or 'the run'} was not measured")
    if run.digest != baseline.digest:
        raise RunError(f"the verdicts differ: {run.digest} here, {baseline.digest} there")
    return baseline.wall_s / run.wall_s


def write_profile(out: Path, run: Measured, rows: Sequence[Row]) -> None:
    """Keep what was measured in a run folder; a run that went on does not replace a whole one."""
    path = out / FILE
    if run.fresh or not path.exists():
        told = {"run": asdict(run), "rows": [asdict(row) for row in rows]}
        write_whole(path, json.dumps(told, indent=1) + "\n")


def read_measured(run: Path) -> Measured:
    """What a run folder says that it took. Raises RunError where it was never measured."""
    try:
        told: dict[str, Any] = json.loads((run / FILE).read_text())["run"]
        return Measured(**{**told, "name": str(run)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{str(run)!r} holds no measured run: no readable {FILE} ({error}).") from (
            error
        )


def table(rows: Sequence[Row], workers: int) -> str:
    """The rows for people: the tree first, then every sum with its kind."""
    width = max(40, *(2 * len(r.path) + len(r.path[-1]) for r in rows))
    lines = [f"{'the driver':{width}} {'wall s':>10} {'self s':>10} {'calls':>8}"]
    for row in rows:
        name = "  " * (len(row.path) - 1) + row.path[-1]
        if row.kind == WALL:
            own = "" if len(row.path) == 1 else f"{row.self_s:10.3f}"
            lines.append(f"{name:{width}} {row.seconds:10.3f} {own:>10} {row.calls:8}")
        elif row.kind == SELF:
            share = 100 * row.seconds / rows[0].seconds
            lines.append(f"{name:{width}} {'':10} {row.seconds:10.3f} {share:7.2f}%")
    lines += ["", f"{'beside it, not part of the wall time':{width}} {'s':>10}  kind"]
    for row in rows:
        if row.kind not in (WALL, SELF):
            lines.append(f"{': '.join(row.path):{width}} {row.seconds:10.3f}  {row.kind}")
    lines.append(f"On average {concurrency(rows):.2f} of {workers} workers were busy.")
    return "\n".join(lines)
