"""The best programs of each task as a folder: `solve_<task>/<score>/<speed>/<digest>.py`.

Each is a relative link to `programs/<digest>.py`, so that the folder can be moved. Reads a store,
changes nothing in it.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from floodstage.core.errors import ConfigError
from floodstage.core.files import write_whole
from floodstage.programs.records import Kind, Verdict, source_digest
from floodstage.programs.store.store import Store

PER_SAMPLE = 1000
"""What a passed sample, or a task with checks that passes, adds to a score."""
FASTEST = 11


@dataclass(frozen=True, slots=True)
class Ranked:
    """A program with what it is ranked by: score, then how near its grids are to the demo's, then
    speed, then size, then its address."""

    candidate_id: str
    task_id: str
    score: int
    cells: float
    speed: int
    size_bytes: int
    digest: str
    source: str

    @property
    def order(self) -> tuple[int, float, int, int, str]:
        return -self.score, -self.cells, -self.speed, self.size_bytes, self.digest


def speed_of(cpu_s: float) -> int:
    """11 - floor(ln seconds): higher is faster, a step is a factor of e. At most 20."""
    return FASTEST - math.floor(math.log(max(cpu_s, math.exp(FASTEST - 20))))


def best_programs(
    store: Store, keep: int, *, least: int = 1, demo_only: bool = False
) -> dict[str, list[Ranked]]:
    """The `keep` best of each task with a score of at least `least`, best first. Programs that
    stand for another are left out; `demo_only` scores no test sample. Raises ConfigError."""
    if keep < 1:
        raise ConfigError(f"keep must be at least 1, got {keep!r}.")
    found: dict[str, dict[str, Ranked]] = defaultdict(dict)
    verdicts = {verdict.candidate_id: verdict for verdict in store.verdicts()}
    for candidate in store.candidates():
        verdict = verdicts[candidate.id]
        score = _score(verdict, demo_only)
        if score >= least and not verdict.duplicate_of:
            one = _ranked(store, verdict, score, candidate.source)
            found[one.task_id].setdefault(one.digest, one)
    return {
        task: sorted(programs.values(), key=lambda one: one.order)[:keep]
        for task, programs in found.items()
    }


def export(store: Store, folder: Path, keep: int) -> int:
    """Write the view of the `keep` best of each task; how many programs it has."""
    count = 0
    for task, programs in best_programs(store, keep).items():
        for one in programs:
            held = folder / "programs" / f"{one.digest}.py"
            _write(held, one.source)
            name = f"solve_{task.replace('/', '_')}"
            link = folder / name / str(one.score) / str(one.speed) / held.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(os.path.relpath(held, link.parent))
            count += 1
    return count


def _write(path: Path, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, source.encode("utf-8", "surrogatepass"))


def _score(verdict: Verdict, demo_only: bool) -> int:
    """Passed samples, or whether the checks passed."""
    if verdict.demo_total + verdict.test_total:
        return PER_SAMPLE * (verdict.demo_passed + (0 if demo_only else verdict.test_passed))
    return PER_SAMPLE * verdict.passed


def _ranked(store: Store, verdict: Verdict, score: int, source: str) -> Ranked:
    spent = [t.cpu_s for t in store.trials(verdict.candidate_id) if t.kind is Kind.PASSED]
    size = len(source.encode("utf-8", "surrogatepass"))
    speed = speed_of(median(spent) if spent else verdict.cpu_s)
    return Ranked(
        verdict.candidate_id,
        verdict.task_id,
        score,
        verdict.cells,
        speed,
        size,
        source_digest(source),
        source,
    )
