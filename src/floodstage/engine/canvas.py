"""Canvases by name: a grid with holes in, a filled grid out, held against the law of its task.

canvas = floodstage.load_canvas("canvas-sudoku")
print(canvas.solve(floodstage.text.grids.read_csv(text)).cells)

Also the autoregressive twin, which writes the same grids cell by cell through the decode loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from floodstage.core.errors import ConfigError
from floodstage.core.protocols import Clock, Drafter
from floodstage.core.types import Request, Step
from floodstage.decoding.loop import decode
from floodstage.decoding.refine import Filled, Pass, PassRecord, Refinement, collect, refine
from floodstage.decoding.verifiers import MatchVerifier
from floodstage.drafting.none import NoDrafter
from floodstage.engine.build import find_model
from floodstage.engine.device import clock_of, dtype_of, free_memory, prepare
from floodstage.models.canvas import DENOISER, WRITER, Canvas, Denoiser, Writer
from floodstage.models.load import load_canvas as load_model
from floodstage.scheduling.fixed import FixedScheduler
from floodstage.text.grids import Cells, Fault, check_size, contradictions, faults, shape_of


@dataclass(frozen=True, slots=True)
class Solution:
    """A filled grid. No `faults`: it is right by the law of its task, and all clues are kept."""

    cells: list[list[int]]
    faults: tuple[Fault, ...]
    passes: int
    wall_s: float

    @property
    def right(self) -> bool:
        return not self.faults


@dataclass(frozen=True, slots=True)
class CanvasEngine:
    """A denoiser, ready to fill grids of its task."""

    name: str
    model: Denoiser
    clock: Clock = perf_counter

    @property
    def task(self) -> str:
        return self.model.config.task

    def solve(self, given: Cells, refinement: Refinement | None = None) -> Solution:
        """Fill one grid; see `solve_batch`."""
        return self.solve_batch([given], refinement)[0]

    def solve_batch(
        self, given: Sequence[Cells], refinement: Refinement | None = None
    ) -> list[Solution]:
        """Fill grids of one size together; `wall_s` is that of them all.

        Raises ConfigError for grids that are ragged, of different sizes, of a size their task does
        not have, with a value the model does not know, with clues that contradict each other, or
        larger than the memory that is free.
        """
        start = self.clock()
        canvas = self.canvas(given)
        filled = self.fill(given, canvas, refinement or Refinement())
        cells, passes = filled.cells.tolist(), filled.passes.tolist()
        wall = self.clock() - start
        return [
            Solution(c, tuple(faults(self.task, g, c)), n, wall)
            for g, c, n in zip(given, cells, passes, strict=True)
        ]

    def passes(
        self, given: Cells, refinement: Refinement | None = None
    ) -> Iterator[tuple[PassRecord, Cells]]:
        """One grid after every pass of `solve`, holes as None, with the pass's record."""
        for step in self.refine([given], self.canvas([given]), refinement or Refinement()):
            yield step.record, self.cells(step.cells)[0]

    def cells(self, cells: Tensor) -> list[Cells]:
        """Grids [B, H, W] as lists, holes as None."""
        hole = self.model.mask_id
        return [[[None if x == hole else x for x in row] for row in g] for g in cells.tolist()]

    def refine(
        self, given: Sequence[Cells], canvas: Canvas, refinement: Refinement
    ) -> Iterator[Pass]:
        """Passes over a checked canvas; the law of the task is the checker."""
        return refine(
            self.model,
            canvas,
            refinement,
            check=lambda i, cells: not faults(self.task, given[i], cells),
            clock=self.clock,
        )

    def fill(self, given: Sequence[Cells], canvas: Canvas, refinement: Refinement) -> Filled:
        """All passes of `refine`."""
        return collect(canvas, self.refine(given, canvas, refinement))

    def canvas(self, given: Sequence[Cells]) -> Canvas:
        """The model's input. Raises ConfigError, see `solve_batch`."""
        if not given:
            raise ConfigError("There is no grid to fill: give at least one.")
        config = self.model.config
        height, width = shape_of(given[0])
        for grid in given:
            if shape_of(grid) != (height, width):
                raise ConfigError(
                    f"Grids of one batch have one size: got {height}x{width} and "
                    f"{'x'.join(map(str, shape_of(grid)))}."
                )
            check_values(grid, config.values)
            if wrong := contradictions(self.task, grid):
                raise ConfigError(
                    f"The clues contradict each other: {said(wrong)}. No grid of the task "
                    f"{self.task!r} has them all."
                )
        check_size(self.task, height, width)
        check_reach(self.task, height, width, config.values)
        check_memory(self.model, len(given), height, width)
        return Canvas.given(given, self.model.mask_id, self.model.device)


