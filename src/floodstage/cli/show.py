"""What a person sees: streamed text, coloured by who wrote it, and a line of figures."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from rich.table import Table as Screen

from floodstage.bench.batches import BatchSummary, markdown
from floodstage.bench.summary import ACCEPTED, HEAD, POSITIONS, ArmSummary, cells, survival
from floodstage.bench.tables import Table
from floodstage.bench.tables import markdown as tables_markdown
from floodstage.bench.timing import Timing
from floodstage.bench.timing import table as timing_table
from floodstage.core.errors import ConfigError
from floodstage.core.files import write_whole
from floodstage.decoding.flood import FloodDecoder
from floodstage.decoding.refine import Refinement
from floodstage.engine.build import ASSETS, shipped
from floodstage.engine.canvas import CanvasEngine, said
from floodstage.engine.engine import Chunk, Engine, Generation
from floodstage.engine.flood import Flood, FloodGeneration
from floodstage.text.grids import Cells, write_csv

DRAFTED = "green"


def write(console: Console, chunk: Chunk) -> None:
    """A chunk's text as it is; what was drafted and accepted in colour.

    Not by `print`, which expands tabs and drops control characters.
    """
    system = ColorSystem.STANDARD if console.color_system and not console.no_color else None
    drafted = Style(color=DRAFTED)
    for p in chunk.pieces:
        text = drafted.render(p.text, color_system=system) if p.drafted and system else p.text
        console.file.write(text)
    console.file.flush()


def stream_to_terminal(
    engine: Engine, prompt: str, *, color: bool | None, as_json: bool, **options: Any
) -> None:
    """Stream the continuation of `prompt`, then say how it went."""
    console = Console(
        force_terminal=True if color else None,
        no_color=color is False,
        highlight=False,
        soft_wrap=True,
    )
    generation: Generation | None = None
    for chunk in engine.stream(prompt, **options):
        write(console, chunk)
        generation = chunk.generation or generation
    console.print()
    assert generation is not None  # every text ends
    print(summary(engine, generation), file=sys.stderr)
    if as_json:
        print(json.dumps(as_dict(generation)))


def summary(engine: Engine, g: Generation) -> str:
    """One line of figures."""
    return (
        f"{len(g.ids)} tokens in {g.wall_s:.2f} s · {g.tokens_per_s:,.0f} tokens/s · "
        f"first after {1e3 * g.ttft_s:.0f} ms · tau {g.tau:.2f} tokens per target pass "
        f"(bonus included) · drafter {engine.drafter.name} · verifier {engine.verifier.name} "
        f"({'lossless' if engine.verifier.lossless else 'NOT lossless'})"
    )


def as_dict(g: Generation) -> dict[str, Any]:
    """A generation as JSON, its records and all."""
    return {
        "text": g.text,
        "ids": list(g.ids),
        "prompt_tokens": len(g.prompt_ids),
        "finish": g.finish,
        "ttft_s": g.ttft_s,
        "wall_s": g.wall_s,
        "tokens_per_s": g.tokens_per_s,
        "tpot_s": g.tpot_s,
        "tau": g.tau,
        "acceptance_by_position": g.acceptance_by_position,
        "records": [asdict(r) for r in g.records],
    }


def stream_flood(flood: Flood, prompt: str | None, *, as_json: bool, **settings: Any) -> None:
    """Stream a flood's text, then say how it went and where the time went."""
    generation: FloodGeneration | None = None
    for piece in flood.stream(prompt, **settings):
        sys.stdout.write(piece.text)
        sys.stdout.flush()
        generation = piece.generation or generation
    print()
    assert generation is not None  # every flood ends
    print(flood_summary(flood, generation), file=sys.stderr)
    if as_json:
        print(json.dumps(asdict(generation)))


def flood_summary(flood: Flood, g: FloodGeneration) -> str:
    """A line of figures, and a line for every span."""
    wall = g.wall_s or 1e-9
    lines = [
        f"{len(g.roots)} roots, {len(g.text)} characters in {g.wall_s:.3f} s · "
        f"{g.roots_per_s:,.0f} roots/s · {len(g.text) / wall:,.0f} characters/s · tau {g.tau:.2f} "
        f"roots per pass of the manager (bonus included) · drafter {flood.manager.drafter.name} · "
        f"{g.draws} draws"
    ]
    for span in g.spans:
        name = "  " * (len(span.path) - 1) + span.path[-1]
        lines.append(
            f"  {name:24}{1e3 * span.seconds:9.2f} ms {span.seconds / wall:6.1%}"
            f"{1e3 * span.self_s:9.2f} ms itself {span.calls:6,} x"
        )
    return "\n".join(lines)


