"""A grid filled in a few passes beside one written cell by cell, on the same instances, in turns.

Arms: `refine` fills every hole of a batch at once, and alone asks the checker after every pass
(`Refinement.propose`); `twin` is the autoregressive model of the same layers, cached, one pass per
cell; `twin, n-gram draft` is the same, speculated; `one` fills the surest cell only. Seconds run
from Python lists to Python lists. A grid counts as exact if the checker, which knows only the law,
finds no fault. Records are appended as they come; a run that was killed goes on. Everything shown
is a function of the records.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import track

from floodstage.bench.canvas_plots import draw_canvas
from floodstage.bench.canvas_tables import DRAFTED, ONE, REFINE, TWIN, summarise
from floodstage.bench.measure import environment, same_settings
from floodstage.bench.records import keep_rows
from floodstage.bench.tables import Table, write_tables
from floodstage.core.errors import ConfigError
from floodstage.core.files import write_whole
from floodstage.core.protocols import Drafter
from floodstage.decoding.refine import Refinement
from floodstage.drafting.ngram import NgramDrafter
from floodstage.engine.canvas import (
    CanvasEngine,
    CanvasTwin,
    folded,
    load_canvas,
    load_twin,
    pass_bytes,
)
from floodstage.models.canvas import filling_flops, writing_flops
from floodstage.models.files import fingerprint
from floodstage.text.grids import Cells, Puzzle, faults, puzzles
from floodstage.training.canvas import greedy_grids
from floodstage.training.lessons import CELLS

ONE_BY_ONE = Refinement(schedule="one", remask=0.0, propose=False)
ONE_BY_ONE_CELLS = 256  # above, one cell a pass takes minutes and shows nothing new
_DRAFT = 10
_LARGEST = 100  # side of a grid that is checked for exactness alone


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasBenchConfig:
    """What is compared. "auto" models are those shipped for the task. `twin_cells` is the most
    cells of a batch that the twin is asked to write; `exact` is how many instances of every size
    are checked for exactness alone."""

    task: str = "sum"
    sizes: tuple[tuple[int, int], ...] = ((64, 64),)
    batches: tuple[int, ...] = (1,)
    repeats: int = 3
    exact: int = 0
    twin_cells: int = 70_000
    model: str = "auto"
    twin: str = "auto"
    refinement: Refinement = field(default_factory=Refinement)
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0


Curve = list[tuple[float, int]]
"""Seconds since the start, and cells that are there."""


@dataclass(frozen=True, slots=True)
class Run:
    """What an arm made of a batch."""

    cells: Sequence[Sequence[Sequence[int | None]]]
    passes: float  # of the model over a grid, the prompt's included, on average
    curve: Curve
    rows: int = 0  # of the twin for a grid, drafted ones included, its prompt not


Arm = Callable[[Sequence[Cells]], Run]


def canvas_bench(config: CanvasBenchConfig, out: Path) -> list[Table]:
    """Measure what `out` lacks, then its tables. Raises RunError if `out` holds another run."""
    engine, twin = load_pair(config)
    out.mkdir(parents=True, exist_ok=True)
    identity = {
        "settings": asdict(config),
        "weights": {"denoiser": fingerprint(engine.model), "twin": fingerprint(twin.model)},
    }
    counted = {
        "denoiser": sum(p.numel() for p in engine.model.parameters()),
        "twin": sum(p.numel() for p in twin.model.parameters()),
    }
    same_settings(out, identity, environment(config.device) | {"parameters": counted})
    rows = keep_rows(out / "records.jsonl", partial(_timed_rows, config, engine, twin))
    exact = keep_rows(out / "exact.jsonl", partial(_exact_rows, config, engine, twin))
    tables = summarise(rows, exact)
    write_tables(out, tables)
    for name, picture in draw_canvas(rows):
        write_whole(out / name, picture)
    return tables


class Paired(Protocol):
    """What says which two models are compared, and where."""

    @property
    def task(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def twin(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def threads(self) -> int: ...


def load_pair(config: Paired) -> tuple[CanvasEngine, CanvasTwin]:
    """The denoiser and its twin. Raises ConfigError if they are not of the task."""
    shared = {"device": config.device, "dtype": config.dtype, "threads": config.threads}
    names = (f"canvas-{config.task}", f"canvas-{config.task}-twin")
    engine = load_canvas(names[0] if config.model == "auto" else config.model, **shared)  # type: ignore[arg-type]
    twin = load_twin(names[1] if config.twin == "auto" else config.twin, **shared)  # type: ignore[arg-type]
    for name, task in ((engine.name, engine.task), (twin.name, twin.model.canvas.task)):
        if task != config.task:
            raise ConfigError(f"{name!r} is a model for {task!r}, not for {config.task!r}.")
    return engine, twin


def _timed_rows(
    config: CanvasBenchConfig,
    engine: CanvasEngine,
    twin: CanvasTwin,
    have: list[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Every arm at every size and batch, `repeats` times. A B B A: odd rounds run in reverse."""
    known = {(r["height"], r["width"], r["batch"], r["repeat"], r["arm"]) for r in have}
    todo = [(h, w, b, i) for h, w in config.sizes for b in config.batches
            for i in range(config.repeats)]  # fmt: skip
    warm: set[tuple[int, ...]] = set()
    for h, w, batch, repeat in track(todo, "measuring", console=Console(stderr=True)):
        arms = make_arms(config, engine, twin, h, w, batch)
        missing = [a for a in arms if (h, w, batch, repeat, a) not in known]
        if not missing:
            continue
        asked = list(islice(instances(config, h, w, repeat), batch))
        if (h, w, batch) not in warm:
            warm.add((h, w, batch))
            _warm(arms, asked)
        for name in missing[:: 1 - 2 * (repeat % 2)]:
            yield {
                "height": h,
                "width": w,
                "batch": batch,
                "repeat": repeat,
                "arm": name,
                **_measure(config, engine, twin, arms[name], name, asked),
            }


