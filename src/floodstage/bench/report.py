"""Write an analysis down: Markdown, JSON, CSV, plots, and one HTML page that holds it all.

Every file appears whole or not at all. Knows file formats, and no figure that is not in the
analysis or the trace.
"""

from __future__ import annotations

import csv
import io
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from html import escape
from pathlib import Path
from typing import Any

from floodstage.bench.analysis import Analysis, ArmFigures, first_ids, tpot_s
from floodstage.bench.curves import Bin, Block, Lag, Position, RowCost
from floodstage.bench.plots import Plot, draw_all
from floodstage.bench.tables import NOTES, Table, environment, flat, tables, usage
from floodstage.bench.tables import markdown as table_markdown
from floodstage.bench.trace import COUNTS, SECONDS, Answer, ArmTrace, RunTrace, describe
from floodstage.core.files import write_whole
from floodstage.core.metrics import Interval

Cells = Iterable[Sequence[Any]]


def write_report(
    trace: RunTrace,
    analysis: Analysis,
    out: Path,
    *,
    notice: Callable[[str], None] = lambda file: None,
) -> list[Path]:
    """Write all files into the folder `out`, made if need be; their paths, in order of writing.
    `notice` hears the name of each."""
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def put(file: str, content: str | bytes) -> None:
        write_whole(out / file, content)
        written.append(out / file)
        notice(file)

    put("summary.md", markdown(trace, analysis))
    put("summary.json", json.dumps(document(trace, analysis), indent=1) + "\n")
    for file, (head, rows) in csv_files(trace, analysis).items():
        put(file, csv_text(head, rows))
    plots = []
    for plot in draw_all(trace, analysis):
        plots.append(plot)
        put(plot.file, plot.png)
    put("report.html", html(trace, analysis, plots))
    return written


def document(trace: RunTrace, analysis: Analysis) -> dict[str, Any]:
    """The analysis as JSON: what the summary and the curves say, the cycles left out."""
    faults = [asdict(fault) for fault in trace.faults]
    return {"run": trace.name, "env": trace.env, **asdict(analysis), "skipped": faults}


def markdown(trace: RunTrace, analysis: Analysis) -> str:
    """The summary for people."""
    parts = [f"# Analysis of {trace.name}\n"]
    parts += [f"> {sentence}\n" for sentence in describe(trace)]
    parts += [_section(table) for table in (*tables(analysis), usage(analysis)) if table.rows]
    parts.append("## How to read this\n")
    parts.append("".join(f"- {note}\n" for note in NOTES))
    if trace.env:
        parts.append(_section(environment(trace.env)))
    return "\n".join(parts)


def _section(table: Table) -> str:
    return f"## {table.title}\n\n{table_markdown(table)}"


def csv_files(
    trace: RunTrace, analysis: Analysis
) -> dict[str, tuple[Sequence[str], Iterable[Sequence[Any]]]]:
    """Head and rows of every CSV file."""
    base = None if analysis.baseline is None else trace.arms[analysis.baseline]
    bins = [b for r in analysis.reliability for b in r.bins]
    return {
        "summary.csv": _records(ArmFigures, analysis.arms),
        "per_sample_summary.csv": (SAMPLE, _samples(trace, base)),
        "cycle_trace_flat.csv": (FLAT, _flat(trace)),
        "per_block_realized_throughput.csv": _records(Block, analysis.blocks),
        "survival.csv": _records(Position, analysis.positions),
        "cost.csv": _records(RowCost, analysis.cost),
        "reliability.csv": _records(Bin, bins),
        "autocorrelation.csv": _records(Lag, analysis.autocorrelation),
    }


SAMPLE = ("arm", "prompt", "pass", "turn", "group", "tokens", "finish", "right", "ttft_s", "wall_s",
          "tokens_per_s", "tpot_s", "cycles", "tau", "accepted", "verified", "repeated_4grams",
          "identical", "first_difference")  # fmt: skip
FLAT = ("arm", "prompt", "pass", "turn", "cycle", "tokens_before", *COUNTS, *SECONDS, "cycle_s")
INTERVALS = {"speedup", "tau"}


def _records(kind: type[Any], rows: Iterable[Any]) -> tuple[list[str], list[list[Any]]]:
    """Dataclasses as rows; a figure with an interval takes three columns."""
    head: list[str] = []
    for f in fields(kind):
        head += [f.name, f"{f.name}_low", f"{f.name}_high"] if f.name in INTERVALS else [f.name]
    return head, [[x for f in fields(kind) for x in _spread(f.name, row)] for row in rows]


