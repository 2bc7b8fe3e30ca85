"""What a canvas model learns from: grids made anew for every step, and noise on them.

`sum` and `affine` hold on any choice of rows and columns, so a step takes a few lines out of a
large grid (randomized positions: Ruoss et al. 2023): every position is learnt, and no grid of more
than `CELLS` cells is ever seen. `latin` and `sudoku` are puzzles with one solution from a pool,
turned by symmetries that keep their law. A lesson is a function of the generator alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from floodstage.core.errors import CheckpointError
from floodstage.text.grids import MODULUS, affine_held_out, puzzles

CELLS = 1024
"""The most cells of a training grid of `sum` and `affine`."""
LONGEST = 96
"""The most rows or columns of one."""
_ROWS, _TINY = 0.2, 0.4  # shares of the lessons of `affine`, see `_staged`
_SIDE = 4  # the most rows or columns of a tiny grid
_FAR = 256  # positions of `affine`, whose law repeats


@dataclass(frozen=True, slots=True)
class Lesson:
    """Grids of one size: [B, H, W] solutions and which of their cells are given, and the positions
    [B, H] and [B, W] of their lines."""

    solution: Tensor
    given: Tensor
    rows: Tensor
    columns: Tensor


class Source(Protocol):
    """Endless lessons of a task."""

    def draw(self, cells: int, generator: torch.Generator) -> Lesson:
        """Grids of about `cells` cells together."""


def source(task: str, folder: Path, pool: int, places: int, say: Callable[[str], None]) -> Source:
    """The lessons of a task; puzzles are made once and kept in `folder`."""
    if task in ("sum", "affine"):
        return Lines(task, places if task == "sum" else _FAR)
    sizes = (9,) if task == "sudoku" else range(4, 10)
    return Puzzles(task, {n: puzzle_pool(task, n, pool, folder, say) for n in sizes})


# --- Lines out of a large grid -------------------------------------------------------------------


@dataclass(frozen=True)
class Lines:
    """`sum` and `affine`; `places` is how far positions reach."""

    task: str
    places: int

    def draw(self, cells: int, generator: torch.Generator) -> Lesson:
        h, w = _size(generator) if self.task == "sum" else _staged(generator)
        count = max(1, min(256, cells // (h * w)))
        if self.task == "sum":
            # Values end at places - 1: what rows may reach, columns may not.
            most_rows = _whole(generator, h, self.places - w)
            limits = (most_rows, self.places - most_rows)
        else:
            limits = (self.places, self.places)
        rows = lines(count, h, limits[0], generator)
        columns = lines(count, w, limits[1], generator)
        if self.task == "sum":
            solution = rows[:, :, None] + columns[:, None]
            return Lesson(solution, torch.zeros_like(solution, dtype=torch.bool), rows, columns)
        a, b, c = (x[:, None, None] for x in constants(count, generator).unbind(1))
        solution = (a * rows[:, :, None] + b * columns[:, None] + c) % MODULUS
        return Lesson(solution, clues(count, h, w, generator), rows, columns)


def _size(generator: torch.Generator) -> tuple[int, int]:
    """Height and width: any up to LONGEST, mostly small, of at most CELLS cells."""
    log = torch.rand(2, generator=generator) * math.log(LONGEST + 1)
    h, w = log.exp().long().tolist()
    w = max(1, min(w, CELLS // h))
    return (w, h) if _whole(generator, 0, 1) else (h, w)


def _staged(generator: torch.Generator) -> tuple[int, int]:
    """Sizes for `affine`, whose law comes in stages: what a cell is along one line (single rows and
    columns), how two lines add up (tiny grids), and both together (any size)."""
    kind = float(torch.rand(1, generator=generator))
    if kind < _TINY:
        return _whole(generator, 2, _SIDE), _whole(generator, 2, _SIDE)
    h, w = _size(generator)
    if kind < _TINY + _ROWS:
        return (1, w) if _whole(generator, 0, 1) else (h, 1)
    return h, w


def lines(count: int, size: int, limit: int, generator: torch.Generator) -> Tensor:
    """[count, size] ascending positions below `limit`: in half of the grids all of them from 0 on,
    in the others the first two and any."""
    chosen = torch.rand(count, limit, generator=generator)
    chosen[:, 0], chosen[:, 1:2] = 3.0, 2.0
    some = chosen.topk(size).indices.sort(1).values
    whole = torch.rand(count, 1, generator=generator) < 0.5
    return torch.where(whole, torch.arange(size), some)


def clues(count: int, h: int, w: int, generator: torch.Generator) -> Tensor:
    """[count, h, w] bool: the corner and its neighbours, and in larger grids up to five cells
    anywhere: where they are few, what they would tell must be computed."""
    given = torch.zeros(count, h, w, dtype=torch.bool)
    more = torch.randint(h * w, (count, 5), generator=generator)
    kept = torch.rand(count, 5, generator=generator) < torch.rand(count, 1, generator=generator)
    if h * w > _SIDE**2:
        given.view(count, -1).scatter_(1, torch.where(kept, more, 0), True)
    given[:, :1, :2] = given[:, :2, :1] = True
    return given


@cache
def _trained_constants() -> Tensor:
    """[n, 3] the constants of `affine` that are not held out."""
    every = torch.cartesian_prod(*(torch.arange(MODULUS),) * 3)
    held = torch.tensor([affine_held_out(a, b, c) for a, b, c in every.tolist()])
    return every[~held]


def constants(count: int, generator: torch.Generator) -> Tensor:
    """[count, 3] of those that training may use."""
    known = _trained_constants()
    return known[torch.randint(len(known), (count,), generator=generator)]


# --- Puzzles -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Puzzles:
    """`latin` and `sudoku`: pools by size, of [P, 2, n, n] given (0: a hole) and solved grids."""

    task: str
    pools: dict[int, Tensor]

    def draw(self, cells: int, generator: torch.Generator) -> Lesson:
        sizes = list(self.pools)
        # Large ones are harder: as often as they have cells.
        weights = torch.tensor([float(n * n) for n in sizes])
        n = sizes[int(torch.multinomial(weights, 1, generator=generator))]
        pool = self.pools[n]
        count = max(1, cells // (n * n))
        chosen = pool[torch.randint(len(pool), (count,), generator=generator)].long()
        chosen = turned(chosen, 3 if self.task == "sudoku" else 1, generator)
        place = torch.arange(n).expand(count, n)
        return Lesson(chosen[:, 1], chosen[:, 0] > 0, place, place)


def turned(grids: Tensor, box: int, generator: torch.Generator) -> Tensor:
    """[P, 2, n, n] under random symmetries, both grids alike: symbols renamed, lines exchanged
    (inside their band of `box`, and bands as wholes), mirrored on the diagonal."""
    count, _, n, _ = grids.shape
    names = torch.rand(count, n, generator=generator).argsort(1) + 1
    names = torch.cat([torch.zeros(count, 1, dtype=torch.int64), names], 1)
    grids = names.gather(1, grids.flatten(1)).view_as(grids)
    for dimension in (2, 3):
        order = _line_order(count, n, box, generator)
        index = order[:, None, :, None] if dimension == 2 else order[:, None, None, :]
        grids = grids.gather(dimension, index.expand_as(grids))
    mirror = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirror, grids.transpose(2, 3), grids)


def _line_order(count: int, n: int, box: int, generator: torch.Generator) -> Tensor:
    """[count, n]: a permutation of lines that keeps bands together."""
    if box == 1:
        return torch.rand(count, n, generator=generator).argsort(1)
    bands = torch.rand(count, n // box, generator=generator).argsort(1)
    inside = torch.rand(count, n // box, box, generator=generator).argsort(2)
    return (bands[:, :, None] * box + inside).flatten(1)


def puzzle_pool(task: str, n: int, count: int, folder: Path, say: Callable[[str], None]) -> Tensor:
    """[count, 2, n, n] training puzzles and their solutions, made once and kept in `folder`; goes
    on from what is there. Raises CheckpointError for a broken file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{task}-{n}.jsonl"
    whole = path.read_text().rpartition("\n")[0] if path.is_file() else ""
    kept = whole.splitlines()[:count]
    if len(kept) < count:
        say(f"Making {count - len(kept):,} {task} puzzles of {n}x{n}.")
        if path.is_file():
            path.write_text("".join(line + "\n" for line in kept))
        with path.open("a") as file:
            todo = range(len(kept), count)
            for i in track(todo, f"{task} {n}x{n}", console=Console(stderr=True)):
                puzzle = next(puzzles(task, n, n, seed=i))
                given = [[cell or 0 for cell in row] for row in puzzle.given]
                kept.append(json.dumps({"given": given, "solution": puzzle.solution}))
                file.write(kept[-1] + "\n")
    try:
        grids = [[row["given"], row["solution"]] for row in map(json.loads, kept)]
        return torch.tensor(grids, dtype=torch.uint8).view(count, 2, n, n)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{str(path)!r} does not hold {task} puzzles of {n}x{n}: delete it ({error})."
        ) from error


# --- Helpers of all ------------------------------------------------------------------------------


def _whole(generator: torch.Generator, low: int, high: int) -> int:
    """A number from low to high, both included."""
    return int(torch.randint(low, high + 1, (1,), generator=generator))
