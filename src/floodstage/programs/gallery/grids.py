"""Pure functions on grids, for solvers to be written with. Changes nothing it is given.

A grid is a tuple of equal rows of colours from 0 to 9; row 0 is at the top, colour 0 the usual
ground. A piece is a tuple of (row, column, colour), in reading order.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

Grid = tuple[tuple[int, ...], ...]
Piece = tuple[tuple[int, int, int], ...]

# -- sizes and colours ------------------------------------------------------------------------


def height(grid: Grid) -> int:
    return len(grid)


def width(grid: Grid) -> int:
    return len(grid[0])


def count(grid: Grid, colour: int) -> int:
    """How many cells have that colour."""
    return sum(row.count(colour) for row in grid)


def colours(grid: Grid) -> tuple[int, ...]:
    """The colours of a grid, the commonest first, equally common ones in order."""
    found = Counter(cell for row in grid for cell in row)
    return tuple(sorted(found, key=lambda colour: (-found[colour], colour)))


def commonest(grid: Grid) -> int:
    return colours(grid)[0]


def rarest(grid: Grid) -> int:
    return colours(grid)[-1]


def ink(grid: Grid, ground: int = 0) -> int:
    """The commonest colour but the ground; the ground where there is no other."""
    return next((colour for colour in colours(grid) if colour != ground), ground)


# -- turning, cutting, putting together -------------------------------------------------------


def blank(rows: int, columns: int, colour: int = 0) -> Grid:
    return ((colour,) * columns,) * rows


def flip_rows(grid: Grid) -> Grid:
    """Upside down."""
    return grid[::-1]


def flip_columns(grid: Grid) -> Grid:
    """Left is right."""
    return tuple(row[::-1] for row in grid)


def transpose(grid: Grid) -> Grid:
    return tuple(zip(*grid, strict=True))


def turn(grid: Grid) -> Grid:
    """A quarter clockwise."""
    return transpose(flip_rows(grid))


def turn_back(grid: Grid) -> Grid:
    """A quarter counterclockwise."""
    return flip_rows(transpose(grid))


def half_turn(grid: Grid) -> Grid:
    return flip_rows(flip_columns(grid))


def crop(grid: Grid, top: int, left: int, rows: int, columns: int) -> Grid:
    return tuple(row[left : left + columns] for row in grid[top : top + rows])


def top_half(grid: Grid) -> Grid:
    """The upper rows, without the middle one if there is one."""
    return grid[: len(grid) // 2]


def bottom_half(grid: Grid) -> Grid:
    return grid[-(len(grid) // 2) :]


def left_half(grid: Grid) -> Grid:
    return transpose(top_half(transpose(grid)))


def right_half(grid: Grid) -> Grid:
    return transpose(bottom_half(transpose(grid)))


def beside(left: Grid, right: Grid) -> Grid:
    return tuple(a + b for a, b in zip(left, right, strict=True))


def above(top: Grid, bottom: Grid) -> Grid:
    return top + bottom


def tile(grid: Grid, rows: int, columns: int) -> Grid:
    """Copies of a grid, so many below and beside each other."""
    return tuple(row * columns for row in grid) * rows


def scale(grid: Grid, factor: int) -> Grid:
    """Every cell becomes a square of `factor` cells a side."""
    return tuple(
        tuple(cell for cell in row for _ in range(factor)) for row in grid for _ in range(factor)
    )


def shrink(grid: Grid, factor: int) -> Grid:
    """Every `factor`-th cell of every `factor`-th row."""
    return tuple(row[::factor] for row in grid[::factor])


def trim(grid: Grid, ground: int = 0) -> Grid:
    """The smallest part that holds everything but the ground."""
    return cut(grid, tuple(x for x in cells(grid) if x[2] != ground))


def squeeze(grid: Grid) -> Grid:
    """Equal neighbouring rows and columns become one."""
    return transpose(_unequal(transpose(_unequal(grid))))


def _unequal(grid: Grid) -> Grid:
    return tuple(row for i, row in enumerate(grid) if i == 0 or row != grid[i - 1])


def roll(grid: Grid, down: int, right: int) -> Grid:
    """Moved; what leaves on one side comes in on the other."""
    rows = [grid[(i - down) % len(grid)] for i in range(len(grid))]
    return tuple(tuple(row[(j - right) % len(row)] for j in range(len(row))) for row in rows)


def split_rows(grid: Grid, parts: int) -> tuple[Grid, ...]:
    """So many equal grids from top to bottom; what is left over is dropped."""
    rows = len(grid) // parts
    return tuple(grid[i * rows : (i + 1) * rows] for i in range(parts))


def split_columns(grid: Grid, parts: int) -> tuple[Grid, ...]:
    return tuple(transpose(part) for part in split_rows(transpose(grid), parts))


def panels(grid: Grid) -> tuple[Grid, ...]:
    """What lies between full lines of one colour other than 0, row by row."""
    lines = [i for i, row in enumerate(grid) if row[0] and len(set(row)) == 1]
    return tuple(
        transpose(panel)
        for band in _between(grid, lines)
        for panel in _between(
            transpose(band), [j for j, row in enumerate(transpose(grid)) if _solid(row)]
        )
    )


def _solid(row: tuple[int, ...]) -> bool:
    return bool(row[0]) and len(set(row)) == 1


def _between(grid: Grid, lines: list[int]) -> list[Grid]:
    ends = [-1, *lines, len(grid)]
    return [grid[a + 1 : b] for a, b in itertools.pairwise(ends) if b - a > 1]


# -- colouring --------------------------------------------------------------------------------


def recolour(grid: Grid, old: int, new: int) -> Grid:
    return tuple(tuple(new if cell == old else cell for cell in row) for row in grid)


def swap(grid: Grid, one: int, two: int) -> Grid:
    """Two colours change places."""
    other = {one: two, two: one}
    return tuple(tuple(other.get(cell, cell) for cell in row) for row in grid)


def only(grid: Grid, colour: int) -> Grid:
    """That colour on ground 0."""
    return tuple(tuple(cell if cell == colour else 0 for cell in row) for row in grid)


def inked(grid: Grid, colour: int, ground: int = 0) -> Grid:
    """Everything but the ground in one colour."""
    return tuple(tuple(ground if cell == ground else colour for cell in row) for row in grid)


def overlay(under: Grid, over: Grid, clear: int = 0) -> Grid:
    """`over` on top of a grid of the same size; its cells of colour `clear` let through."""
    return tuple(
        tuple(a if b == clear else b for a, b in zip(r, s, strict=True))
        for r, s in zip(under, over, strict=True)
    )


def _mark(one: Grid, two: Grid, colour: int, rule: Callable[[bool, bool], bool]) -> Grid:
    return tuple(
        tuple(colour if rule(a != 0, b != 0) else 0 for a, b in zip(r, s, strict=True))
        for r, s in zip(one, two, strict=True)
    )


def both(one: Grid, two: Grid, colour: int) -> Grid:
    """`colour` where two grids of a size are not 0."""
    return _mark(one, two, colour, lambda a, b: a and b)


def either(one: Grid, two: Grid, colour: int) -> Grid:
    return _mark(one, two, colour, lambda a, b: a or b)


def differ(one: Grid, two: Grid, colour: int) -> Grid:
    """`colour` where exactly one is not 0."""
    return _mark(one, two, colour, lambda a, b: a != b)


def neither(one: Grid, two: Grid, colour: int) -> Grid:
    return _mark(one, two, colour, lambda a, b: not (a or b))


def frame(grid: Grid, colour: int) -> Grid:
    """The outermost cells in that colour."""
    last, end = len(grid) - 1, len(grid[0]) - 1
    return _draw(grid, [x for x in cells(grid) if x[0] in (0, last) or x[1] in (0, end)], colour)


def fall(grid: Grid, ground: int = 0) -> Grid:
    """In every column what is not ground sinks to the bottom."""
    return transpose(
        tuple(
            (ground,) * column.count(ground) + tuple(cell for cell in column if cell != ground)
            for column in transpose(grid)
        )
    )


def shoot(grid: Grid, down: int, right: int, ground: int = 0) -> Grid:
    """A ray of its colour from every cell that is not ground, over ground, to the first other
    cell or the edge."""
    out = [list(row) for row in grid]
    for i, j, colour in cells(grid):
        if colour != ground:
            i, j = i + down, j + right
            while 0 <= i < len(grid) and 0 <= j < len(grid[0]) and grid[i][j] == ground:
                out[i][j] = colour
                i, j = i + down, j + right
    return tuple(map(tuple, out))


def bridge(grid: Grid, colour: int | None = None, ground: int = 0) -> Grid:
    """Two cells of one colour in one row, with nothing but ground between, are joined: in that
    colour, or their own. A cell may be joined on both sides."""
    out = [list(row) for row in grid]
    for i, row in enumerate(grid):
        ends = [j for j, cell in enumerate(row) if cell != ground]
        for a, b in itertools.pairwise(ends):
            if row[a] == row[b]:
                out[i][a + 1 : b] = [row[a] if colour is None else colour] * (b - a - 1)
    return tuple(map(tuple, out))


# -- pieces -----------------------------------------------------------------------------------


def cells(grid: Grid) -> Piece:
    """Every cell of a grid."""
    return tuple((i, j, cell) for i, row in enumerate(grid) for j, cell in enumerate(row))


def cells_of(grid: Grid, colour: int) -> Piece:
    return tuple(x for x in cells(grid) if x[2] == colour)


def pieces(
    grid: Grid, diagonal: bool = False, mixed: bool = False, ground: int | None = 0
) -> tuple[Piece, ...]:
    """What hangs together: neighbours of one colour, or of any but the ground if `mixed`; at
    corners too if `diagonal`. In the order of their first cells; without ground None."""
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    steps += [(1, 1), (1, -1), (-1, 1), (-1, -1)] if diagonal else []
    left = {(i, j): colour for i, j, colour in cells(grid) if colour != ground}
    found = []
    for start in list(left):
        if start in left:
            colour = left[start]
            todo, held = [start], [(*start, left.pop(start))]
            while todo:
                i, j = todo.pop()
                for down, right in steps:
                    near = (i + down, j + right)
                    if near in left and (mixed or left[near] == colour):
                        todo.append(near)
                        held.append((*near, left.pop(near)))
            found.append(tuple(sorted(held)))
    return tuple(found)


def holes(grid: Grid, ground: int = 0) -> tuple[Piece, ...]:
    """The pieces of ground that do not reach the edge."""
    last, end = len(grid) - 1, len(grid[0]) - 1
    return tuple(
        piece
        for piece in pieces(grid, ground=None)
        if piece[0][2] == ground and not any(i in (0, last) or j in (0, end) for i, j, _ in piece)
    )


def size(piece: Piece) -> int:
    return len(piece)


def hue(piece: Piece) -> int:
    """The commonest colour of a piece."""
    return Counter(colour for _, _, colour in piece).most_common(1)[0][0]


def box(piece: Piece) -> tuple[int, int, int, int]:
    """Top, left, rows and columns of the smallest rectangle around a piece."""
    rows, columns = [x[0] for x in piece], [x[1] for x in piece]
    top, left = min(rows), min(columns)
    return top, left, max(rows) - top + 1, max(columns) - left + 1


def cut(grid: Grid, piece: Piece) -> Grid:
    """The part of a grid in the box of a piece."""
    return crop(grid, *box(piece))


def picture(piece: Piece, ground: int = 0) -> Grid:
    """A piece alone, in its box."""
    top, left, rows, columns = box(piece)
    return _put(blank(rows, columns, ground), [(i - top, j - left, c) for i, j, c in piece])


def first(items: tuple[Any, ...]) -> Any:
    return items[0]


def most(items: tuple[Any, ...], of: Callable[[Any], Any]) -> Any:
    """The item with the most of something; the first of equals."""
    return max(items, key=of)


def least(items: tuple[Any, ...], of: Callable[[Any], Any]) -> Any:
    return min(items, key=of)


def where(items: tuple[Any, ...], holds: Callable[[Any], Any]) -> tuple[Any, ...]:
    """The items for which something holds."""
    return tuple(item for item in items if holds(item))


def ordered(items: tuple[Any, ...], by: Callable[[Any], Any]) -> tuple[Any, ...]:
    """From the least to the most; equals in the order they had."""
    return tuple(sorted(items, key=by))


def odd(items: tuple[Any, ...], of: Callable[[Any], Any]) -> Any:
    """The first item whose `of` no other item shares."""
    found = Counter(of(item) for item in items)
    return next(item for item in items if found[of(item)] == 1)


def joined(items: tuple[Piece, ...]) -> Piece:
    """Several pieces as one."""
    return tuple(sorted(x for piece in items for x in piece))


def paint(grid: Grid, piece: Piece, colour: int) -> Grid:
    """The cells of a piece in one colour; what lies outside the grid is dropped."""
    return _draw(grid, piece, colour)


def place(grid: Grid, piece: Piece) -> Grid:
    """A piece in its own colours."""
    return _put(grid, list(piece))


def is_box(piece: Piece) -> bool:
    """Whether a piece fills its box."""
    _, _, rows, columns = box(piece)
    return len(piece) == rows * columns


def boxed(piece: Piece) -> Piece:
    """Every cell of the box of a piece, in its commonest colour."""
    top, left, rows, columns = box(piece)
    colour = hue(piece)
    return tuple(
        (i, j, colour) for i in range(top, top + rows) for j in range(left, left + columns)
    )


def outline(piece: Piece) -> Piece:
    """The outermost cells of the box of a piece, in its commonest colour."""
    top, left, rows, columns = box(piece)
    return tuple(
        x
        for x in boxed(piece)
        if x[0] in (top, top + rows - 1) or x[1] in (left, left + columns - 1)
    )


def ring(piece: Piece) -> Piece:
    """The cells just outside the box of a piece, corners included, in its commonest colour."""
    top, left, rows, columns = box(piece)
    colour = hue(piece)
    corners = ((top - 1, left - 1, colour), (top + rows, left + columns, colour))
    return outline(corners + piece)


def _draw(grid: Grid, piece: Piece | list[tuple[int, int, int]], colour: int) -> Grid:
    return _put(grid, [(i, j, colour) for i, j, _ in piece])


def _put(grid: Grid, piece: list[tuple[int, int, int]]) -> Grid:
    out = [list(row) for row in grid]
    for i, j, colour in piece:
        if 0 <= i < len(out) and 0 <= j < len(out[0]):
            out[i][j] = colour
    return tuple(map(tuple, out))
