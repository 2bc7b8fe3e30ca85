"""`floodstage programs verify | compare | gc | parquet`: what can be done with a run's store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from floodstage.cli.options import Json, Seed

app = typer.Typer()
Run = Annotated[Path, typer.Argument(help="Run folder of `programs validate`.")]
SHOWN = 20
"""Changes that are listed for people; JSON has all."""


@app.command()
def verify(
    run: Run,
    tasks: Annotated[Path, typer.Option(help="The tasks of the run.")],
    preload: Annotated[
        list[Path] | None, typer.Option(help="Its preloaded modules, in order; repeat.")
    ] = None,
    part: Annotated[str, typer.Option(help="The samples it ran: all, demo or test.")] = "all",
    task: Annotated[list[str] | None, typer.Option(help="Only this task; repeat.")] = None,
    count: Annotated[
        int | None, typer.Option(help="Only so many; negative: that many drawn by the seed.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Engines; 0: one for each core.")] = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run a run's programs again and compare; exit code 1 if a verdict or an output changed."""
    from rich.console import Console
    from rich.progress import Progress

    from floodstage.cli.programs_run import opened
    from floodstage.programs.inputs.tasks import only_part, read_tasks
    from floodstage.programs.validate import Selection, cores
    from floodstage.programs.verify import verifiable, verify

    opened(run).close()
    chosen = verifiable(run, Selection(tasks=tuple(task or ()), count=count, seed=seed))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("running again", total=len(chosen))
        found = verify(
            run,
            chosen,
            only_part(read_tasks(tasks), part),
            preload=tuple(preload or ()),
            workers=workers or cores(),
            report=lambda verdict: progress.advance(bar),
        )
    again = found.same + len(found.changed)
    if as_json:
        print(json.dumps({"again": again, "changed": [asdict(x) for x in found.changed]}))
    else:
        print(f"{again} programs were run again; {len(found.changed)} came to something else.")
        _print_changes(found.changed)
    if found.changed:
        raise typer.Exit(1)


@app.command()
def compare(
    first: Run,
    second: Annotated[Path, typer.Argument(help="Another run folder.")],
    as_json: Json = False,
) -> None:
    """What changed from one run to another: programs, matched by task and text, with another
    verdict or another output."""
    from floodstage.cli.programs_run import opened
    from floodstage.programs.store.compare import compare

    with opened(first) as one, opened(second) as two:
        found = compare(one, two)
    if as_json:
        print(json.dumps(asdict(found)))
        return
    print(
        f"{found.same} programs as before, {len(found.changed)} changed, {found.only_first} only "
        f"in {first}, {found.only_second} only in {second}."
    )
    _print_changes(found.changed)


@app.command()
def gc(
    run: Run,
    keep: Annotated[
        int | None,
        typer.Option(help="Of each task keep the programs and outputs of the best so many only."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Remove programs that no verdict refers to; with --keep, all but the best of each task.

    Verdicts stay. The best are those that solve most demo samples, then come nearest to them,
    then are fastest, then smallest.
    """
    from floodstage.cli.programs_run import opened
    from floodstage.programs.store.upkeep import sweep

    with opened(run) as store:
        found = sweep(store, keep)
    if as_json:
        print(json.dumps(asdict(found)))
        return
    print(
        f"{found.programs_after} programs are kept of {found.programs_before}; "
        f"{found.before_bytes:,} bytes became {found.after_bytes:,}."
    )


@app.command()
def parquet(
    run: Run,
    to: Annotated[Path, typer.Option(help="File to write.")],
    trials: Annotated[
        bool, typer.Option("--trials", help="A row for each sample, not for each program.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Verdicts as a Parquet file (needs the extra `parquet`)."""
    from floodstage.cli.programs_run import opened
    from floodstage.programs.store.parquet import write_parquet

    with opened(run) as store:
        rows = write_parquet(store, to, trials=trials)
    print(json.dumps({"rows": rows, "file": str(to)}) if as_json else f"{rows} rows in {to}.")


def _print_changes(changes: Sequence[object]) -> None:
    from floodstage.programs.store.compare import Change

    for x in changes[:SHOWN]:
        assert isinstance(x, Change)
        names = x.first if x.first == x.second else f"{x.first} (now {x.second})"
        came = "another output" if x.what == "output" else f"{x.before} -> {x.after}"
        print(f"  {names} for {x.task_id}: {came}")
    if len(changes) > SHOWN:
        print(f"  and {len(changes) - SHOWN} more")