def print_edit(decoder: FloodDecoder, text: str, at: int, by: str, *, as_json: bool) -> None:
    """`text` with root `at` replaced, and what was rendered for it."""
    hierarchy = decoder.hierarchy
    roots = hierarchy.encode(text)
    new = hierarchy.encode(by)
    if len(new) != 1:
        shown = [hierarchy.text(hierarchy.spell([r])) for r in new]
        raise ConfigError(f"{by!r} is {len(new)} roots, {shown!r}: expected one.")
    before = decoder.render(roots)
    after = decoder.edit(before, at, new[0])
    kept = decoder.render(after.roots).pieces == after.pieces  # the whole, to hold the edit against
    print(after.text)
    old = hierarchy.text(before.pieces[at])
    print(
        f"Root {at} of {len(roots)}: {old!r} became {hierarchy.text(after.pieces[at])!r}; "
        + (
            "all other characters kept, as a rendering of the whole confirms."
            if kept
            else "A RENDERING OF THE WHOLE DIFFERS: this is a bug, please report it."
        ),
        file=sys.stderr,
    )
    if as_json:
        print(json.dumps({"text": after.text, "roots": after.roots, "kept": kept}))


def print_canvas(
    engine: CanvasEngine,
    given: Cells,
    refinement: Refinement,
    *,
    out: Path | None,
    film_path: Path | None,
    as_json: bool,
) -> bool:
    """The filled grid as CSV, a line for every pass and the checker's word; whether it is right."""
    found = engine.solve(given, refinement)
    text = write_csv(found.cells)
    if out is None:
        print(text, end="")
    else:
        write_whole(out, text)
    holes = sum(x is None for row in given for x in row)
    verdict = (
        f"right by the law of {engine.task!r}"
        if found.right
        else f"NOT right: {len(found.faults):,} faults: {said(found.faults)}"
    )
    print(
        f"{holes:,} holes of {len(given)}x{len(given[0])} in {found.passes} passes, "
        f"{1e3 * found.wall_s:,.1f} ms · {verdict}",
        file=sys.stderr,
    )
    if film_path is not None:
        from floodstage.bench.canvas_study import film  # draws

        write_whole(film_path, film(engine, given, refinement))
        print(f"Every pass: {film_path}", file=sys.stderr)
    if as_json:
        print(json.dumps(asdict(found) | {"right": found.right}))
    return found.right


def print_timing(timing: Timing, *, as_json: bool) -> None:
    """What parallel passes of a causal model would cost."""
    shown = timing_table(timing)
    screen(as_json).print(
        f"{shown.title}\n\n{tables_markdown(shown)}", markup=False, soft_wrap=True
    )
    if as_json:
        print(json.dumps(asdict(timing)))


def print_tables(tables: list[Table], out: Path, *, as_json: bool) -> None:
    """Tables one after another, and where they are kept."""
    console = screen(as_json)
    for t in tables:
        console.print(f"\n{t.title}\n\n{tables_markdown(t)}", markup=False, soft_wrap=True)
    _where(console, out)
    if as_json:
        print(json.dumps([asdict(t) for t in tables]))


def print_batches(lines: list[BatchSummary], out: Path, *, as_json: bool) -> None:
    """What batches give, and where it is kept."""
    console = screen(as_json)
    console.print(markdown(lines), markup=False, soft_wrap=True)
    _where(console, out)
    if as_json:
        print(json.dumps([asdict(line) for line in lines]))


def print_bench(lines: list[ArmSummary], out: Path, *, as_json: bool) -> None:
    """The table of a bench, and where it is kept."""
    console = screen(as_json)
    console.print(table(lines))
    console.print(legend(lines))
    _where(console, out)
    if as_json:
        print(json.dumps([asdict(line) for line in lines]))


def _where(console: Console, out: Path) -> None:
    console.print(f"Records and summaries: {out}", markup=False, soft_wrap=True)


def screen(as_json: bool) -> Console:
    """Standard output, or standard error where standard output is for JSON."""
    console = Console(highlight=False, stderr=as_json)
    return console if console.is_terminal else Console(highlight=False, stderr=as_json, width=120)


def legend(lines: list[ArmSummary]) -> str:
    """Acceptance by position, and what the columns mean."""
    rows = [
        f"Share of cycles that kept the draft's token at position {', '.join(map(str, POSITIONS))}:"
    ]
    rows += [f"  {x.arm}: {survival(x)}" for x in lines if x.acceptance]
    rows.append(
        "tau: mean tokens per target pass, the bonus token included. TTFT: the prompt's pass."
    )
    return "\n".join(rows)


def table(lines: list[ArmSummary]) -> Screen:
    """The summary for a terminal."""
    out = Screen(title="One sequence at a time, arms interleaved, each prompt twice")
    shown = [i for i in range(len(HEAD)) if i != ACCEPTED]  # too wide: in the legend
    for i in shown:
        out.add_column(HEAD[i], justify="left" if i == 0 else "right")
    for line in lines:
        out.add_row(*(cells(line)[i] for i in shown))
    return out


def print_models() -> None:
    """The shipped models, a line each, from their cards."""
    for name in shipped():
        card = ASSETS / name / "MODEL_CARD.md"
        lines = card.read_text().splitlines() if card.is_file() else []
        about = next((x for x in lines if x and not x.startswith("#")), "")
        print(f"{name:20} {about}")
