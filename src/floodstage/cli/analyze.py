"""`floodstage analyze` and `floodstage compare`: run folders in, tables out."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodstage.cli.options import Json

if TYPE_CHECKING:
    from rich.console import Console

    from floodstage.bench.tables import Table


def analyze(
    run: Annotated[Path, typer.Argument(help="A folder that `floodstage bench` wrote.")],
    baseline: Annotated[
        str | None, typer.Option(help="The arm that speedups are over. Default: the first.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the files go. Default: 'analysis' in the run folder.")
    ] = None,
    json: Json = False,
) -> None:
    """Summaries, plots and one HTML page from the records of a run.

    Writes summary.md, .json and .csv, a CSV per answer, per cycle and per curve, the plots, and
    report.html, which holds all of it in one file. The records are only read.
    """
    from rich.console import Console
    from rich.progress import Progress

    from floodstage.bench import analysis, report, tables, trace

    folder = run / "analysis" if out is None else out
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=None)
        found = trace.read_trace(run)
        figures = analysis.analyze(found, baseline)

        def notice(file: str) -> None:
            progress.update(task, description=f"wrote {file}")

        report.write_report(found, figures, folder, notice=notice)
    for sentence in trace.describe(found):
        print(sentence, file=sys.stderr)
    screen = _screen(json)
    for table in tables.tables(figures):
        _show(screen, table)
    for note in tables.NOTES:
        screen.print(note, markup=False, width=100)
    screen.print(f"\nThe report: {folder / 'report.html'}", markup=False, soft_wrap=True)
    if json:
        print(jsonlib.dumps(report.document(found, figures)))


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A run folder.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another, of the same prompts.")],
    arm: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_A[,NAME_B]",
            help="Compare this arm only, or two arms of different names. Default: all arms that "
            "both runs have.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Compare two runs of the same prompts, arm by arm: two commits, machines or settings.

    Gives the ratio of tokens/s and the difference of tau with paired 95 % intervals, how many
    answers are the same, and which settings differ.
    """
    from floodstage.bench import trace, versus

    found = versus.compare_runs(trace.read_trace(a), trace.read_trace(b), arm)
    for note in found.notes:
        print(note, file=sys.stderr)
    _screen(json).print(versus.markdown(found), markup=False, soft_wrap=True)
    if json:
        print(jsonlib.dumps(versus.document(found)))


def _screen(as_json: bool) -> Console:
    """Standard output, or standard error where standard output is for JSON."""
    from rich.console import Console

    console = Console(highlight=False, stderr=as_json)
    return console if console.is_terminal else Console(highlight=False, stderr=as_json, width=200)


def _show(screen: Console, table: Table) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=table.title, caption=Text(table.note))
    for i, head in enumerate(table.head):
        drawn.add_column(Text(head), justify="left" if i == 0 else "right")
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    screen.print(drawn)
