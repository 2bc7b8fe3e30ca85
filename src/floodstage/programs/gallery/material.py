"""What the gallery's tasks are made of: random grids, and blocks that do not touch."""

from __future__ import annotations

from random import Random
from typing import TypeAlias

Grid: TypeAlias = list[list[int]]
Block: TypeAlias = tuple[int, int, int, int]  # top, left, rows, columns


def empty(rows: int, columns: int, colour: int = 0) -> Grid:
    """One colour."""
    return [[colour] * columns for _ in range(rows)]


def noise(rng: Random, rows: int, columns: int, colours: range = range(10)) -> Grid:
    """Every cell drawn from `colours`."""
    return [[rng.choice(colours) for _ in range(columns)] for _ in range(rows)]


def some(rng: Random) -> Grid:
    """Colours of 3 to 7 rows and columns that differ."""
    rows, columns = rng.sample(range(3, 8), 2)
    return noise(rng, rows, columns)


def dots(rng: Random, rows: int, columns: int, colour: int) -> Grid:
    """About half of the cells in a colour, at least one of them."""
    grid = [[rng.choice((0, colour)) for _ in range(columns)] for _ in range(rows)]
    grid[rng.randrange(rows)][rng.randrange(columns)] = colour
    return grid


def paint(grid: Grid, block: Block, colour: int) -> None:
    """Fill a block of a grid, in place."""
    top, left, rows, columns = block
    for i in range(top, top + rows):
        grid[i][left : left + columns] = [colour] * columns


def draw(grid: Grid, top: int, left: int, picture: Grid) -> None:
    """Put a picture into a grid, in place."""
    for i, row in enumerate(picture):
        grid[top + i][left : left + len(row)] = row


def apart(rng: Random, side: int, sizes: list[tuple[int, int]]) -> list[Block]:
    """Blocks of the given sizes in a square grid, none touching another, not even at corners."""
    while True:
        found: list[Block] = []
        for rows, columns in sizes:
            top, left = rng.randrange(side - rows + 1), rng.randrange(side - columns + 1)
            if not any(_near((top, left, rows, columns), b) for b in found):
                found.append((top, left, rows, columns))
        if len(found) == len(sizes):
            return found


def _near(one: Block, two: Block) -> bool:
    return all(one[k] <= two[k] + two[k + 2] and two[k] <= one[k] + one[k + 2] for k in (0, 1))


def sizes_of(rng: Random, number: int) -> list[tuple[int, int]]:
    """Sizes of different areas."""
    while True:
        found = [(rng.randint(1, 5), rng.randint(1, 5)) for _ in range(number)]
        if len({rows * columns for rows, columns in found}) == number:
            return found
