"""`floodstage sweep`, `trace`, `replay` and `jacobi`: which draft length, which policy, what is
possible."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from floodstage.cli.options import (
    Device,
    Drafter,
    Dtype,
    Json,
    NewTokens,
    Prompts,
    Seed,
    Target,
    Temperature,
    Threads,
    Workload,
)


def sweep(
    out: Annotated[Path, typer.Option(help="Run folder; the same command goes on from it.")],
    draft_len: Annotated[
        str, typer.Option(help="Tokens to draft: 4,8,12 or 4-16 or 4-16:2; empty for none.")
    ] = "4,8,12,16,20,24",
    policies: Annotated[
        str,
        typer.Option(
            help="More arms, comma-separated: a scheduler (rolling, ewma, adl, confidence, cost), "
            "candidates (beam, prefix-rank, uncertain-sparse, best-first; adaptive- before it), a "
            "seeding (seed-sparse, seed-dense, seed-aligned, seed-branch), or several joined by "
            "'+'; settings as in 'ewma(alpha=0.2;probe_interval=0)'."
        ),
    ] = "",
    target: Target = "math-mini",
    drafter: Drafter = "auto",
    workload: Workload = "mathematics",
    prompts: Prompts = 64,
    max_new_tokens: NewTokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run.")] = False,
    json: Json = False,
) -> None:
    """Measure draft lengths and policies beside one shared baseline, plain decoding.

    An arm that fails becomes an error row; the others go on. `floodstage analyze RUN` then makes
    the tables, the plots and the report.
    """
    from floodstage.bench.compare import BenchConfig, bench
    from floodstage.bench.sweep import sweep_arms

    config = BenchConfig(
        target=target,
        workload=workload,
        arms=sweep_arms(drafter, draft_len, _words(policies)),
        prompts=prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        device=device,
        dtype=dtype,
        threads=threads,
    )
    if dry_run:
        print(f"{prompts} prompts of {workload}, every arm twice, into {out}:")
        print("\n".join(f"  {arm}" for arm in config.arms))
        return
    from floodstage.cli.show import print_bench

    print_bench(bench(config, out, keep_going=True), out, as_json=json)


def trace(
    out: Annotated[Path, typer.Option(help="Folder of the trace; the same command goes on.")],
    target: Target = "math-mini",
    drafter: Drafter = "auto",
    workload: Workload = "mathematics",
    prompts: Prompts = 64,
    max_new_tokens: NewTokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 0,
) -> None:
    """Note, at every token of every text, what the drafter would have proposed there.

    `floodstage replay` then scores any policy that cuts drafts, without a model.
    """
    from floodstage.bench.compare import BenchConfig
    from floodstage.bench.sweep import trace as run

    config = BenchConfig(
        target=target,
        workload=workload,
        prompts=prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        device=device,
        dtype=dtype,
        threads=threads,
    )
    run(config, drafter, out)
    print(out)


def replay(
    traces: Annotated[
        list[Path],
        typer.Argument(help="Folders of `floodstage trace`; several are mixed in turns."),
    ],
    policies: Annotated[
        str,
        typer.Option(
            help="Comma-separated: fixed:N or fixed:N-M, rolling, ewma, adl, confidence, cost "
            "(with settings if wanted), oracle."
        ),
    ] = "fixed:1-15,rolling,ewma,adl,confidence,cost,oracle",
    json: Json = False,
) -> None:
    """Score policies offline on a trace: tau exactly, seconds from its measured costs.

    `oracle` knows what will be kept: no policy that cuts drafts can be faster.
    """
    from dataclasses import asdict

    from floodstage.bench.replay import markdown
    from floodstage.bench.sweep import replay_run

    scores = replay_run(traces, _words(policies))
    print(markdown(scores), file=sys.stderr if json else sys.stdout)
    if json:
        print(jsonlib.dumps([asdict(score) for score in scores]))


def jacobi(
    out: Annotated[Path, typer.Option(help="Run folder; the same command goes on from it.")],
    target: Target = "math-mini",
    workload: Workload = "mathematics",
    prompts: Prompts = 16,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of every answer to iterate.")] = 64,
    sketch: Annotated[
        str, typer.Option(help="Per cents of true tokens to begin with, evenly spaced.")
    ] = "0,10,50",
    fill: Annotated[
        str,
        typer.Option(
            help="What stands at the other places: repeat (the token before the sketch), random, "
            "or a token's id."
        ),
    ] = "repeat",
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Trace Jacobi decoding: accuracy by pass from a sketch of the whole answer, known tokens
    clamped and not, and how many passes it takes until nothing changes."""
    from floodstage.bench.jacobi import JacobiConfig, run_jacobi
    from floodstage.cli.options import whole_numbers
    from floodstage.cli.show import print_tables

    config = JacobiConfig(
        target=target,
        workload=workload,
        prompts=prompts,
        tokens=tokens,
        sketch=whole_numbers("--sketch", sketch, least=0),
        fill=fill,
        seed=seed,
        device=device,
        dtype=dtype,
        threads=threads,
    )
    print_tables(run_jacobi(config, out), out, as_json=json)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
