"""Grids to fill: tasks with a known law, a checker that knows only the law, CSV in and out.

A cell is a whole number, a hole is None. `sum` and `affine` have any height and width; `latin` and
`sudoku` are squares of n symbols 1 .. n. An instance is a function of (task, size, seed), and
instances are held out by a hash of their solution's key. Knows no tokens and no model.
"""

from __future__ import annotations

import csv
import hashlib
import io
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from floodstage.core.errors import ConfigError, unknown

Cells: TypeAlias = "list[list[int | None]]"
Full: TypeAlias = "list[list[int]]"
T = TypeVar("T")
Split = Literal["train", "heldout"]
MODULUS = 7  # of `affine`: its values are 0 .. MODULUS - 1
_HELD_OUT_BUCKETS = 20


@dataclass(frozen=True, slots=True)
class Puzzle:
    """A grid with holes and the grid that fills it."""

    task: str
    given: Cells
    solution: Full

    @property
    def height(self) -> int:
        return len(self.given)

    @property
    def width(self) -> int:
        return len(self.given[0])


@dataclass(frozen=True, slots=True)
class Fault:
    """A cell that breaks the law of its task, or a clue that was changed."""

    row: int
    column: int
    why: str


def puzzles(
    task: str, height: int, width: int, split: Split = "train", *, seed: int = 0
) -> Iterator[Puzzle]:
    """Endless instances of one size. Raises ConfigError for a task or a size there is not."""
    solve, open_up = _maker(task, height, width)
    if split not in ("train", "heldout"):
        raise unknown("split", split, ("train", "heldout"))
    number = 0
    while True:
        rng = random.Random(f"{task}:{height}x{width}:{split}:{seed}:{number}")
        number += 1
        solution = solve(height, width, rng)
        if task == "sum" or held_out(task, solution) == (split == "heldout"):
            yield Puzzle(task, open_up(solution, rng), solution)


def held_out(task: str, solution: Full) -> bool:
    """Whether a solution is kept from training: 1 in 20. Those of `affine` by their constants, at
    every size. (`sum` has one solution for a size: its sizes are what is held out.)"""
    if task == "affine":
        corner, right, below = corner_of(solution)
        return affine_held_out((below - corner) % MODULUS, (right - corner) % MODULUS, corner)
    return _held_out(";".join(",".join(map(str, row)) for row in solution))


def affine_held_out(a: int, b: int, c: int) -> bool:
    """Whether a i + b j + c is kept from training."""
    return _held_out(f"{a},{b},{c}")


def _held_out(key: str) -> bool:
    return hashlib.sha256(key.encode()).digest()[0] % _HELD_OUT_BUCKETS == 0


def faults(task: str, given: Cells, filled: Sequence[Sequence[int | None]]) -> list[Fault]:
    """Every fault of `filled`, by the law alone: no solution is needed. Empty: it is right.

    Raises ConfigError if the two are not of one shape, or of one that the task does not have.
    """
    height, width = shape_of(given)
    if shape_of(filled) != (height, width):
        raise ConfigError(
            f"The filled grid is {'x'.join(map(str, shape_of(filled)))}, the given one "
            f"{height}x{width}."
        )
    check_size(task, height, width)
    found = [
        Fault(i, j, f"the clue {clue} became {filled[i][j]}")
        for i, row in enumerate(given)
        for j, clue in enumerate(row)
        if clue is not None and filled[i][j] != clue
    ]
    found += [
        Fault(i, j, "it is empty")
        for i, row in enumerate(filled)
        for j, cell in enumerate(row)
        if cell is None
    ]
    return found or _LAWS[task]([list(row) for row in filled])


def contradictions(task: str, given: Cells) -> list[Fault]:
    """Clues that no solution can have together. (For `latin` and `sudoku` only repeats are looked
    for: that there is a solution at all is not decided.)"""
    check_size(task, *shape_of(given))
    return _LAWS[task](given)


def shape_of(cells: Sequence[Sequence[int | None]]) -> tuple[int, int]:
    """Height and width. Raises ConfigError for a ragged or an empty grid."""
    widths = {len(row) for row in cells}
    if len(widths) != 1 or widths == {0}:
        lengths = [len(row) for row in cells]
        raise ConfigError(f"A grid needs rows of one length, got rows of {lengths!r} cells.")
    return len(cells), widths.pop()


def check_size(task: str, height: int, width: int) -> None:
    """Raises ConfigError for a task there is not and a size it does not have."""
    _maker(task, height, width)


# --- CSV -----------------------------------------------------------------------------------------


def read_csv(text: str) -> Cells:
    """A grid from CSV: whole numbers; an empty cell, `?`, `.` or `_` is a hole.

    Raises ConfigError naming the line and the column of what is no number, and for ragged rows.
    """
    cells: Cells = []
    for number, row in enumerate(csv.reader(io.StringIO(text)), start=1):
        if not row:
            continue
        if cells and len(row) != len(cells[0]):
            raise ConfigError(
                f"Line {number} has {len(row)} cells, the first one {len(cells[0])}: rows must be "
                "of one length."
            )
        cells.append([_cell(word, number, i) for i, word in enumerate(row, start=1)])
    if not cells:
        raise ConfigError("The file holds no grid: expected lines of numbers and holes.")
    return cells


