"""`floodstage demo`: plain decoding beside speculative decoding, on the shipped models."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from floodstage.bench.arms import OurArm
from floodstage.bench.compare import BenchConfig, make_arms
from floodstage.bench.measure import measure
from floodstage.bench.summary import ArmSummary, write_summaries
from floodstage.bench.workloads import Workload, load_workload
from floodstage.cli.show import DRAFTED, legend, screen, table, write
from floodstage.core.types import Request
from floodstage.engine.engine import Engine
from floodstage.engine.options import Options
from floodstage.text.tokenizer import Prompt

SHOWN = 2
"""Problems that are streamed before the measurement."""


def run_demo(
    target: str,
    *,
    prompts: int,
    threads: int,
    as_json: bool,
    console: Console | None = None,
) -> None:
    """Stream some held-out problems, then measure all of them, interleaved, and compare."""
    console = console or screen(as_json)
    config = BenchConfig(target=target, arms=("none", "ngram", "auto"), threads=threads)
    arms, engine = make_arms(config)
    best = arms[-1]
    assert isinstance(best, OurArm)  # "auto" is ours
    name = "mathematics" if target.startswith("math") else "code"
    workload = load_workload(name, prompts, seed=1)
    console.print(
        f"[bold]{target}[/bold] on {len(workload.items)} held-out prompts it was never trained on. "
        f"[{DRAFTED}]Green[/{DRAFTED}]: drafted by {best.engine.drafter.name} and accepted; "
        "the rest: the target's own.\n"
    )
    _stream(console, best.engine, workload)

    def ask(prompt: Prompt, number: int) -> Request:
        return engine.request(prompt, Options(max_new_tokens=256))

    with tempfile.TemporaryDirectory() as folder:
        measure(arms, workload, ask, Path(folder), settings={}, progress=console.is_terminal)
        lines = write_summaries(Path(folder))
    console.print(table(lines))
    console.print(legend(lines))
    console.print(verdict(lines))
    if as_json:
        print(json.dumps([asdict(line) for line in lines]))


def _stream(console: Console, engine: Engine, workload: Workload) -> None:
    for item in workload.items[:SHOWN]:
        console.print(Text(item.prompt, style="bold"))
        for chunk in engine.stream(item.prompt, max_new_tokens=256):
            write(console, chunk)
        console.print("\n")


def verdict(lines: list[ArmSummary]) -> str:
    """The line that says whether anything was lost."""
    same = all(line.identical == line.prompts for line in lines)
    last = lines[-1]
    if same:
        return (
            f"All outputs are identical, token for token: {last.identical} of {last.prompts} "
            f"prompts. {last.arm}: {last.speedup} times the speed of plain decoding."
        )
    return "[bold red]The outputs differ: this is a bug, please report it.[/bold red]"
