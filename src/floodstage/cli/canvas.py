"""`floodstage canvas`: options become filled grids."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from floodstage.cli.options import Device, Dtype, Json, Seed, Threads

app = typer.Typer(
    help="Canvas refinement: whole grids filled in a few passes, against autoregression.",
    no_args_is_help=True,
)

TASK_HELP = "sum (i + j), affine (a i + b j + c mod 7), latin or sudoku."
Task = Annotated[str, typer.Option(help=TASK_HELP)]
Model = Annotated[
    str, typer.Option(help="Shipped name or folder of the denoiser. auto: the task's.")
]
Twin = Annotated[
    str, typer.Option(help="Shipped name or folder of the autoregressive twin. auto: the task's.")
]
Passes = Annotated[int, typer.Option(min=1, help="Most passes over a grid.")]
Schedule = Annotated[
    str,
    typer.Option(
        help="Which holes a pass fills: threshold (those sure enough), linear, cosine, or one "
        "(the surest only, as many passes as it takes)."
    ),
]
Threshold = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Confidence that fills a hole (threshold).")
]
Remask = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, help="Mask filled cells again that are less likely than this; 0: never."
    ),
]
Propose = Annotated[
    bool,
    typer.Option(
        help="Put the likeliest whole grid to the checker after every pass, and stop there if it "
        "is right."
    ),
]


@app.command()
def solve(
    file: Annotated[
        str,
        typer.Argument(
            help="A CSV of whole numbers; an empty cell, '?', '.' or '_' is a hole. '-' reads "
            "standard input."
        ),
    ],
    task: Task = "sudoku",
    model: Model = "auto",
    out: Annotated[Path | None, typer.Option(help="Write the filled CSV here.")] = None,
    film: Annotated[
        Path | None, typer.Option(help="Write a PNG of the grid after every pass.")
    ] = None,
    passes: Passes = 32,
    schedule: Schedule = "threshold",
    threshold: Threshold = 0.99,
    remask: Remask = 0.5,
    propose: Propose = True,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Fill a CSV with holes. Clues stay as they are.

    The law of the task judges the result, not the model: where it finds a fault, the faults are
    said and the exit code is 1.
    """
    from floodstage.cli.show import print_canvas
    from floodstage.decoding.refine import Refinement
    from floodstage.engine.canvas import load_canvas
    from floodstage.text.grids import read_csv

    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    given = read_csv(text)
    name = f"canvas-{task}" if model == "auto" else model
    engine = load_canvas(name, device=device, dtype=dtype, threads=threads)
    refinement = Refinement(
        passes=passes, schedule=schedule, threshold=threshold, remask=remask, propose=propose
    )
    right = print_canvas(engine, given, refinement, out=out, film_path=film, as_json=json)
    if not right:
        raise typer.Exit(1)


@app.command()
def bench(
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder; the same command goes on from it. Default: runs/canvas-..."),
    ] = None,
    size: Annotated[str, typer.Option(help="Sizes HxW, comma-separated.", metavar="HxW")] = "64x64",
    task: Task = "sum",
    batch: Annotated[str, typer.Option(help="Grids at once, comma-separated.")] = "1",
    repeats: Annotated[int, typer.Option(min=1, help="Rounds of every arm, interleaved.")] = 3,
    exact: Annotated[
        int, typer.Option(min=0, help="Instances of every size checked for exactness alone.")
    ] = 0,
    twin_cells: Annotated[
        int, typer.Option(min=1, help="Most cells of a batch that the twin is asked to write.")
    ] = 70_000,
    model: Model = "auto",
    twin: Twin = "auto",
    passes: Passes = 10,
    schedule: Schedule = "threshold",
    threshold: Threshold = 0.99,
    remask: Remask = 0.5,
    propose: Propose = True,
    target: Annotated[
        str | None,
        typer.Option(
            help="Timing only: any causal model; cached autoregression of --tokens against "
            "--passes full passes over as many. The output means nothing."
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of the timing.")] = 1024,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Grids filled in a few passes beside the autoregressive twin that writes them cell by cell.

    Both are of the same layers and as many parameters; the checker knows only the law. The run
    folder gets records, tables and the plots tokens_vs_time.png and latency_vs_cells.png.
    """
    from floodstage.bench.canvas import CanvasBenchConfig, canvas_bench
    from floodstage.cli.options import sizes, whole_numbers
    from floodstage.cli.show import print_tables
    from floodstage.decoding.refine import Refinement

    if target is not None:
        from floodstage.bench.timing import TimingConfig, run_timing
        from floodstage.cli.show import print_timing

        timing = TimingConfig(
            target=target,
            tokens=tokens,
            passes=passes,
            repeats=repeats,
            seed=seed,
            device=device,
            dtype=dtype,
            threads=threads,
        )
        print_timing(run_timing(timing), as_json=json)
        return
    config = CanvasBenchConfig(
        task=task,
        sizes=sizes("--size", size),
        batches=whole_numbers("--batch", batch),
        repeats=repeats,
        exact=exact,
        twin_cells=twin_cells,
        model=model,
        twin=twin,
        refinement=Refinement(
            passes=passes, schedule=schedule, threshold=threshold, remask=remask, propose=propose
        ),
        seed=seed,
        device=device,
        dtype=dtype,
        threads=threads,
    )
    folder = out or Path("runs") / f"canvas-{task}-{size.replace(',', '-')}"
    print_tables(canvas_bench(config, folder), folder, as_json=json)


@app.command()
def study(
    out: Annotated[Path, typer.Option(help="Run folder; the same command goes on from it.")],
    task: Task = "sudoku",
    side: Annotated[int, typer.Option(min=1, help="Rows and columns of a puzzle.")] = 9,
    puzzles: Annotated[int, typer.Option(min=1, help="Held-out puzzles.")] = 200,
    passes: Annotated[str, typer.Option(help="Numbers of passes.")] = "1,2,4,8,16,32",
    remask: Remask = 0.5,
    model: Model = "auto",
    twin: Twin = "auto",
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Solve rate against passes by schedule, beside one cell at a time and beside the twin."""
    from floodstage.bench.canvas_study import CanvasStudyConfig, canvas_study
    from floodstage.cli.options import whole_numbers
    from floodstage.cli.show import print_tables

    config = CanvasStudyConfig(
        task=task,
        size=side,
        puzzles=puzzles,
        passes=whole_numbers("--passes", passes),
        remask=remask,
        model=model,
        twin=twin,
        seed=seed,
        device=device,
        dtype=dtype,
        threads=threads,
    )
    print_tables(canvas_study(config, out), out, as_json=json)