def _spread(name: str, row: Any) -> tuple[Any, ...]:
    value = getattr(row, name)
    if name not in INTERVALS:
        return (value,)
    return (value.value, value.low, value.high) if isinstance(value, Interval) else (None,) * 3


def _samples(trace: RunTrace, base: ArmTrace | None) -> Iterable[Sequence[Any]]:
    first = {} if base is None else first_ids(base)
    for arm in trace.arms.values():
        c = arm.cycles
        for number, a in enumerate(arm.answers):
            mine = slice(*c.answer.searchsorted((number, number + 1)))
            cycles = mine.stop - mine.start
            wanted = first.get((a.prompt, a.turn))
            differs = None if wanted is None else first_difference(a.ids, wanted)
            yield (
                *(arm.name, a.prompt, a.half, a.turn, a.group, len(a.ids), a.finish, a.right),
                *(a.ttft_s, a.wall_s, len(a.ids) / a.wall_s, tpot_s([a]), int(cycles)),
                float(c.gained[mine].mean()) if cycles else None,
                *(int(c.accepted[mine].sum()), int(c.verified[mine].sum()), a.repeated_4grams),
                *((None, None) if wanted is None else (differs is None, differs)),
            )


def first_difference(ids: Sequence[int], other: Sequence[int]) -> int | None:
    """The place of the first id that differs, from 0; None where none does."""
    if ids == other:
        return None
    pairs = zip(ids, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(other)))


def _flat(trace: RunTrace) -> Iterable[Sequence[Any]]:
    for arm in trace.arms.values():
        c = arm.cycles
        columns = [c.number, c.before, *(getattr(c, name) for name in (*COUNTS, *SECONDS))]
        columns.append(c.cycle_s)
        whose = [arm.answers[i] for i in c.answer.tolist()]
        named: list[list[Any]] = [[arm.name] * len(c), *_keys(whose)]
        yield from zip(*named, *(column.tolist() for column in columns), strict=True)


def _keys(answers: Sequence[Answer]) -> tuple[list[int], list[int], list[int]]:
    return [a.prompt for a in answers], [a.half for a in answers], [a.turn for a in answers]


def csv_text(head: Sequence[str], rows: Cells) -> str:
    """A CSV file as text; what is None is an empty cell."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(head)
    table.writerows(rows)
    return text.getvalue()


def html(trace: RunTrace, analysis: Analysis, plots: Sequence[Plot]) -> str:
    """One page that needs no other file and no network."""
    body = [f"<h1>Analysis of {escape(trace.name)}</h1>", f"<p>{escape(_where(trace.env))}</p>"]
    body += [f'<p class="fault">{escape(sentence)}</p>' for sentence in describe(trace)]
    body += [_html_table(table) for table in (*tables(analysis), usage(analysis))]
    body += ["<h2>How to read this</h2>", "<ul>"]
    body += [f"<li>{escape(note)}</li>" for note in NOTES] + ["</ul>"]
    body += [_html_plot(plot) for plot in plots]
    body.append(_html_table(environment(trace.env)))
    return PAGE.format(title=escape(trace.name), style=CSS, body="\n".join(body))


def _where(env: Mapping[str, Any]) -> str:
    """The machine and the commit in a sentence."""
    every = flat(env).items()
    versions = ", ".join(
        f"{name.removeprefix('versions.')} {value}"
        for name, value in every
        if name.startswith("versions.")
    )
    known = {
        "": env.get("workload", ""),
        "prompt hash": env.get("prompt_hash", ""),
        "device": env.get("device", ""),
        "processor": env.get("processor", ""),
        "threads": env.get("threads", ""),
        "versions": versions,
        "commit": env.get("commit", ""),
    }
    return " · ".join(f"{k} {v}".strip() for k, v in known.items() if v != "")


def _html_table(table: Table) -> str:
    if not table.rows:
        return ""
    head = "".join(f"<th>{escape(x)}</th>" for x in table.head)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(x)}</td>" for x in row) + "</tr>" for row in table.rows
    )
    return (
        f"<h2>{escape(table.title)}</h2>\n<div><table>\n<tr>{head}</tr>\n{rows}\n</table></div>\n"
        f"<p>{escape(table.note)}</p>"
    )


def _html_plot(plot: Plot) -> str:
    data = b64encode(plot.png).decode()
    return (
        f"<h2>{escape(plot.title)}</h2>\n<figure>"
        f'<img alt="{escape(plot.title)}" src="data:image/png;base64,{data}">\n'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>floodstage: {title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
CSS = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
div { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: 0.25rem 0.6rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
figure { margin: 0 } img { max-width: 100% } figcaption, p { color: #444; max-width: 50rem }
.fault { color: #a00 }
"""
