"""`floodstage programs`: candidate programs, validated. Options become one call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from floodstage.cli.options import Json, Seed
from floodstage.cli.programs_propose import app as propose_app
from floodstage.cli.programs_store import app as store_app

app = typer.Typer(
    help="Candidate programs: filter, run apart from the machine, judge, store.",
    no_args_is_help=True,
)

IsolationLevel = Annotated[
    str,
    typer.Option(
        help="The least accepted: strict (seccomp and Landlock), seccomp, or limits (stops "
        "accidents, not attacks). The best that the kernel offers is used."
    ),
]


@app.command()
def validate(
    file: Annotated[
        Path,
        typer.Argument(
            help="Programs: samples as .jsonl or .jsonl.gz with task_id and completion or "
            "solution, a .py file of solve_<task> functions, or a folder of .py files."
        ),
    ],
    tasks: Annotated[
        Path,
        typer.Option(
            help="Tasks: a folder of ARC tasks, Kaggle's *_challenges.json, or HumanEval or MBPP "
            "problems as .jsonl or .jsonl.gz; or a folder of these."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run folder; the same command goes on from it.")],
    workers: Annotated[
        int, typer.Option(min=0, help="Engines, on each node; 0: one for each core of this one.")
    ] = 0,
    backend: Annotated[
        str, typer.Option(help="local, or ray: engines on every node of a Ray cluster.")
    ] = "local",
    nodes: Annotated[
        int,
        typer.Option(min=0, help="With ray: actors that run engines; 0: one for each node."),
    ] = 0,
    cpu: Annotated[
        float, typer.Option(help="Seconds of CPU time for each sample, or for all checks.")
    ] = 3.0,
    idle: Annotated[
        float, typer.Option(help="Seconds a program may do nothing before it is stopped.")
    ] = 5.0,
    memory_mb: Annotated[int, typer.Option(help="Memory on top of the interpreter's.")] = 256,
    isolation: IsolationLevel = "strict",
    preload: Annotated[
        list[Path] | None,
        typer.Option(
            help="A trusted module that programs import, of functions without side effects; "
            "repeat, in order of import."
        ),
    ] = None,
    tuples: Annotated[
        bool, typer.Option("--tuples", help="Give grids as tuples of tuples, not as lists.")
    ] = False,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; repeat.")] = None,
    id: Annotated[
        list[str] | None, typer.Option(help="Only the program of this id; repeat.")
    ] = None,
    start: Annotated[int, typer.Option(min=0, help="Leave out so many programs.")] = 0,
    count: Annotated[
        int | None, typer.Option(help="Only so many; negative: that many drawn by the seed.")
    ] = None,
    part: Annotated[str, typer.Option(help="Run all samples, or only demo or test ones.")] = "all",
    every_sample: Annotated[
        bool, typer.Option("--every-sample", help="Go on after a timeout, crash or the like.")
    ] = False,
    rerun_equal: Annotated[
        bool, typer.Option("--rerun-equal", help="Run programs that equal an earlier one, too.")
    ] = False,
    check_forms: Annotated[
        bool,
        typer.Option("--check-forms", help="Run normal forms as well; rows say where they differ."),
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Run again what the run folder holds.")
    ] = False,
    baseline: Annotated[
        Path | None,
        typer.Option(help="Run folder of an earlier run, to say how much faster this one was."),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(help="Write a picture of the time for chrome://tracing or Perfetto."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and filter only; run and write nothing.")
    ] = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """A verdict for every program, in a store that survives a kill; then where the time went.

    Expected answers never enter a program's process. The run folder gets verdicts.sqlite,
    profile.json, FILE_results.jsonl and, for ARC tasks, submission.json.
    """
    from floodstage.core.spans import Spans, process_age_s

    spans, age_s = Spans(keep_events=trace is not None), process_age_s()
    spans.before("start-up", age_s)
    with spans("imports"):
        from floodstage.cli.programs_run import Shown, run_validate
        from floodstage.programs.sandbox.limits import Limits
        from floodstage.programs.validate import Selection, ValidateConfig, cores

    config = ValidateConfig(
        workers=workers or cores(),
        limits=Limits(cpu_s=cpu, idle_s=idle, memory_bytes=memory_mb << 20),
        isolation=isolation,
        preload=tuple(preload or ()),
        tuples=tuples,
        every_sample=every_sample,
        find_duplicates=not rerun_equal,
        check_forms=check_forms,
        cached=not no_cache,
        backend=backend,
        nodes=nodes,
    )
    chosen = Selection(
        tasks=tuple(task or ()), ids=tuple(id or ()), start=start, count=count, seed=seed
    )
    shown = Shown(dry_run=dry_run, as_json=json, baseline=baseline, trace=trace)
    run_validate(file, tasks, out, config, chosen, shown, spans, part=part)


@app.command()
def selftest(isolation: IsolationLevel = "limits", json: Json = False) -> None:
    """Try to get out of a program's process, and say which isolation holds on this machine."""
    from floodstage.cli.programs_run import run_selftest

    run_selftest(isolation, as_json=json)


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(help="Run folder of `programs validate`.")],
    candidate: Annotated[str, typer.Argument(help="Which one, as FILE_results.jsonl names it.")],
    source: Annotated[bool, typer.Option("--source", help="Print the program as well.")] = False,
    json: Json = False,
) -> None:
    """Why a program has its verdict: every trial, what it cost, how its form was taken."""
    from floodstage.cli.programs_run import run_explain

    run_explain(run, candidate, with_source=source, as_json=json)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder of `programs validate`.")],
    to: Annotated[Path, typer.Option(help="Folder to write.")],
    keep: Annotated[int, typer.Option(help="Most programs of a task, the best first.")] = 32,
    json: Json = False,
) -> None:
    """The best programs of each task as files: solve_TASK/SCORE/SPEED/DIGEST.py.

    The score is 1000 for each sample passed; a step of speed is a factor of e in CPU time.
    """
    from floodstage.cli.programs_run import run_export

    run_export(run, to, keep, as_json=json)


@app.command()
def bench(
    problems: Annotated[Path, typer.Option(help="HumanEval's problems, .jsonl or .jsonl.gz.")],
    out: Annotated[Path, typer.Option(help="Run folder; the same command goes on from it.")],
    repeats: Annotated[int, typer.Option(min=1, help="Turns A B B A.")] = 2,
    copies: Annotated[int, typer.Option(min=1, help="Of each problem's own answer.")] = 10,
    trivial: Annotated[int, typer.Option(min=1, help="Programs that do nothing.")] = 3000,
    workers: Annotated[int, typer.Option(min=0, help="Engines; 0: one for each core.")] = 0,
    json: Json = False,
) -> None:
    """Programs per second, beside a process for each sample, and how exact a CPU limit is.

    Everything is measured on this machine in turns; use a quiet one.
    """
    from floodstage.cli.programs_run import run_bench

    run_bench(problems, out, repeats, copies, trivial, workers, as_json=json)


app.add_typer(propose_app)
app.add_typer(store_app)
