"""What `floodstage programs` does and prints: progress, counts, rates, where the time went."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from floodstage.core.errors import RunError
from floodstage.core.spans import SpanRow, Spans
from floodstage.programs.inputs.candidates import read_candidates
from floodstage.programs.inputs.tasks import only_part, read_tasks
from floodstage.programs.records import Candidate, DataTask, Kind, Task, Verdict
from floodstage.programs.sandbox.lockdown import Level
from floodstage.programs.sandbox.selftest import Isolation, selftest
from floodstage.programs.scores import SCORERS
from floodstage.programs.stages.normal import SHARED
from floodstage.programs.stages.prepare import prepare
from floodstage.programs.store.export import export
from floodstage.programs.store.outputs import pass_rates
from floodstage.programs.store.store import Store
from floodstage.programs.validate import (
    Selection,
    ValidateConfig,
    level_of,
    library_names_of,
    validate,
    write_outputs,
)


def run_validate(
    file: Path,
    tasks_at: Path,
    out: Path,
    config: ValidateConfig,
    chosen: Selection,
    *,
    part: str = "all",
    dry_run: bool,
    as_json: bool,
) -> None:
    """Read, validate, write and print."""
    spans = Spans()
    with spans("read"):
        tasks = only_part(read_tasks(tasks_at), part)
        every = list(read_candidates(file, tasks, libraries=config.preload))
        candidates = chosen.of(every)
    if dry_run:
        _print_dry(candidates, tasks, config, spans, as_json=as_json)
        return
    found: list[Verdict] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("validating", total=len(candidates))

        def report(verdict: Verdict) -> None:
            found.append(verdict)
            progress.update(bar, completed=len(found))

        isolation = validate(candidates, tasks, out, config, spans, report)
    with spans("report"):
        name = Path(file.name.removesuffix(".gz")).stem
        written = write_outputs(out, name, tasks, candidates)
    spans.stop()
    order = {candidate.id: i for i, candidate in enumerate(candidates)}
    found.sort(key=lambda verdict: order[verdict.candidate_id])
    _print_run(found, tasks, isolation, config, written, spans, as_json=as_json)


def run_selftest(isolation: str, *, as_json: bool) -> None:
    """Print what each attempt to get out came to, and the level that holds."""
    found = selftest(level_of(isolation))
    if as_json:
        print(json.dumps(asdict(found)))
        return
    width = max(map(len, found.attempts))
    for name, word in found.attempts.items():
        print(f"{name:{width}}  {'DONE' if word == 'done' else 'denied: ' + word}")
    print(f"\nIsolation that holds here: {found.level.value}.")
    if found.level is not Level.STRICT:
        print("Weaker than strict: what is DONE above, a program could do.")


def run_explain(run: Path, candidate: str, *, with_source: bool, as_json: bool) -> None:
    """Print the verdict, the trials and, if wanted, the source of one program of a run."""
    with opened(run) as store:
        origin = store.origin(candidate)
        source = store.source(candidate) if with_source else ""
        verdict = next(v for v in store.verdicts() if v.candidate_id == candidate)
        trials = store.trials(candidate)
    if as_json:
        more = {"source": source} if with_source else {}
        about = {**asdict(verdict), "origin": origin}
        print(json.dumps({**about, "trials": [asdict(t) for t in trials], **more}))
        return
    where = f" in line {verdict.line}" if verdict.line else ""
    print(f"{candidate} for {verdict.task_id}: {verdict.kind}{where}")
    if verdict.detail:
        print(f"  {verdict.detail}")
    print(f"  from {origin}")
    form = "one node per distinct expression" if verdict.form == SHARED else f"raw, {verdict.form}"
    if verdict.form:
        print(f"  form: {form}")
    for number, trial in enumerate(trials):
        spent = f"cpu {trial.cpu_s:.4f} s, start {trial.start_s:.4f} s, run {trial.run_s:.4f} s"
        near = ", ".join(f"{name} {getattr(trial, name):.2f}" for name in SCORERS)
        said = [trial.detail] if trial.detail else []
        said += [near] if trial.kind is Kind.WRONG and trial.shape else []
        print(f"  sample {number}: " + ", ".join([trial.kind, spent, *said]))
    if with_source:
        print(source)


def run_export(run: Path, to: Path, keep: int, *, as_json: bool) -> None:
    """Write the view of the best programs of a run."""
    with opened(run) as store:
        count = export(store, to, keep)
    print(json.dumps({"programs": count, "folder": str(to)}) if as_json else f"{count} in {to}")


def opened(run: Path) -> Store:
    """The store of a run folder. Raises RunError."""
    if not (run / "verdicts.sqlite").is_file():
        raise RunError(f"{str(run)!r} is no run folder of `programs validate`.")
    return Store(run)


def _print_dry(
    candidates: Sequence[Candidate],
    tasks: Mapping[str, Task],
    config: ValidateConfig,
    spans: Spans,
    *,
    as_json: bool,
) -> None:
    libraries = library_names_of(config.preload)
    prepared = prepare(candidates, libraries, spans, find_duplicates=config.find_duplicates)
    counts = Counter(str(p.verdict.kind) if p.verdict else "to run" for p in prepared)
    if as_json:
        print(json.dumps({"programs": len(candidates), "tasks": len(tasks), **counts}))
        return
    print(f"{len(candidates)} programs for {len(tasks)} tasks; nothing was run.")
    for kind, count in counts.most_common():
        print(f"{count:8}  {kind}")


def _print_run(
    verdicts: Sequence[Verdict],
    tasks: Mapping[str, Task],
    isolation: Isolation,
    config: ValidateConfig,
    written: Sequence[Path],
    spans: Spans,
    *,
    as_json: bool,
) -> None:
    counts = Counter(str(v.kind) for v in verdicts)
    rates = pass_rates(verdicts)
    about: dict[str, Any] = {
        "programs": len(verdicts),
        "tasks": len({v.task_id for v in verdicts}),
        "solved": len({v.task_id for v in verdicts if v.passed}),
        "isolation": isolation.level.value,
        "trust": "data" if any(isinstance(t, DataTask) for t in tasks.values()) else "split",
        "workers": config.workers,
        "verdicts": dict(counts.most_common()),
        "pass": rates,
        "retried": sum(v.attempts > 1 for v in verdicts),
        "files": [str(path) for path in written],
    }
    rows = spans.rows()
    sums = sums_of(verdicts)
    console = Console(highlight=False, stderr=as_json)
    console.print(
        f"{about['programs']} programs, {about['tasks']} tasks, {about['solved']} solved; "
        f"isolation {about['isolation']}, answers kept apart ({about['trust']})."
    )
    for kind, count in counts.most_common():
        console.print(f"{count:8}  {kind}")
    for name, rate in rates.items():
        console.print(f"{100 * rate:7.1f}%  {name}")
    console.print("\n" + profile(rows), markup=False)
    console.print("\nAll programs together, over all workers and earlier runs of this folder:")
    for name, (kind, seconds) in sums.items():
        console.print(f"  {name:30} {seconds:10.3f}  {kind}")
    for path in written:
        console.print(f"Written: {path}", markup=False, soft_wrap=True)
    if as_json:
        profile_rows: list[dict[str, Any]] = [{"kind": "wall", **asdict(row)} for row in rows]
        profile_rows += [
            {"kind": kind, "path": ["programs", name], "seconds": seconds}
            for name, (kind, seconds) in sums.items()
        ]
        print(json.dumps({**about, "profile": profile_rows}))


def sums_of(verdicts: Sequence[Verdict]) -> dict[str, tuple[str, float]]:
    """What the programs took, each sum with what it is a sum of. Not part of the driver's wall
    time: workers run side by side, and who waits in a queue takes nothing."""
    return {
        "computing": ("CPU", sum(v.cpu_s for v in verdicts)),
        "start: fork and lock up": ("wall, sum over workers", sum(v.start_s for v in verdicts)),
        "run": ("wall, sum over workers", sum(v.run_s for v in verdicts)),
        "queue": ("latency sum", sum(v.queue_s for v in verdicts)),
    }


def profile(rows: Sequence[SpanRow]) -> str:
    """The span tree as a table of wall seconds; the self times sum to the first row."""
    lines = [f"{'the driver, wall time':32} {'seconds':>10} {'self':>10} {'calls':>8}"]
    whole = rows[0]
    for row in rows:
        name = "  " * (len(row.path) - 1) + row.path[-1]
        self_s = "" if row is whole else f"{row.self_s:10.3f}"
        lines.append(f"{name:32} {row.seconds:10.3f} {self_s:>10} {row.calls:8}")
    lines.append(f"  {'unaccounted':30} {whole.self_s:10.3f} {whole.self_s:10.3f}")
    return "\n".join(lines)
