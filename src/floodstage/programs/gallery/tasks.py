"""Tasks of our own in the manner of ARC, each from a seeded generator that builds both sides.

An output is made from how its input was made where that can be, and never by a solver's code, so
that solvers and generators check each other.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeAlias

from floodstage.programs.gallery.material import (
    Block,
    Grid,
    apart,
    dots,
    draw,
    empty,
    noise,
    paint,
    sizes_of,
    some,
)
from floodstage.programs.records import DataTask, Sample

Pair: TypeAlias = tuple[Grid, Grid]
DEMOS, TESTS = 3, 2
GENERATORS: dict[str, Callable[[Random], Pair]] = {}


def gallery(seed: int = 0) -> dict[str, DataTask]:
    """Every task by its name, with three demo and two test samples; equal for equal seeds."""
    return {name: _task(name, make, seed) for name, make in GENERATORS.items()}


def _task(name: str, make: Callable[[Random], Pair], seed: int) -> DataTask:
    rng = Random(f"{seed} {name}")
    parts = ["demo"] * DEMOS + ["test"] * TESTS
    pairs = [make(rng) for _ in parts]
    samples = (Sample((one,), two, part) for (one, two), part in zip(pairs, parts, strict=True))
    return DataTask(name, tuple(samples), (f"solve_{name}", "solve"))


def _generator(make: Callable[[Random], Pair]) -> Callable[[Random], Pair]:
    GENERATORS[make.__name__] = make
    return make


# -- a grid as a whole ------------------------------------------------------------------------


@_generator
def upside_down(rng: Random) -> Pair:
    grid = some(rng)
    return grid, list(reversed(grid))


@_generator
def left_right(rng: Random) -> Pair:
    grid = some(rng)
    return grid, [list(reversed(row)) for row in grid]


@_generator
def quarter_turn(rng: Random) -> Pair:
    grid = some(rng)
    rows, columns = len(grid), len(grid[0])
    return grid, [[grid[rows - 1 - i][j] for i in range(rows)] for j in range(columns)]


@_generator
def turned_round(rng: Random) -> Pair:
    grid = some(rng)
    return grid, [list(reversed(row)) for row in reversed(grid)]


@_generator
def rows_to_columns(rng: Random) -> Pair:
    grid = some(rng)
    return grid, [[row[j] for row in grid] for j in range(len(grid[0]))]


@_generator
def upper_half(rng: Random) -> Pair:
    top = some(rng)
    return top + noise(rng, len(top), len(top[0])), top


@_generator
def larger(rng: Random) -> Pair:
    grid = some(rng)
    return grid, [[cell for cell in row for _ in "abc"] for row in grid for _ in "abc"]


@_generator
def every_other(rng: Random) -> Pair:
    small = some(rng)
    grid = noise(rng, 2 * len(small), 2 * len(small[0]))
    for i, row in enumerate(small):
        grid[2 * i][::2] = row
    return grid, small


@_generator
def four_copies(rng: Random) -> Pair:
    grid = some(rng)
    return grid, [row + row for row in grid + grid]


@_generator
def mirror_beside(rng: Random) -> Pair:
    grid = some(rng)
    return grid, [row + row[::-1] for row in grid]


@_generator
def mirror_below(rng: Random) -> Pair:
    grid = some(rng)
    return grid, grid + grid[::-1]


@_generator
def kaleidoscope(rng: Random) -> Pair:
    grid = some(rng)
    wide = [row + row[::-1] for row in grid]
    return grid, wide + wide[::-1]


@_generator
def one_step_right(rng: Random) -> Pair:
    grid = some(rng)
    return grid, [row[-1:] + row[:-1] for row in grid]


@_generator
def stretched(rng: Random) -> Pair:
    """Rows and columns repeated at random; the plain picture is the output."""
    rows, columns = rng.randint(2, 4), rng.randint(2, 4)
    small = [[(3 * i + 2 * j) % 9 + 1 for j in range(columns)] for i in range(rows)]
    wide = [[cell for j, cell in enumerate(row) for _ in range(1 + (j % 2))] for row in small]
    return [list(row) for row in wide for _ in range(rng.randint(1, 3))], small


# -- colours ----------------------------------------------------------------------------------


@_generator
def three_to_seven(rng: Random) -> Pair:
    grid = noise(rng, rng.randint(3, 8), rng.randint(3, 8), range(1, 6))
    return grid, [[{3: 7}.get(cell, cell) for cell in row] for row in grid]


@_generator
def one_for_two(rng: Random) -> Pair:
    grid = noise(rng, rng.randint(3, 8), rng.randint(3, 8), range(4))
    return grid, [[(0, 2, 1, 3)[cell] for cell in row] for row in grid]


@_generator
def most_of_it(rng: Random) -> Pair:
    """The commonest colour everywhere."""
    side, (most, *rest) = rng.randint(3, 6), rng.sample(range(1, 10), 3)
    flat = [most] * (side * side // 2 + 1)
    flat += [rng.choice(rest) for _ in range(side * side - len(flat))]
    rng.shuffle(flat)
    rows = [flat[i * side : (i + 1) * side] for i in range(side)]
    return rows, empty(side, side, most)


@_generator
def colour_bar(rng: Random) -> Pair:
    """As many cells in a row as the colour has."""
    side, colour, number = rng.randint(4, 8), rng.randint(1, 9), rng.randint(1, 9)
    grid = empty(side, side)
    for place in rng.sample(range(side * side), number):
        grid[place // side][place % side] = colour
    return grid, [[colour] * number]


@_generator
def framed(rng: Random) -> Pair:
    grid = some(rng)
    out = empty(len(grid), len(grid[0]), 8)
    for i in range(1, len(grid) - 1):
        out[i][1:-1] = grid[i][1:-1]
    return grid, out


@_generator
def stripes(rng: Random) -> Pair:
    """The colours of the top row run down."""
    rows, columns = rng.randint(3, 8), rng.randint(3, 8)
    top = [rng.choice((0, 0, rng.randint(1, 9))) for _ in range(columns)]
    return [top, *empty(rows - 1, columns)], [list(top) for _ in range(rows)]


@_generator
def to_the_right(rng: Random) -> Pair:
    """From one cell a row, a ray to the right edge."""
    rows, columns = rng.randint(3, 8), rng.randint(4, 9)
    grid, out = empty(rows, columns), empty(rows, columns)
    for i in rng.sample(range(rows), rng.randint(1, rows)):
        j, colour = rng.randrange(columns), rng.randint(1, 9)
        grid[i][j] = colour
        out[i][j:] = [colour] * (columns - j)
    return grid, out


@_generator
def bridges(rng: Random) -> Pair:
    """Pairs in a row are joined."""
    rows, columns = rng.randint(4, 8), rng.randint(5, 9)
    grid, out = empty(rows, columns), empty(rows, columns)
    for i in rng.sample(range(rows), rng.randint(1, rows // 2)):
        (a, b), colour = sorted(rng.sample(range(columns), 2)), rng.randint(1, 9)
        grid[i][a] = grid[i][b] = colour
        out[i][a : b + 1] = [colour] * (b - a + 1)
    return grid, out


@_generator
def crosshair(rng: Random) -> Pair:
    """Row and column of the one cell."""
    rows, columns, colour = rng.randint(3, 8), rng.randint(3, 8), rng.randint(1, 9)
    i, j = rng.randrange(rows), rng.randrange(columns)
    grid = empty(rows, columns)
    grid[i][j] = colour
    return grid, [[colour if r == i or c == j else 0 for c in range(columns)] for r in range(rows)]


@_generator
def sand(rng: Random) -> Pair:
    """Everything falls."""
    rows, columns = rng.randint(4, 8), rng.randint(4, 8)
    grid, out = empty(rows, columns), empty(rows, columns)
    for j in range(columns):
        places = sorted(rng.sample(range(rows), rng.randint(0, rows - 1)))
        for i, place in enumerate(places):
            grid[place][j] = out[rows - len(places) + i][j] = rng.randint(1, 9)
    return grid, out


@_generator
def bars_in_order(rng: Random) -> Pair:
    """Bars from the bottom, sorted by their height."""
    rows = rng.randint(4, 8)
    bars = [(n, rng.randint(1, 9)) for n in rng.sample(range(1, rows + 1), rng.randint(3, rows))]

    def drawn(of: list[tuple[int, int]]) -> Grid:
        return [[colour if i >= rows - n else 0 for n, colour in of] for i in range(rows)]

    return drawn(bars), drawn(sorted(bars))


# -- two halves -------------------------------------------------------------------------------


def _halves(rng: Random, rule: Callable[[int, int], bool]) -> Pair:
    """Two pictures with a line between them, and a 4 where the rule holds."""
    rows, columns = rng.randint(3, 6), rng.randint(3, 5)
    one, two = dots(rng, rows, columns, 1), dots(rng, rows, columns, 2)
    grid = [[*r, 5, *s] for r, s in zip(one, two, strict=True)]
    pairs = ([*zip(r, s, strict=True)] for r, s in zip(one, two, strict=True))
    return grid, [[4 if rule(a, b) else 0 for a, b in row] for row in pairs]


@_generator
def in_both(rng: Random) -> Pair:
    return _halves(rng, lambda a, b: a * b > 0)


@_generator
def in_either(rng: Random) -> Pair:
    return _halves(rng, lambda a, b: a + b > 0)


@_generator
def in_one(rng: Random) -> Pair:
    return _halves(rng, lambda a, b: a + b in (1, 2))


@_generator
def in_neither(rng: Random) -> Pair:
    return _halves(rng, lambda a, b: a + b == 0)


# -- pieces -----------------------------------------------------------------------------------


def _blocks(rng: Random, number: int) -> tuple[Grid, list[Block], list[int]]:
    """Blocks of different areas and colours, the largest first."""
    sizes = sorted(sizes_of(rng, number), key=lambda s: -s[0] * s[1])
    blocks, colours = apart(rng, 14, sizes), rng.sample(range(1, 10), number)
    grid = empty(14, 14)
    for block, colour in zip(blocks, colours, strict=True):
        paint(grid, block, colour)
    return grid, blocks, colours


@_generator
def cut_out(rng: Random) -> Pair:
    """The picture without the ground around it."""
    picture = noise(rng, rng.randint(2, 5), rng.randint(2, 5), range(1, 10))
    grid = empty(12, 12)
    draw(grid, rng.randint(0, 7), rng.randint(0, 7), picture)
    return grid, picture


@_generator
def the_largest(rng: Random) -> Pair:
    grid, blocks, colours = _blocks(rng, 3)
    return grid, empty(blocks[0][2], blocks[0][3], colours[0])


@_generator
def colour_of_the_least(rng: Random) -> Pair:
    grid, _, colours = _blocks(rng, 4)
    return grid, [[colours[-1]]]


@_generator
def first_and_rest(rng: Random) -> Pair:
    """The largest in 1, the others in 2."""
    grid, blocks, _ = _blocks(rng, 4)
    out = empty(14, 14)
    for number, block in enumerate(blocks):
        paint(out, block, 1 if number == 0 else 2)
    return grid, out


@_generator
def one_colour_off(rng: Random) -> Pair:
    """Of several blocks the one whose colour no other has."""
    sizes = [(rng.randint(1, 4), rng.randint(1, 4)) for _ in range(4)]
    same, other = rng.sample(range(1, 10), 2)
    grid = empty(14, 14)
    for number, block in enumerate(apart(rng, 14, sizes)):
        paint(grid, block, other if number == 0 else same)
    return grid, empty(*sizes[0], other)


@_generator
def without_dust(rng: Random) -> Pair:
    """Single cells disappear."""
    blocks = apart(rng, 12, [(3, 4), (2, 3), (1, 1), (1, 1), (1, 1)])
    grid, out = empty(12, 12), empty(12, 12)
    for number, block in enumerate(blocks):
        colour = rng.randint(1, 9)
        paint(grid, block, colour)
        if number < 2:
            paint(out, block, colour)
    return grid, out


def _hollow(rng: Random, number: int) -> tuple[Grid, list[Block]]:
    blocks = apart(rng, 16, [(rng.randint(3, 5), rng.randint(3, 5)) for _ in range(number)])
    grid = empty(16, 16)
    for top, left, rows, columns in blocks:
        paint(grid, (top, left, rows, columns), 3)
        paint(grid, (top + 1, left + 1, rows - 2, columns - 2), 0)
    return grid, blocks


@_generator
def filled(rng: Random) -> Pair:
    """What is enclosed becomes 4."""
    grid, blocks = _hollow(rng, rng.randint(1, 3))
    out = [list(row) for row in grid]
    for top, left, rows, columns in blocks:
        paint(out, (top + 1, left + 1, rows - 2, columns - 2), 4)
    return grid, out


@_generator
def how_many_hollow(rng: Random) -> Pair:
    number = rng.randint(1, 4)
    return _hollow(rng, number)[0], [[3] * number]


@_generator
def inside(rng: Random) -> Pair:
    """The picture in the frame."""
    picture = noise(rng, rng.randint(2, 4), rng.randint(2, 4), range(1, 6))
    rows, columns = len(picture) + 2, len(picture[0]) + 2
    top, left = rng.randint(0, 12 - rows), rng.randint(0, 12 - columns)
    grid = empty(12, 12)
    paint(grid, (top, left, rows, columns), 9)
    draw(grid, top + 1, left + 1, picture)
    return grid, picture


@_generator
def walled(rng: Random) -> Pair:
    """A wall of 6 around every block."""
    blocks = [(t + 1, x + 1, r - 2, c - 2) for t, x, r, c in _hollow(rng, 3)[1]]
    grid, out = empty(16, 16), empty(16, 16)
    for top, left, rows, columns in blocks:
        colour = rng.randint(1, 5)
        paint(grid, (top, left, rows, columns), colour)
        paint(out, (top - 1, left - 1, rows + 2, columns + 2), 6)
        paint(out, (top, left, rows, columns), colour)
    return grid, out