def _cell(word: str, line: int, column: int) -> int | None:
    word = word.strip()
    if word in ("", "?", ".", "_"):
        return None
    try:
        return int(word)
    except ValueError:
        raise ConfigError(
            f"Line {line}, cell {column}: {word!r} is neither a whole number nor a hole (an empty "
            "cell, '?', '.' or '_')."
        ) from None


def write_csv(cells: Cells | Full) -> str:
    """CSV with empty cells for holes; `read_csv` gives it back."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in cells:
        # A lone empty cell would be an empty line: say it as a hole.
        writer.writerow(["?" if cell is None else cell for cell in row])
    return out.getvalue()


# --- The tasks -----------------------------------------------------------------------------------


# A solution, and then its clues.


def _sum(height: int, width: int, rng: random.Random) -> Full:
    """Cell (i, j) is i + j."""
    return [[i + j for j in range(width)] for i in range(height)]


def _nothing(solution: Full, rng: random.Random) -> Cells:
    return [[None] * len(row) for row in solution]


def _affine(height: int, width: int, rng: random.Random) -> Full:
    """Cell (i, j) is a i + b j + c mod MODULUS."""
    a, b, c = (rng.randrange(MODULUS) for _ in range(3))
    return [[(a * i + b * j + c) % MODULUS for j in range(width)] for i in range(height)]


def _few(solution: Full, rng: random.Random) -> Cells:
    """The first two cells of the first row and column and a few others: enough to infer the
    constants of `affine`."""
    height, width = len(solution), len(solution[0])
    known = {(0, 0), (0, min(1, width - 1)), (min(1, height - 1), 0)}
    known |= {(rng.randrange(height), rng.randrange(width)) for _ in range(5)}
    return [
        [cell if (i, j) in known else None for j, cell in enumerate(row)]
        for i, row in enumerate(solution)
    ]


def _latin(height: int, width: int, rng: random.Random) -> Full:
    """Every row and every column holds 1 .. n once. Over 9 x 9 the squares are those of the cyclic
    group, shuffled: search takes long."""
    if height <= 9:
        empty: Cells = [[None] * width for _ in range(height)]
        return next(solutions(empty, 0, rng))
    rows, columns, symbols = (rng.sample(range(height), height) for _ in range(3))
    return [[symbols[(i + j) % height] + 1 for j in columns] for i in rows]


def _sudoku(height: int, width: int, rng: random.Random) -> Full:
    """9 x 9; rows, columns and 3 x 3 boxes hold 1 .. 9 once."""
    empty: Cells = [[None] * 9 for _ in range(9)]
    return next(solutions(empty, 3, rng))


def _only_latin(solution: Full, rng: random.Random) -> Cells:
    return _dig(solution, 0, rng)


def _only_sudoku(solution: Full, rng: random.Random) -> Cells:
    return _dig(solution, 3, rng)


def _dig(solution: Full, box: int, rng: random.Random) -> Cells:
    """Take clues away, in random order, as long as the solution stays the only one."""
    n = len(solution)
    given: Cells = [list(row) for row in solution]
    for place in rng.sample(range(n * n), n * n):
        i, j = divmod(place, n)
        clue, given[i][j] = given[i][j], None
        ways = solutions(given, box)
        next(ways)
        if next(ways, None) is not None:
            given[i][j] = clue
    return given


def solutions(given: Cells, box: int = 0, rng: random.Random | None = None) -> Iterator[Full]:
    """Every way to fill a latin square, or with `box` 3 a sudoku, by search: the cell with the
    fewest candidates first. In random order with `rng`."""
    square = _Square(len(given), box)
    for i, row in enumerate(given):
        for j, clue in enumerate(row):
            if clue is None:
                square.holes.append((i, j))
            elif square.free(i, j) & 1 << clue - 1:
                square.put(i, j, clue)
            else:
                return
    yield from square.search(rng)


class _Square:
    """A latin square or sudoku in the making; candidates are bits, symbol v is bit v - 1."""

    def __init__(self, n: int, box: int) -> None:
        whole = (1 << n) - 1
        self.n, self.box = n, box
        self.cells = [[0] * n for _ in range(n)]
        self.holes: list[tuple[int, int]] = []
        self.rows, self.columns, self.boxes = ([whole] * n for _ in range(3))

    def free(self, i: int, j: int) -> int:
        """The symbols that cell (i, j) may hold."""
        free = self.rows[i] & self.columns[j]
        return free & self.boxes[self._box(i, j)] if self.box else free

    def _box(self, i: int, j: int) -> int:
        return i // self.box * self.box + j // self.box

    def put(self, i: int, j: int, value: int) -> None:
        """Set a cell; the same again takes it back."""
        bit = 1 << value - 1
        self.cells[i][j] = value
        self.rows[i] ^= bit
        self.columns[j] ^= bit
        if self.box:
            self.boxes[self._box(i, j)] ^= bit

    def search(self, rng: random.Random | None) -> Iterator[Full]:
        if not self.holes:
            yield [list(row) for row in self.cells]
            return
        at = min(range(len(self.holes)), key=lambda k: self.free(*self.holes[k]).bit_count())
        i, j = self.holes.pop(at)
        free = self.free(i, j)
        values = [v for v in range(1, self.n + 1) if free >> v - 1 & 1]
        if rng is not None:
            rng.shuffle(values)
        for value in values:
            self.put(i, j, value)
            yield from self.search(rng)
            self.put(i, j, value)
        self.holes.insert(at, (i, j))


# --- The laws ------------------------------------------------------------------------------------


def _sum_law(cells: Cells) -> list[Fault]:
    return [
        Fault(i, j, f"{cell} is not {i} + {j}")
        for i, row in enumerate(cells)
        for j, cell in enumerate(row)
        if cell is not None and cell != i + j
    ]


def _affine_law(cells: Cells) -> list[Fault]:
    """Values in range, and constants that give every known cell. From the corner's three cells if
    they are known; else by trying all of them against the known cells."""
    known = [(i, j, x) for i, row in enumerate(cells) for j, x in enumerate(row) if x is not None]
    wild = [Fault(i, j, f"{x} is not in 0 .. {MODULUS - 1}") for i, j, x in known
            if not 0 <= x < MODULUS]  # fmt: skip
    if wild or not known:
        return wild
    best: list[Fault] = []
    for a, b, c in _constants(cells, known):
        wrong = [
            Fault(i, j, f"{x} is not {a} i + {b} j + {c} mod {MODULUS}")
            for i, j, x in known
            if x != (a * i + b * j + c) % MODULUS
        ]
        if not wrong:
            return []
        if not best or len(wrong) < len(best):
            best = wrong
    return best


def corner_of(cells: Sequence[Sequence[T]]) -> tuple[T, T, T]:
    """The first cell, the one right of it and the one below; where there is none, the first."""
    corner = cells[0][0]
    right = cells[0][1] if len(cells[0]) > 1 else corner
    below = cells[1][0] if len(cells) > 1 else corner
    return corner, right, below


def _constants(cells: Cells, known: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    corner, right, below = corner_of(cells)
    if corner is not None and right is not None and below is not None:
        yield (below - corner) % MODULUS, (right - corner) % MODULUS, corner
        return
    i, j, x = known[0]
    for a in range(MODULUS):
        for b in range(MODULUS):
            yield a, b, (x - a * i - b * j) % MODULUS


def _latin_law(cells: Cells) -> list[Fault]:
    return _once(cells, _lines(len(cells)))


def _sudoku_law(cells: Cells) -> list[Fault]:
    boxes = [
        [(3 * (b // 3) + k // 3, 3 * (b % 3) + k % 3, "box") for k in range(9)] for b in range(9)
    ]
    return _once(cells, [*_lines(9), *boxes])


def _lines(n: int) -> list[list[tuple[int, int, str]]]:
    rows = [[(i, j, "row") for j in range(n)] for i in range(n)]
    return [*rows, *([(i, j, "column") for i in range(n)] for j in range(n))]


def _once(cells: Cells, groups: list[list[tuple[int, int, str]]]) -> list[Fault]:
    """Cells out of 1 .. n, and those whose value their row, column or box already holds."""
    n = len(cells)
    found = [
        Fault(i, j, f"{x} is not in 1 .. {n}")
        for i, row in enumerate(cells)
        for j, x in enumerate(row)
        if x is not None and not 1 <= x <= n
    ]
    for group in groups:
        seen: dict[int, tuple[int, int]] = {}
        for i, j, kind in group:
            x = cells[i][j]
            if x is not None and x in seen:
                found.append(Fault(i, j, f"{x} stands twice in its {kind}"))
            elif x is not None:
                seen[x] = (i, j)
    return found


Maker: TypeAlias = tuple[
    Callable[[int, int, random.Random], Full], Callable[[Full, random.Random], Cells]
]
_MAKERS: dict[str, Maker] = {
    "sum": (_sum, _nothing),
    "affine": (_affine, _few),
    "latin": (_latin, _only_latin),
    "sudoku": (_sudoku, _only_sudoku),
}
_LAWS: dict[str, Callable[[Cells], list[Fault]]] = {
    "sum": _sum_law,
    "affine": _affine_law,
    "latin": _latin_law,
    "sudoku": _sudoku_law,
}
TASKS = tuple(_MAKERS)


def _maker(task: str, height: int, width: int) -> Maker:
    if task not in _MAKERS:
        raise unknown("grid task", task, _MAKERS)
    if height < 1 or width < 1:
        raise ConfigError(f"A grid needs at least one cell, got {height!r} x {width!r}.")
    if task == "sudoku" and (height, width) != (9, 9):
        raise ConfigError(f"A sudoku is 9x9, got {height}x{width}.")
    if task == "latin" and height != width:
        raise ConfigError(f"A latin square is as high as wide, got {height}x{width}.")
    return _MAKERS[task]
