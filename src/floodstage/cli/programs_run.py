"""What `floodstage programs` does and prints: progress, counts, rates, where the time went."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any

from rich.console import Console
from rich.progress import Progress

from floodstage.core.chrome import chrome_trace
from floodstage.core.errors import RunError
from floodstage.core.spans import Spans
from floodstage.programs.inputs.candidates import read_candidates
from floodstage.programs.inputs.tasks import only_part, read_tasks
from floodstage.programs.profile import (
    Measured,
    Row,
    measured,
    read_measured,
    rows_of,
    speedup,
    table,
    write_profile,
)
from floodstage.programs.records import Candidate, DataTask, Kind, Task, Verdict
from floodstage.programs.sandbox.lockdown import Level
from floodstage.programs.sandbox.selftest import Isolation, selftest
from floodstage.programs.sandbox.tickets import Work
from floodstage.programs.scores import SCORERS
from floodstage.programs.stages.normal import SHARED
from floodstage.programs.stages.prepare import prepare
from floodstage.programs.store.export import export
from floodstage.programs.store.outputs import pass_rates
from floodstage.programs.store.store import Store
from floodstage.programs.validate import (
    Selection,
    ValidateConfig,
    cores,
    in_order,
    level_of,
    library_names_of,
    validate,
    write_outputs,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a run shows of itself, and to whom. `stays` False: its folder goes, and with it the
    files that would be named."""

    stays: bool = True
    dry_run: bool = False
    as_json: bool = False
    baseline: Path | None = None
    trace: Path | None = None


def run_validate(
    file: Path,
    tasks_at: Path,
    out: Path,
    config: ValidateConfig,
    chosen: Selection,
    shown: Shown,
    spans: Spans,
    *,
    part: str = "all",
) -> None:
    """Read, validate, write and print; `part` is the samples that count."""
    with spans("read"):
        tasks = only_part(read_tasks(tasks_at), part)
        every = list(read_candidates(file, tasks, libraries=config.preload))
        candidates = chosen.of(every)
        gc.freeze()  # all of this stays: the collector need not look at it again and again
    if shown.dry_run:
        _print_dry(candidates, tasks, config, spans, as_json=shown.as_json)
        return
    found: list[Verdict] = []
    work, fresh = Work(), not (out / "verdicts.sqlite").exists()
    with spans("progress"):
        progress = Progress(console=Console(stderr=True), transient=True)
        bar = progress.add_task("validating", total=len(candidates))
        progress.start()

    def report(verdict: Verdict) -> None:
        found.append(verdict)
        progress.update(bar, completed=len(found))

    try:
        isolation = validate(candidates, tasks, out, config, spans, report, work)
    finally:
        with spans("progress"):
            progress.stop()
    with spans("report"):
        name = Path(file.name.removesuffix(".gz")).stem
        written = write_outputs(out, name, tasks, candidates)
        found = in_order(found, candidates)
    spans.stop()
    rows = rows_of(spans, work, found, process_time())
    run = measured(rows, found, workers=work.workers, fresh=fresh)
    write_profile(out, run, rows)
    if shown.trace is not None:
        shown.trace.write_text(json.dumps(chrome_trace(spans.events or (), spans.began)))
        written.append(shown.trace)
    _print_run(found, tasks, isolation, run, written if shown.stays else [], rows, work, shown)


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


def run_bench(
    problems: Path,
    out: Path,
    repeats: int,
    copies: int,
    trivial: int,
    workers: int,
    *,
    as_json: bool,
) -> None:
    """Measure and print the tables."""
    from floodstage.bench.programs import ProgramsBenchConfig, programs_bench
    from floodstage.bench.tables import markdown

    config = ProgramsBenchConfig(
        problems=str(problems),
        repeats=repeats,
        copies=copies,
        trivial=trivial,
        workers=workers or cores(),
    )
    shown = programs_bench(config, out)
    if as_json:
        print(json.dumps({"out": str(out), "tables": [asdict(table) for table in shown]}))
        return
    for each in shown:
        print(f"{each.title}\n\n{markdown(each)}")


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
    run: Measured,
    written: Sequence[Path],
    rows: Sequence[Row],
    work: Work,
    shown: Shown,
) -> None:
    counts = Counter(str(v.kind) for v in verdicts)
    rates = pass_rates(verdicts)
    times, compared = _compared(run, shown.baseline)
    about: dict[str, Any] = {
        "programs": len(verdicts),
        "tasks": len({v.task_id for v in verdicts}),
        "solved": len({v.task_id for v in verdicts if v.passed}),
        "isolation": isolation.level.value,
        "trust": "data" if any(isinstance(t, DataTask) for t in tasks.values()) else "split",
        "workers": run.workers,
        "verdicts": dict(counts.most_common()),
        "digest": run.digest,
        "pass": rates,
        "retried": sum(v.attempts > 1 for v in verdicts),
        "speedup": times,
        "engines": asdict(work),
        "files": [str(path) for path in written],
    }
    console = Console(highlight=False, stderr=shown.as_json)
    console.print(
        f"{about['programs']} programs, {about['tasks']} tasks, {about['solved']} solved; "
        f"isolation {about['isolation']}, answers kept apart ({about['trust']})."
    )
    for kind, count in counts.most_common():
        console.print(f"{count:8}  {kind}")
    for name, rate in rates.items():
        console.print(f"{100 * rate:7.1f}%  {name}")
    console.print(f"\nDigest of the verdicts: {run.digest}")
    console.print("\n" + table(rows, run.workers), markup=False, soft_wrap=True)
    if compared:
        console.print(compared, markup=False, soft_wrap=True)
    for path in written:
        console.print(f"Written: {path}", markup=False, soft_wrap=True)
    if shown.as_json:
        print(json.dumps({**about, "profile": [asdict(row) for row in rows]}))


def _compared(run: Measured, baseline: Path | None) -> tuple[float | None, str]:
    """How many times as fast as a baseline, and the words; or only why that cannot be said."""
    if baseline is None:
        return None, ""
    try:
        base = read_measured(baseline)
        times = speedup(run, base)
    except RunError as why:
        return None, f"No speed-up: {str(why).removesuffix('.')}."
    return times, (
        f"{times:.2f} times as fast as {base.name}: {base.wall_s:.3f} s there, {run.wall_s:.3f} s "
        "here, the same verdicts."
    )
