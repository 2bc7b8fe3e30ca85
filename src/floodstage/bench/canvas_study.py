"""How many passes does a puzzle need? Solve rate against passes, by schedule.

The same held-out puzzles by every schedule at every number of passes, with and without masking
again, beside one cell at a time by confidence and beside the autoregressive twin. A puzzle counts
as solved if the checker, which knows only the law, finds no fault. Rows are kept as they come.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from floodstage.bench.canvas import ONE_BY_ONE, load_pair
from floodstage.bench.canvas_plots import draw_study, filmstrip
from floodstage.bench.measure import environment, same_settings
from floodstage.bench.records import keep_rows
from floodstage.bench.tables import Table, write_tables
from floodstage.core.files import write_whole
from floodstage.decoding.refine import Refinement
from floodstage.engine.canvas import CanvasEngine, CanvasTwin
from floodstage.models.files import fingerprint
from floodstage.text.grids import Cells, Puzzle, faults, puzzles

ONE, TWIN = "one cell at a time, by confidence", "the twin, one cell at a time in reading order"


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasStudyConfig:
    """What is tried; `size` is the side of the grids."""

    task: str = "sudoku"
    size: int = 9
    puzzles: int = 200
    passes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    remask: float = 0.5
    model: str = "auto"
    twin: str = "auto"
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0

    def ways(self) -> dict[str, Refinement]:
        """Ways to fill by name; their passes are set by the study."""
        return {
            "threshold 0.9": Refinement(threshold=0.9, remask=0.0),
            "threshold 0.99": Refinement(threshold=0.99, remask=0.0),
            "linear": Refinement(schedule="linear", remask=0.0),
            "cosine": Refinement(schedule="cosine", remask=0.0),
            "threshold 0.9, masking again": Refinement(threshold=0.9, remask=self.remask),
            "cosine, masking again": Refinement(schedule="cosine", remask=self.remask),
            "threshold 0.9, nothing proposed": Refinement(threshold=0.9, remask=0.0, propose=False),
        }


def canvas_study(config: CanvasStudyConfig, out: Path) -> list[Table]:
    """Measure what `out` lacks, then its table and plots. Raises RunError if `out` holds another
    run."""
    engine, twin = load_pair(config)
    out.mkdir(parents=True, exist_ok=True)
    weights = {"denoiser": fingerprint(engine.model), "twin": fingerprint(twin.model)}
    same_settings(out, {"settings": asdict(config), "weights": weights}, environment(config.device))
    asked = _asked(config, out)
    rows = keep_rows(out / "records.jsonl", partial(_rows, config, engine, twin, asked))
    tables = [_table(config, rows)]
    write_tables(out, tables)
    for name, picture in draw_study(rows):
        write_whole(out / name, picture)
    write_whole(out / "filmstrip.png", film(engine, asked[0].given, Refinement(passes=32)))
    return tables


def film(engine: CanvasEngine, given: Cells, refinement: Refinement) -> bytes:
    """One grid being filled, a frame for every pass."""
    frames, titles = [given], ["given"]
    for record, cells in engine.passes(given, refinement):
        frames.append(cells)
        titles.append(f"pass {record.number}: {record.holes} holes")
    return filmstrip(frames, titles)


def _asked(config: CanvasStudyConfig, out: Path) -> list[Puzzle]:
    """The puzzles, made once: to make them takes longer than to solve them."""
    path = out / "puzzles.json"
    if not path.is_file():
        size = config.size
        made = islice(
            puzzles(config.task, size, size, "heldout", seed=config.seed + 500), config.puzzles
        )
        found = track(made, "puzzles", total=config.puzzles, console=Console(stderr=True))
        write_whole(path, json.dumps([[p.given, p.solution] for p in found]))
    return [Puzzle(config.task, g, s) for g, s in json.loads(path.read_text())]


def _rows(
    config: CanvasStudyConfig,
    engine: CanvasEngine,
    twin: CanvasTwin,
    asked: Sequence[Puzzle],
    have: list[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    known = {(r["way"], r["passes"]) for r in have}
    plan: list[tuple[str, int, Refinement | None]] = [
        (name, n, Refinement(**(asdict(way) | {"passes": n})))
        for name, way in config.ways().items()
        for n in config.passes
    ]
    holes = max(sum(x is None for row in p.given for x in row) for p in asked)
    plan.append((ONE, holes, ONE_BY_ONE))
    plan.append((TWIN, config.size**2, None))
    given = [p.given for p in asked]
    todo = [entry for entry in plan if entry[:2] not in known]
    for name, passes, refinement in track(todo, "ways", console=Console(stderr=True)):
        start = engine.clock()
        if refinement is None:
            cells: Sequence[Cells] = [list(map(list, c)) for c in twin.write(given)]
            mean = float(passes)
        else:
            filled = engine.fill(given, engine.canvas(given), refinement)
            cells, mean = filled.cells.tolist(), float(filled.passes.float().mean())
        wall = engine.clock() - start
        yield {
            "way": name,
            "passes": passes,
            "mean_passes": mean,
            "puzzles": len(asked),
            "solved": sum(not faults(config.task, g, c) for g, c in zip(given, cells, strict=True)),
            "right_cells": _right_holes(asked, cells),
            "seconds": wall,
        }


def _right_holes(asked: Sequence[Puzzle], cells: Sequence[Cells]) -> float:
    """The share of holes that were filled rightly."""
    pairs = [
        a == b
        for p, c in zip(asked, cells, strict=True)
        for clue, x, y in zip(p.given, p.solution, c, strict=True)
        for k, a, b in zip(clue, x, y, strict=True)
        if k is None
    ]
    return sum(pairs) / len(pairs)


def _table(config: CanvasStudyConfig, rows: Sequence[dict[str, Any]]) -> Table:
    lines = tuple(
        (
            r["way"],
            str(r["passes"]),
            f"{r['mean_passes']:.1f}",
            f"{r['solved']}/{r['puzzles']}",
            f"{100 * r['solved'] / r['puzzles']:.1f} %",
            f"{100 * r['right_cells']:.2f} %",
            f"{1e3 * r['seconds'] / r['puzzles']:.1f}",
        )
        for r in rows
    )
    head = ("way", "passes at most", "mean passes", "solved", "share", "holes right", "ms a puzzle")
    note = (
        f"{config.task}, {config.size}x{config.size}, held-out puzzles of one solution whose clues "
        "cannot be fewer; all in one batch. Masking again: filled cells whose value has become "
        f"less likely than {config.remask:g}. After every pass the likeliest value of every hole "
        "is put to the checker, which ends the grid if it is satisfied; not so where nothing is "
        "proposed and one cell at a time."
    )
    return Table("Solved puzzles against passes", head, lines, note)