def instances(config: CanvasBenchConfig, h: int, w: int, salt: int = 0) -> Iterator[Puzzle]:
    """Held-out instances, others for every `salt`."""
    return puzzles(config.task, h, w, "heldout", seed=config.seed * 1009 + salt)


def make_arms(
    config: CanvasBenchConfig, engine: CanvasEngine, twin: CanvasTwin, h: int, w: int, batch: int
) -> dict[str, Arm]:
    """The arms that make sense at a size."""
    arms: dict[str, Arm] = {REFINE: partial(run_refine, engine, config.refinement)}
    if h * w <= ONE_BY_ONE_CELLS:
        arms[ONE] = partial(run_refine, engine, ONE_BY_ONE)
    if h * w * batch <= config.twin_cells:
        arms[TWIN] = partial(run_twin, twin, None)
        arms[DRAFTED] = partial(run_twin, twin, NgramDrafter(_DRAFT, device=twin.model.device))
    return arms


def _warm(arms: dict[str, Arm], asked: Sequence[Puzzle]) -> None:
    """Once by every arm; the twin, whose passes have one shape whatever the size, on fewer rows."""
    for name, arm in arms.items():
        few = slice(None) if name in (REFINE, ONE) else slice(2)
        arm([p.given[few] for p in asked])


def run_refine(engine: CanvasEngine, refinement: Refinement, given: Sequence[Cells]) -> Run:
    canvas = engine.canvas(given)
    start, curve = engine.clock(), Curve()
    cells, passes = canvas.cells, 0
    for step in engine.refine(given, canvas, refinement):
        there = int((step.cells != engine.model.mask_id).sum())
        curve.append((engine.clock() - start, there))
        cells, passes = step.cells, passes + step.record.grids
    return Run(engine.cells(cells), passes / len(given), curve)


