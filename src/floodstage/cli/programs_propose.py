"""`floodstage programs mutate | sample | demo`: where candidates come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from floodstage.cli.options import (
    Candidates,
    Device,
    Drafter,
    DraftLen,
    Dtype,
    Json,
    Scheduler,
    Seed,
    Target,
    Temperature,
    Threads,
)

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


@app.command()
def sample(
    tasks: Annotated[Path, typer.Option(help="Problems in HumanEval's form, .jsonl or .jsonl.gz.")],
    out: Annotated[Path, typer.Option(help="Run folder; the same command goes on from it.")],
    target: Target = "code-mini",
    drafter: Drafter = "auto",
    draft_len: DraftLen = None,
    scheduler: Scheduler = "fixed",
    candidates: Candidates = "none",
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Samples of each problem.")] = 10,
    temperature: Temperature = 0.8,
    top_p: Annotated[float, typer.Option(help="1 is off.")] = 0.95,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a sample.")] = 256,
    slots: Annotated[int, typer.Option(min=1, help="Samples written at once.")] = 8,
    task: Annotated[list[str] | None, typer.Option(help="Only this problem; repeat.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Engines; 0: one for each core.")] = 0,
    isolation: Annotated[
        str, typer.Option(help="The least accepted, as in `programs validate`.")
    ] = "strict",
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Let a model write programs, speculatively and in a batch, and validate them: pass@k, and
    tokens per target pass."""
    from floodstage.bench.program_samples import SampleConfig
    from floodstage.cli.programs_sample import run_sample
    from floodstage.programs.validate import ValidateConfig, cores

    config = SampleConfig(
        target=target,
        drafter=drafter,
        draft_len=draft_len,
        scheduler=scheduler,
        candidates=candidates,
        n=n,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        slots=slots,
        seed=seed,
        device=device,
        dtype=dtype,
        threads=threads,
        validate=ValidateConfig(workers=workers or cores(), isolation=isolation),
    )
    run_sample(config, tasks, out, tuple(task or ()), as_json=json)
