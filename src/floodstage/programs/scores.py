"""How near a wrong grid is to the right one: numbers from 0 to 1, of which 1 is reached by equals.

Only looked at where a program gave a grid and not the expected one; being exact is a verdict, not
a score. A scorer of one's own is one more entry, and a field of that name in `records.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

Grid: TypeAlias = Sequence[Sequence[int]]
"""Equal rows of colours, at least one cell."""


def cells(one: Grid, two: Grid) -> float:
    """The share of places with the same colour, of all places that either grid has, with their
    upper left corners on each other."""
    equal = sum(a == b for r, s in zip(one, two, strict=False) for a, b in zip(r, s, strict=False))
    common = min(len(one), len(two)) * min(len(one[0]), len(two[0]))
    return equal / (len(one) * len(one[0]) + len(two) * len(two[0]) - common)


def shape(one: Grid, two: Grid) -> float:
    """The shorter height over the longer, times the same of the widths."""
    heights, widths = sorted((len(one), len(two))), sorted((len(one[0]), len(two[0])))
    return heights[0] / heights[1] * widths[0] / widths[1]


def palette(one: Grid, two: Grid) -> float:
    """The colours of both over the colours of either."""
    a, b = ({colour for row in grid for colour in row} for grid in (one, two))
    return len(a & b) / len(a | b)


SCORERS: Mapping[str, Callable[[Grid, Grid], float]] = {
    "cells": cells,
    "shape": shape,
    "palette": palette,
}
