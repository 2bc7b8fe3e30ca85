"""`floodstage flood`: options become a flood."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from floodstage.cli.options import (
    Device,
    Drafter,
    DraftLen,
    Dtype,
    Json,
    Scheduler,
    Seed,
    Threads,
)

app = typer.Typer(
    help="Flash flood: a manager plans in roots, a renderer writes all their characters at once.",
    no_args_is_help=True,
)

Manager = Annotated[str, typer.Option(help="Shipped name or folder of the manager.")]
RendererName = Annotated[
    str, typer.Option(help="Shipped name or folder. auto: the one beside the manager.")
]
K = Annotated[int, typer.Option("--k", min=1, help="Draws of a parent; the lowest energy is kept.")]
Noise = Annotated[str, typer.Option(help="What draws begin with: mask or uniform.")]
DrawSteps = Annotated[int, typer.Option(min=1, help="Denoising passes of a draw.")]
DrawTemperature = Annotated[
    float, typer.Option(min=0.0, help="Of the renderer's draws after the first, which is greedy.")
]
Threshold = Annotated[
    float | None,
    typer.Option(help="Draw parents again whose energy is not below this (0: even odds)."),
]
Retries = Annotated[int, typer.Option(min=0, help="Most times a parent is drawn again.")]


@app.command()
def generate(
    prompt: Annotated[
        str | None,
        typer.Option(help="Text to continue; '-' reads standard input. Default: start afresh."),
    ] = None,
    roots: Annotated[int, typer.Option(min=1, help="Most roots to write.")] = 200,
    k: K = 1,
    group: Annotated[
        int, typer.Option(min=0, help="Render as soon as so many roots are there; 0: all at once.")
    ] = 64,
    manager: Manager = "flood-manager",
    renderer: RendererName = "auto",
    drafter: Drafter = "auto",
    draft_len: DraftLen = None,
    scheduler: Scheduler = "fixed",
    temperature: Annotated[
        float | None,
        typer.Option(min=0.0, help="Of the plan. Default: 0 with a prompt, 0.8 without."),
    ] = None,
    top_k: Annotated[int, typer.Option(min=0, help="Of the plan; 0 is off.")] = 0,
    go_on: Annotated[
        bool, typer.Option("--go-on", help="Go on with new texts after the first has ended.")
    ] = False,
    noise: Noise = "mask",
    steps: DrawSteps = 1,
    draw_temperature: DrawTemperature = 1.0,
    threshold: Threshold = None,
    retries: Retries = 10,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Write a text by a flood and stream it; then say where the time went.

    The manager's roots are its own, root for root, whatever the drafter; rendering takes a constant
    number of passes for every group of roots.
    """
    from floodstage.cli.show import stream_flood
    from floodstage.decoding.draws import Drawing
    from floodstage.engine.flood import load_flood

    flood = load_flood(
        manager,
        renderer=renderer,
        drafter=drafter,
        draft_len=draft_len,
        scheduler=scheduler,
        device=device,
        dtype=dtype,
        threads=threads,
    )
    stream_flood(
        flood,
        sys.stdin.read() if prompt == "-" else prompt,
        as_json=json,
        roots=roots,
        group=group,
        temperature=(0.8 if prompt is None else 0.0) if temperature is None else temperature,
        top_k=top_k,
        ignore_eos=go_on,
        seed=seed,
        drawing=Drawing(
            k=k,
            temperature=draw_temperature,
            noise=noise,
            steps=steps,
            threshold=threshold,
            retries=retries,
            seed=seed,
        ),
    )


@app.command()
def edit(
    text: Annotated[str, typer.Argument(help="The text; '-' reads standard input.")],
    at: Annotated[int, typer.Option(min=0, help="Which root to replace, from 0 on.")],
    by: Annotated[str, typer.Option(help="What to put there: text that is one root.")],
    renderer: RendererName = "flood-renderer",
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Replace one root of a text and render only it; all other characters stay as they are."""
    from floodstage.cli.show import print_edit
    from floodstage.engine.flood import load_decoder

    decoder = load_decoder(renderer, device=device, threads=threads)
    print_edit(decoder, sys.stdin.read() if text == "-" else text, at, by, as_json=json)


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="Run folder; the same command goes on from it.")],
    roots: Annotated[str, typer.Option(help="How many roots: comma-separated sizes.")] = (
        "50,200,1000"
    ),
    k: Annotated[int, typer.Option("--k", min=2, help="Draws of the arms with many.")] = 16,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds of every arm, interleaved.")] = 6,
    manager: Manager = "flood-manager",
    renderer: RendererName = "auto",
    chars: Annotated[
        str, typer.Option(help="Character-level model to compare with; none leaves it out.")
    ] = "flood-chars",
    corpus: Annotated[str, typer.Option(help="Held-out text for exactness.")] = "mathematics",
    temperature: Annotated[float, typer.Option(min=0.0, help="Of the plan.")] = 0.8,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """The ladder from one-at-a-time to flood on the same roots: speed beside exactness.

    Every arm renders the same plan; only characters that the hierarchy's own table confirms count.
    """
    from floodstage.bench.flood import LadderConfig, ladder
    from floodstage.cli.options import whole_numbers
    from floodstage.cli.show import print_tables

    config = LadderConfig(
        roots=whole_numbers("--roots", roots),
        k=k,
        repeats=repeats,
        manager=manager,
        renderer=renderer,
        chars=chars,
        corpus=corpus,
        temperature=temperature,
        seed=seed,
        device=device,
        dtype=dtype,
        threads=threads,
    )
    print_tables(ladder(config, out), out, as_json=json)


@app.command()
def study(
    out: Annotated[Path, typer.Option(help="Run folder; the same command goes on from it.")],
    renderer: RendererName = "flood-renderer",
    k: Annotated[str, typer.Option("--k", help="Numbers of draws.")] = "1,2,4,8,16,32,64",
    steps: Annotated[str, typer.Option(help="Numbers of denoising passes.")] = "1,2,4,8",
    temperature: DrawTemperature = 1.0,
    parents: Annotated[int, typer.Option(min=8, help="Parents of each level.")] = 64,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """When does best-of-K pay? Distinct draws, and how right the first, the lowest in energy, a
    random and the best possible one are; and how well the energy finds wrong children."""
    from floodstage.bench.flood_study import StudyConfig, run_study
    from floodstage.cli.options import whole_numbers
    from floodstage.cli.show import print_tables

    config = StudyConfig(
        renderer=renderer,
        k=whole_numbers("--k", k),
        steps=whole_numbers("--steps", steps),
        temperature=temperature,
        parents=parents,
        seed=seed,
        device=device,
        threads=threads,
    )
    print_tables(run_study(config, out), out, as_json=json)
