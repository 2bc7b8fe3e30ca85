"""`floodstage programs mutate | sample | demo`: where candidates come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from floodstage.cli.options import Json, Seed

app = typer.Typer()


@app.command()
def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="Keep tasks, library, solvers, candidates and the run in this folder."),
    ] = None,
    mutants: Annotated[int, typer.Option(min=0, help="Mutants beside the solvers.")] = 400,
    workers: Annotated[int, typer.Option(min=0, help="Engines; 0: one for each core.")] = 0,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Tasks, solvers and mutants of our own: validated, with verdicts and where the time went."""
    from floodstage.cli.programs_demo import run_demo

    run_demo(out, mutants=mutants, workers=workers, seed=seed, as_json=json)


@app.command()
def mutate(
    file: Annotated[Path, typer.Argument(help="Programs, as `programs validate` reads them.")],
    out: Annotated[Path, typer.Option(help="File of candidates to write, .jsonl.")],
    count: Annotated[int, typer.Option(min=1, help="How many mutants.")] = 1000,
    tasks: Annotated[
        Path | None,
        typer.Option(help="Tasks of the programs. Default: those that solve_<task> names."),
    ] = None,
    preload: Annotated[
        list[Path] | None,
        typer.Option(help="A module whose functions mutants may call; repeat."),
    ] = None,
    changes: Annotated[int, typer.Option(min=1, help="Most changes of a mutant.")] = 2,
    keep_equal: Annotated[
        bool,
        typer.Option("--keep-equal", help="Keep mutants of the same normal form as another."),
    ] = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Seeded mutants of given programs: other constants, variables, calls; parents kept.

    The file is one that `programs validate` reads; each row says which program it was made from
    and what was changed.
    """
    from floodstage.cli.programs_demo import run_mutate

    run_mutate(
        file,
        out,
        tasks,
        tuple(preload or ()),
        count=count,
        changes=changes,
        keep_equal=keep_equal,
        seed=seed,
        as_json=json,
    )