def run_twin(twin: CanvasTwin, drafter: Drafter | None, given: Sequence[Cells]) -> Run:
    out: list[list[int]] = [[] for _ in given]
    start, curve = twin.clock(), Curve()
    passes = rows = there = 0
    every = max(1, sum(map(len, given[0])) * len(given) // 200)
    draft_len = 0 if drafter is None else drafter.draft_len
    for step in twin.steps(given, drafter=drafter, draft_len=draft_len):
        out[step.sequence].extend(step.tokens)
        passes += 1
        rows += 0 if step.record.prefill else step.record.verified + 1
        there += len(step.tokens)
        if there // every != (there - len(step.tokens)) // every:
            curve.append((twin.clock() - start, there))
    cells = [folded(row, given[0]) for row in out]
    return Run(cells, passes / len(given), curve, rows // len(given))


def _measure(
    config: CanvasBenchConfig,
    engine: CanvasEngine,
    twin: CanvasTwin,
    arm: Arm,
    name: str,
    asked: Sequence[Puzzle],
) -> dict[str, Any]:
    given = [p.given for p in asked]
    start = engine.clock()
    run = arm(given)
    seconds = engine.clock() - start
    h, w = asked[0].height, asked[0].width
    clues = max(sum(x is not None for row in g for x in row) for g in given)
    fills = name in (REFINE, ONE)
    flops = (
        filling_flops(engine.model.config, h, w) * run.passes
        if fills
        else writing_flops(twin.model.canvas, h * w, clues + 1, rows=run.rows)
    )
    return {
        "seconds": seconds,
        "exact": sum(not faults(config.task, g, c) for g, c in zip(given, run.cells, strict=True)),
        "wrong_cells": sum(_differ(p, c) for p, c in zip(asked, run.cells, strict=True)),
        "passes": run.passes,
        "flops": flops,
        "memory_bytes": pass_bytes(engine.model, h * w)
        if fills
        else cache_bytes(twin, h * w + clues + 1),
        "curve": run.curve if len(asked) == 1 else [],
    }


def cache_bytes(twin: CanvasTwin, tokens: int) -> int:
    """Keys and values of one grid."""
    c = twin.model.canvas
    size = next(twin.model.parameters()).element_size()
    return 2 * c.layers * c.kv_heads * (c.hidden // c.heads) * size * tokens


def _exact_rows(
    config: CanvasBenchConfig,
    engine: CanvasEngine,
    twin: CanvasTwin,
    have: list[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """`exact` instances of every size, one after another: whether both models get them right."""
    todo = list(enumerate(_to_check(config)))[len(have) :]
    for number, puzzle in track(todo, "exactness", console=Console(stderr=True)):
        filled = engine.solve(puzzle.given, config.refinement)
        written = greedy_grids(twin.model, [puzzle])[0].tolist()
        yield {
            "number": number,
            "height": puzzle.height,
            "width": puzzle.width,
            "group": _group(config, puzzle),
            "passes": filled.passes,
            "exact": filled.right,
            "wrong_cells": _differ(puzzle, filled.cells),
            "twin_exact": not faults(config.task, puzzle.given, written),
            "twin_wrong_cells": _differ(puzzle, written),
        }


def _to_check(config: CanvasBenchConfig) -> Iterator[Puzzle]:
    """Held-out instances of every size. `sum` has one for a size: there it is every size once, and
    then other sizes that no lesson had."""
    salt = 10_007
    if config.task != "sum":
        for h, w in config.sizes:
            yield from islice(instances(config, h, w, salt), config.exact)
        return
    if config.exact:
        for h, w in config.sizes:
            yield next(instances(config, h, w))
    rng = random.Random(config.seed)
    for _ in range(config.exact):
        h = rng.randint(33, _LARGEST)
        yield next(instances(config, h, rng.randint(CELLS // h + 1, _LARGEST)))


def _group(config: CanvasBenchConfig, puzzle: Puzzle) -> str:
    size = (puzzle.height, puzzle.width)
    return (
        f"{size[0]}x{size[1]}"
        if size in config.sizes
        else f"other unseen sizes, to {_LARGEST}x{_LARGEST}"
    )


def _differ(puzzle: Puzzle, cells: Sequence[Sequence[int | None]]) -> int:
    return sum(
        a != b
        for x, y in zip(puzzle.solution, cells, strict=True)
        for a, b in zip(x, y, strict=True)
    )