@dataclass(frozen=True, slots=True)
class CanvasTwin:
    """The autoregressive twin: cells in reading order, through the one decode loop."""

    name: str
    model: Writer
    clock: Clock = perf_counter

    def write(
        self, given: Sequence[Cells], *, drafter: Drafter | None = None, draft_len: int = 0
    ) -> list[list[list[int]]]:
        """Grids of one size, all at once in one batch."""
        out: list[list[int]] = [[] for _ in given]
        for step in self.steps(given, drafter=drafter, draft_len=draft_len):
            out[step.sequence].extend(step.tokens)
        return [folded(row, given[0]) for row in out]

    def steps(
        self, given: Sequence[Cells], *, drafter: Drafter | None = None, draft_len: int = 0
    ) -> Iterator[Step]:
        """The loop's steps, as they come."""
        height, width = shape_of(given[0])
        prompts = prompts_of(self.model, given)
        return decode(
            self.model.sized(prompts.shape[1], width),
            drafter or NoDrafter(self.model.device),
            MatchVerifier(),
            FixedScheduler(draft_len),
            [
                Request(prompt=tuple(prompt), max_new_tokens=height * width)
                for prompt in prompts.tolist()
            ],
            slots=len(given),
            clock=self.clock,
        )


def folded(tokens: Sequence[int], like: Cells) -> list[list[int]]:
    """Cells in reading order as a grid of the size of `like`."""
    height, width = shape_of(like)
    return [list(tokens[i * width : (i + 1) * width]) for i in range(height)]


def prompts_of(model: Writer, given: Sequence[Cells]) -> Tensor:
    """[B, P] packed prompts: the clues, those of a grid that has fewer repeated, and the start."""
    clues = [
        [(x, i, j) for i, row in enumerate(grid) for j, x in enumerate(row) if x is not None]
        for grid in given
    ]
    most = max(map(len, clues))
    filled = [[own[k % len(own)] for k in range(most)] if own else [] for own in clues]
    if any(len(row) != most for row in filled):
        raise ConfigError("Grids with and without clues cannot be written in one batch.")
    value, row, column = torch.tensor(filled, dtype=torch.int64).view(len(given), most, 3).unbind(2)
    first = torch.zeros(len(given), 1, dtype=torch.int64)
    start = model.pack(first + model.canvas.values, first, first, first)
    return torch.cat([model.pack(value, torch.ones_like(value), row, column), start], 1)


def load_canvas(name: str = "canvas-sudoku", **settings: str | int) -> CanvasEngine:
    """A canvas engine from a shipped name or a folder; settings: device, dtype, threads.

    Raises ConfigError for an unknown name, CheckpointError for broken files or another kind of
    model.
    """
    model, clock = _load(name, DENOISER, **settings)  # type: ignore[arg-type]
    assert isinstance(model, Denoiser)
    return CanvasEngine(name, model, clock)


def load_twin(name: str, **settings: str | int) -> CanvasTwin:
    """The twin by name; as `load_canvas`."""
    model, clock = _load(name, WRITER, **settings)  # type: ignore[arg-type]
    assert isinstance(model, Writer)
    return CanvasTwin(name, model, clock)


def _load(
    name: str, kind: str, *, device: str = "auto", dtype: str = "auto", threads: int = 0
) -> tuple[Denoiser | Writer, Clock]:
    on = prepare(device, threads)
    folder: Path = find_model(name)
    return load_model(folder, dtype=dtype_of(dtype, on), device=on, kind=kind), clock_of(on)


def check_values(grid: Cells, values: int) -> None:
    """Raises ConfigError for a clue that the model does not know."""
    for i, row in enumerate(grid):
        for j, cell in enumerate(row):
            if cell is not None and not 0 <= cell < values:
                raise ConfigError(
                    f"Row {i + 1}, column {j + 1}: {cell!r} is out of range; the model knows "
                    f"0 .. {values - 1}."
                )


def check_reach(task: str, height: int, width: int, values: int) -> None:
    """Raises ConfigError for a grid whose right values would be out of the model's range."""
    if task == "sum" and height + width - 2 >= values:
        raise ConfigError(
            f"A grid of sums of {height}x{width} holds values up to {height + width - 2}; the "
            f"model knows 0 .. {values - 1}."
        )
    if task == "latin" and height >= values:
        raise ConfigError(
            f"A latin square of {height}x{width} holds 1 .. {height}; the model knows up to "
            f"{values - 1}."
        )


def pass_bytes(model: Denoiser, cells: int) -> int:
    """What one pass holds at its peak, roughly: the layer with its MLP, or the logits."""
    c = model.config
    size = next(model.parameters()).element_size()
    return cells * size * max(6 * c.hidden + 4 * c.inner, 2 * c.hidden + 3 * c.values)


def check_memory(model: Denoiser, grids: int, height: int, width: int) -> None:
    """Raises ConfigError for grids whose pass would not fit into the memory that is free."""
    needed, free = pass_bytes(model, grids * height * width), free_memory(model.device)
    if free is not None and needed > free:
        raise ConfigError(
            f"{grids} grids of {height}x{width} need about {needed / 1e9:,.1f} GB for one pass; "
            f"{free / 1e9:,.1f} GB are free: give fewer grids at once, or smaller ones."
        )


def said(wrong: Sequence[Fault], most: int = 3) -> str:
    """The first faults in words."""
    words = [f"row {f.row + 1}, column {f.column + 1}: {f.why}" for f in wrong[:most]]
    more = len(wrong) - most
    return "; ".join(words) + (f"; and {more:,} more" if more > 0 else "")
