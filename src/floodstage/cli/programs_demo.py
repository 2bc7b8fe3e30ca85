"""What `floodstage programs demo` and `mutate` do and print."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import track

from floodstage.cli.programs_run import Shown, run_validate
from floodstage.core.spans import Spans
from floodstage.programs.gallery.files import LIBRARY, write_gallery
from floodstage.programs.gallery.tasks import GENERATORS
from floodstage.programs.inputs.candidates import read_candidates, tasks_named_in
from floodstage.programs.inputs.files import text_of
from floodstage.programs.inputs.tasks import read_tasks
from floodstage.programs.mutate import Mutation
from floodstage.programs.records import Candidate, Kind
from floodstage.programs.sandbox.lockdown import Level
from floodstage.programs.store.store import Store
from floodstage.programs.validate import Selection, ValidateConfig, cores


def run_demo(out: Path | None, *, mutants: int, workers: int, seed: int, as_json: bool) -> None:
    """Write the gallery, make mutants, validate all of it and show what came of it."""
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            _demo(Path(folder), mutants, workers, seed, Shown(stays=False, as_json=as_json))
    else:
        _demo(out, mutants, workers, seed, Shown(as_json=as_json))


def _demo(folder: Path, mutants: int, workers: int, seed: int, shown: Shown) -> None:
    spans, as_json = Spans(), shown.as_json
    console = Console(highlight=False, stderr=as_json)
    library, samples, run = folder / LIBRARY, folder / "candidates.jsonl", folder / "run"
    with spans("gallery"):
        write_gallery(folder, seed)
        solvers = list(read_candidates(folder / "solvers/own.py", read_tasks(folder / "tasks")))
    with spans("mutate"):
        mutation = Mutation(solvers, seed, {library.stem: text_of(library)}, keep_equal=True)
        rows = [{"task_id": x.task_id, "solution": x.source} for x in solvers]
        rows += [mutant.row() for mutant in mutation.take(mutants)]
        samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    console.print(
        f"{len(GENERATORS)} tasks of our own, a solver for each, and {len(rows) - len(solvers)} "
        "seeded mutants of the solvers.\n"
    )
    config = ValidateConfig(
        workers=workers or cores(), isolation=Level.LIMITS.value, preload=(library,), tuples=True
    )
    run_validate(samples, folder / "tasks", run, config, Selection(), shown, spans)
    if mutants:
        with Store(run) as store:
            _show(store, len(solvers), console)


def _show(store: Store, solvers: int, console: Console) -> None:
    """Of the mutants: how many are right all the same, and the nearest miss."""
    made = [v for v in store.verdicts() if int(v.candidate_id) >= solvers]
    right = sum(v.passed for v in made)
    console.print(f"\n{right} mutants pass all samples without having a solver's normal form.")
    missed = [v for v in made if v.kind is Kind.WRONG]
    if missed:
        near = max(missed, key=lambda v: (v.cells, v.candidate_id))
        console.print(
            f"The nearest miss, number {near.candidate_id} for {near.task_id}: "
            f"{100 * near.cells:.0f}% of the demo samples' cells.",
        )
        console.print(
            "  " + store.candidate(near.candidate_id).origin.partition(", ")[2], markup=False
        )


def run_mutate(
    file: Path,
    out: Path,
    tasks_at: Path | None,
    preload: tuple[Path, ...],
    *,
    count: int,
    changes: int,
    keep_equal: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Write mutants of the programs of a file; how many were drawn and equal to another."""
    tasks = read_tasks(tasks_at) if tasks_at else tasks_named_in(file)
    parents: list[Candidate] = list(read_candidates(file, tasks, libraries=preload))
    mutation = Mutation(
        parents,
        seed,
        {path.stem: text_of(path) for path in preload},
        most_changes=changes,
        keep_equal=keep_equal,
    )
    part = out.with_name(f".{out.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    screen, made = Console(stderr=True), 0
    with part.open("w", encoding="utf-8") as lines:
        for mutant in track(
            mutation.take(count), "mutating", total=count, console=screen, transient=True
        ):
            lines.write(json.dumps(mutant.row()) + "\n")
            made += 1
    part.replace(out)
    about = {
        "programs": len(parents),
        "mutants": made,
        "drawn": mutation.drawn,
        "equal": mutation.equal,
        "file": str(out),
    }
    if as_json:
        print(json.dumps(about))
        return
    print(f"{made} mutants of {len(parents)} programs in {out}.")
    what = "kept" if keep_equal else "left out"
    print(
        f"{mutation.drawn} were drawn; {mutation.equal} equal an earlier one in text or normal "
        f"form and are {what}."
    )
    if made < count:
        print("No more could be found: allow more --changes.")
