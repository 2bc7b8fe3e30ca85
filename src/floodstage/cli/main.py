"""The command line. Every command is one function call; heavy imports wait until it runs."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from floodstage.cli.analyze import analyze, compare
from floodstage.cli.canvas import app as canvas_app
from floodstage.cli.flood import app as flood_app
from floodstage.cli.lab import jacobi, replay, sweep, trace
from floodstage.cli.options import (
    Candidates,
    Device,
    Drafter,
    DraftLen,
    Dtype,
    Json,
    NewTokens,
    Prompts,
    Scheduler,
    Seed,
    Seeding,
    Target,
    Temperature,
    Threads,
    Verifier,
    Workload,
)
from floodstage.cli.programs import app as programs_app
from floodstage.cli.train import app as train_app
from floodstage.core.errors import ConfigError, Error

app = typer.Typer(
    name="floodstage",
    help="Generate in parallel what is usually generated one step at a time, and prove that "
    "nothing was lost.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(train_app, name="train")
app.add_typer(flood_app, name="flood")
app.add_typer(canvas_app, name="canvas")
app.add_typer(programs_app, name="programs")

for command in (analyze, compare, sweep, trace, replay, jacobi):
    app.command()(command)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue; '-' reads standard input.")],
    target: Target = "math-mini",
    drafter: Drafter = "auto",
    draft_len: DraftLen = None,
    scheduler: Scheduler = "fixed",
    candidates: Candidates = "none",
    seeding: Seeding = "none",
    verifier: Verifier = "match",
    max_new_tokens: NewTokens = None,
    temperature: Temperature = 0.0,
    top_k: Annotated[int, typer.Option(min=0, help="0 is off.")] = 0,
    top_p: Annotated[float, typer.Option(help="1 is off.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="0 is off.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="1 is off.")] = 1.0,
    stop: Annotated[list[str] | None, typer.Option(help="Stop before this text; repeat.")] = None,
    chat: Annotated[
        bool | None, typer.Option(help="Use the chat template. Default: if there is one.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 0,
    color: Annotated[
        bool | None, typer.Option(help="Colour accepted tokens. Default: on a terminal.")
    ] = None,
    json: Json = False,
) -> None:
    """Continue a text and stream it; accepted draft tokens are green.

    The output is the target's own, token for token, whatever the drafter. The last line on
    standard error says how fast it was.
    """
    from floodstage.cli.show import stream_to_terminal
    from floodstage.engine.build import load

    engine = load(
        target,
        drafter=drafter,
        draft_len=draft_len,
        scheduler=scheduler,
        candidates=candidates,
        seeding=seeding,
        verifier=verifier,
        device=device,
        dtype=dtype,
        threads=threads,
    )
    stream_to_terminal(
        engine,
        sys.stdin.read() if prompt == "-" else prompt,
        color=color,
        as_json=json,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        stop=tuple(stop or ()),
        chat=chat,
        seed=seed,
    )


@app.command()
def demo(
    prompts: Prompts = 8,
    target: Target = "math-mini",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """The shipped models on held-out problems: plain decoding beside speculative decoding."""
    from floodstage.cli.demo import run_demo

    run_demo(target, prompts=prompts, threads=threads, as_json=json)


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="Run folder; the same command goes on from it.")],
    target: Target = "math-mini",
    workload: Workload = "mathematics",
    arms: Annotated[
        str,
        typer.Option(
            help="Comma-separated; the first is the baseline. A drafter's name, with a draft "
            "length and policies if wanted (ngram:10, jacobi:8, lookahead:8, "
            "auto+best-first+cost), or a peer on the same weights: transformers, "
            "transformers-lookup:10, transformers-assistant:5."
        ),
    ] = "none,ngram,auto",
    assistant: Annotated[
        str | None, typer.Option(help="The smaller model of transformers-assistant.")
    ] = None,
    prompts: Prompts = 64,
    slots: Annotated[
        int, typer.Option(min=1, help="With 2 or more: throughput of so many at once.")
    ] = 1,
    max_new_tokens: NewTokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Measure arms side by side over a workload: interleaved, paired, every answer kept.

    The run folder gets env.json, records.jsonl and, from the records alone, summary.md, .csv and
    .json. tau is the mean number of tokens per target pass, the bonus included.
    """
    from floodstage.bench import compare
    from floodstage.cli.show import print_batches, print_bench

    config = compare.BenchConfig(
        target=target,
        workload=workload,
        arms=tuple(a.strip() for a in arms.split(",") if a.strip()),
        assistant=assistant,
        prompts=prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        device=device,
        dtype=dtype,
        threads=threads,
    )
    if slots > 1:
        print_batches(compare.bench_batches(config, out, slots=slots), out, as_json=json)
    else:
        print_bench(compare.bench(config, out), out, as_json=json)


@app.command()
def models() -> None:
    """List the models that come with floodstage."""
    from floodstage.cli.show import print_models

    print_models()


def main() -> None:
    """The entry point: errors become one sentence, exit code 2 for usage and 1 for failure."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "httpx2", "urllib3", "huggingface_hub", "transformers"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        # typer gives the code of an interrupt or an Exit
        code = app(prog_name="floodstage", standalone_mode=False)
        sys.stdout.flush()  # a reader that has gone is noticed here, not at the very end
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        code = _explain(error)
    if code == 130:
        print("\nStopped.", file=sys.stderr)
    sys.exit(code)


def _explain(error: Exception) -> int:
    """Print what went wrong; the exit code. What is nobody's mistake but ours stays a traceback."""
    usage = getattr(error, "show", None)  # click's own errors know how to say it
    if callable(usage):
        usage()
        return int(getattr(error, "exit_code", 2))
    if isinstance(error, Error):
        print(f"floodstage: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, OSError):
        print(f"floodstage: {error}", file=sys.stderr)
        return 1
    raise error


if __name__ == "__main__":
    main()
