"""The tables of grids filled and written: functions of the records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from floodstage.bench.tables import Table
from floodstage.core.metrics import Cost, Interval, speedup

REFINE, TWIN, DRAFTED, ONE = "refine", "twin", "twin, n-gram draft", "one"
Row = dict[str, Any]


def summarise(rows: Sequence[Row], exact: Sequence[Row]) -> list[Table]:
    """Speed at matched exactness, what it costs, and exactness alone."""
    tables = [_speed(rows), _price(rows), *([_exact(exact)] if exact else [])]
    return [t for t in tables if t.rows]


def groups(rows: Sequence[Row]) -> list[tuple[int, int, int]]:
    """(batch, height, width) of what was measured, in order."""
    found = {(r["batch"], r["height"], r["width"]) for r in rows}
    return sorted(found, key=lambda g: (g[0], g[1] * g[2]))


def of(rows: Sequence[Row], group: tuple[int, int, int], arm: str) -> list[Row]:
    """An arm's rounds, in the order of the rounds."""
    mine = [r for r in rows if (r["batch"], r["height"], r["width"]) == group and r["arm"] == arm]
    return sorted(mine, key=lambda r: int(r["repeat"]))


def seconds(rows: Sequence[Row]) -> float:
    """Of one grid, on average."""
    return float(sum(r["seconds"] for r in rows) / sum(r["batch"] for r in rows))


def faster(
    rows: Sequence[Row], group: tuple[int, int, int], arm: str, base: str
) -> Interval | None:
    """How many times faster `arm` is than `base`, paired by rounds."""
    ours, theirs = of(rows, group, arm), of(rows, group, base)
    both = {r["repeat"] for r in ours} & {r["repeat"] for r in theirs}
    if not both:
        return None
    cells = group[0] * group[1] * group[2]
    costs = [
        [Cost(cells, r["seconds"]) for r in mine if r["repeat"] in both] for mine in (ours, theirs)
    ]
    return speedup(*costs)


def _speed(rows: Sequence[Row]) -> Table:
    lines = []
    for group in groups(rows):
        batch, h, w = group
        fills, writes, drafts, ones = (of(rows, group, a) for a in (REFINE, TWIN, DRAFTED, ONE))
        lines.append(
            (
                f"{h}x{w}",
                str(batch),
                _ms(fills),
                _mean(fills, "passes"),
                _right(fills),
                _ms(writes),
                _right(writes),
                _ratio(faster(rows, group, REFINE, TWIN)),
                _ms(drafts),
                _mean(drafts, "passes"),
                _right(drafts),
                _ratio(faster(rows, group, REFINE, DRAFTED)),
                _ms(ones),
                _right(ones),
            )
        )
    head = (
        *("size", "batch", "refine ms", "passes", "exact", "twin ms", "exact"),
        *("speedup [95 %]", "drafted twin ms", "passes", "exact", "speedup over it [95 %]"),
        *("one by one ms", "exact"),
    )
    note = (
        "ms are of one grid (a batch's time over its grids), from lists to lists; passes are of "
        "the model over one grid, the twin's prompt included. Exact: grids in which the checker "
        "finds no fault; while it fills, `refine` asks it after every pass, the seconds counted. "
        f"{crossover(rows)}"
    )
    return Table("Filled at once beside written cell by cell", head, tuple(lines), note)


def crossover(rows: Sequence[Row]) -> str:
    """In words: from how many cells on filling is faster, one grid at a time."""
    points = []
    for group in groups(rows):
        ratio = faster(rows, group, REFINE, TWIN)
        if group[0] == 1 and ratio is not None:
            points.append((group[1] * group[2], ratio.value))
    slower = [n for n, value in points if value < 1]
    if not points:
        return ""
    if not slower:
        return f"Filling is faster at every size that was measured, from {points[0][0]} cells on."
    if len(slower) == len(points):
        return "The twin is faster at every size that was measured."
    last = max(i for i, (_, value) in enumerate(points) if value < 1)
    if last + 1 == len(points):
        return f"The twin is faster up to {points[last][0]} cells, the largest measured."
    (a, x), (b, y) = points[last], points[last + 1]
    at = math.exp(math.log(a) + math.log(b / a) * math.log(1 / x) / math.log(y / x))
    return f"The twin is faster below about {at:.0f} cells (interpolated)."


def _price(rows: Sequence[Row]) -> Table:
    lines = []
    for group in groups(rows):
        if group[0] != 1:
            continue
        fills, writes, drafts = (of(rows, group, a) for a in (REFINE, TWIN, DRAFTED))
        lines.append(
            (
                f"{group[1]}x{group[2]}",
                _giga(fills),
                _giga(writes),
                _giga(drafts),
                _rate(fills),
                _rate(writes),
                *(
                    f"{mine[0]['memory_bytes'] / 1e6:,.1f}" if mine else ""
                    for mine in (fills, writes)
                ),
            )
        )
    head = (
        *("size", "refine GFLOP", "twin GFLOP", "drafted twin GFLOP", "refine GFLOP/s"),
        *("twin GFLOP/s", "refine MB", "twin MB"),
    )
    note = (
        "FLOP are counted from the layers' sizes. MB: of the denoiser what one pass holds at its "
        "peak, estimated; of the twin its cache, exactly."
    )
    return Table("What one grid costs", head, tuple(lines), note)


def _exact(rows: Sequence[Row]) -> Table:
    lines = []
    for name in dict.fromkeys(r["group"] for r in rows):
        mine = [r for r in rows if r["group"] == name]
        lines.append(
            (
                name,
                f"{sum(r['exact'] for r in mine)} of {len(mine)}",
                f"{sum(r['wrong_cells'] for r in mine):,}",
                f"{sum(r['passes'] for r in mine) / len(mine):.2f}",
                str(max(r["passes"] for r in mine)),
                f"{sum(r['twin_exact'] for r in mine)} of {len(mine)}",
                f"{sum(r['twin_wrong_cells'] for r in mine):,}",
            )
        )
    head = (
        *("size", "filled exactly", "wrong cells", "mean passes", "most passes"),
        *("twin exact", "twin's wrong cells"),
    )
    note = (
        "Held-out instances. The twin is judged in one pass over the right cells: it is exact "
        "there where the grid it writes by itself is; its wrong cells are those after right ones."
    )
    return Table("Whole grids exact", head, tuple(lines), note)


def _ms(rows: Sequence[Row]) -> str:
    return f"{1e3 * seconds(rows):,.1f}" if rows else ""


def _mean(rows: Sequence[Row], name: str) -> str:
    return f"{sum(r[name] for r in rows) / len(rows):,.1f}" if rows else ""


def _right(rows: Sequence[Row]) -> str:
    return f"{sum(r['exact'] for r in rows)}/{sum(r['batch'] for r in rows)}" if rows else ""


def _ratio(value: Interval | None) -> str:
    return "" if value is None else str(value)


def _giga(rows: Sequence[Row]) -> str:
    return f"{sum(r['flops'] for r in rows) / len(rows) / 1e9:,.2f}" if rows else ""


def _rate(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    return f"{sum(r['flops'] for r in rows) / sum(r['seconds'] for r in rows) / 1e9:,.1f}"
