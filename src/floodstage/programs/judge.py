"""From trials to a verdict: trusted code compares what came out with what was expected.

Runs in the driver, the only process that knows expected outputs. What comes out of a program has
been rebuilt from plain builtins before it is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from floodstage.programs.inputs.arc import grid_fault
from floodstage.programs.records import Candidate, DataTask, Kind, Sample, Task, Trial, Verdict
from floodstage.programs.sandbox.values import Malformed, loads
from floodstage.programs.scores import SCORERS


def judged(task: Task, found: Sequence[Mapping[str, Any]]) -> list[Trial]:
    """The trials of a program as the sandbox gave them, each compared with its sample."""
    trials = [{**x, "kind": Kind(x["kind"])} for x in found]
    if isinstance(task, DataTask):
        trials = [{**t, **_compared(t, s)} for t, s in zip(trials, task.samples, strict=True)]
    return [Trial(**trial) for trial in trials]


def _compared(trial: Mapping[str, Any], sample: Sample) -> dict[str, Any]:
    """What becomes known of a trial by its sample's expected output."""
    if trial["kind"] is not Kind.PASSED:
        return {}
    try:
        value = loads(trial["output"])
    except Malformed as error:
        return {"kind": Kind.INVALID_OUTPUT, "detail": str(error), "output": ""}
    if fault := grid_fault(value):
        return {"kind": Kind.INVALID_OUTPUT, "detail": f"no grid: {fault}", "output": ""}
    if sample.expected is None:
        return {}
    if same_grid(value, sample.expected):
        return dict.fromkeys(SCORERS, 1.0)
    near = {name: score(value, sample.expected) for name, score in SCORERS.items()}
    return {"kind": Kind.WRONG, "detail": "another grid was expected", **near}


def same_grid(one: Any, two: Any) -> bool:
    """Whether two grids, of lists or tuples, hold the same cells."""
    return [list(row) for row in one] == [list(row) for row in two]


def verdict_of(
    candidate: Candidate,
    task: Task,
    trials: Sequence[Trial],
    *,
    queue_s: float,
    reply_s: float,
    attempts: int,
) -> Verdict:
    """What the trials come to: passed if every one did, else the first that did not. A trial
    whose answer is not known passes if it gives a grid, and is not counted."""
    samples = task.samples if isinstance(task, DataTask) else ()
    failed = [t for t in trials if t.kind is not Kind.PASSED]
    first = failed[0] if failed else trials[0]
    counts: dict[str, Any] = {"demo_passed": 0, "demo_total": 0, "test_passed": 0, "test_total": 0}
    for trial, sample in zip(trials, samples, strict=False):  # a task with checks has no samples
        if sample.expected is not None:
            counts[f"{sample.part}_total"] += 1
            counts[f"{sample.part}_passed"] += trial.kind is Kind.PASSED
    demos = [t for t, s in zip(trials, samples, strict=False) if s.part == "demo"]
    near = {name: sum(getattr(t, name) for t in demos) / max(1, len(demos)) for name in SCORERS}
    return Verdict(
        candidate_id=candidate.id,
        task_id=candidate.task_id,
        kind=first.kind,
        detail=first.detail,
        error=first.error,
        line=first.line,
        signal=first.signal,
        **counts,
        cpu_s=sum(t.cpu_s for t in trials),
        start_s=sum(t.start_s for t in trials),
        run_s=sum(t.run_s for t in trials),
        rss_bytes=max(t.rss_bytes for t in trials),
        queue_s=queue_s,
        reply_s=reply_s,
        attempts=attempts,
        **near,
    )
