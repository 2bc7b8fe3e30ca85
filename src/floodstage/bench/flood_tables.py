"""The tables of a ladder: functions of its records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from floodstage.bench.tables import Table
from floodstage.core.metrics import Cost, Interval, speedup

BASE = "sequential"
CHARS = "character by character"
SPANS = "spans"


def summarise(rows: Sequence[dict[str, Any]], sizes: Sequence[int], k: int) -> list[Table]:
    """The ladder, the whole way, and where the time goes: functions of the records."""
    tables = []
    for size in sizes:
        mine = [r for r in rows if r["roots"] == size]
        if mine:
            tables.append(_ladder_table(size, mine))
    spans = [r for r in rows if r["rung"] == SPANS]
    return [*tables, _span_table(spans, sizes, k)]


def _ladder_table(size: int, rows: Sequence[dict[str, Any]]) -> Table:
    timed = [r for r in rows if r["rung"] != SPANS]
    names = list(dict.fromkeys(r["rung"] for r in sorted(timed, key=lambda r: r["repeat"])))
    base = _of(timed, BASE)
    lines = []
    for name in names:
        mine = _of(timed, name)
        seconds = sum(r["render_s"] for r in mine)
        exact = [r["exact"] for r in mine if r["exact"] is not None]
        whole = all(r["plan_s"] is not None for r in mine)
        planned = whole and exact
        lines.append(
            (
                name,
                f"{1e3 * seconds / len(mine):,.1f}",
                f"{sum(r['rendered'] for r in mine) / seconds:,.0f}" if exact else "",
                f"{sum(r['right_chars'] for r in mine) / seconds:,.0f}",
                f"{sum(exact)}/{len(exact)}" if exact else "its own",
                str(_ratio(mine, base, whole=False)) if exact else "",
                f"{1e3 * sum(r['plan_s'] for r in mine) / len(mine):,.0f}" if planned else "",
                str(_ratio(mine, base, whole=True)) if whole else "",
                f"{sum(r['same_plan'] for r in mine)}/{len(mine)}" if planned else "",
            )
        )
    head = (
        *("rung", "render ms", "roots/s", "correct chars/s", "text exact", "render speedup [95 %]"),
        *("plan ms", "whole speedup [95 %]", "same plan"),
    )
    chars = sum(r["chars"] for r in base) / len(base) if base else 0
    note = (
        f"{size} roots are {chars:,.0f} characters on average. Speedups are over {BASE!r}, by "
        "correct characters per second, paired by plan; 'whole' is plan and rendering together, "
        "in one run. Rungs without a plan of their own were given the roots."
    )
    return Table(f"{size} roots", head, tuple(lines), note)


def _of(rows: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return sorted((r for r in rows if r["rung"] == name), key=lambda r: int(r["repeat"]))


def _ratio(
    mine: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]], *, whole: bool
) -> Interval:
    def cost(r: dict[str, Any]) -> Cost:
        return Cost(r["right_chars"], r["render_s"] + (r["plan_s"] if whole else 0.0))

    return speedup([cost(r) for r in mine], [cost(r) for r in base])


def _span_table(rows: Sequence[dict[str, Any]], sizes: Sequence[int], k: int) -> Table:
    """Self times by span, summed over repeats."""
    totals: dict[tuple[str, ...], dict[int, float]] = {}
    for row in rows:
        for path, _, self_s, _ in row["spans"]:
            at = totals.setdefault(tuple(path), {})
            at[row["roots"]] = at.get(row["roots"], 0.0) + self_s
    walls = {n: sum(t.get(n, 0.0) for t in totals.values()) for n in sizes}
    lines = []
    for path, by_size in totals.items():
        name = "unaccounted" if len(path) == 1 else " / ".join(path[1:])
        cells = []
        for n in sizes:
            repeats = sum(r["roots"] == n for r in rows) or 1
            seconds = by_size.get(n, 0.0)
            cells.append(f"{1e3 * seconds / repeats:,.2f}")
            cells.append(f"{100 * seconds / walls[n]:.1f} %" if walls[n] else "")
        lines.append((name, *cells))
    sums = []
    for n in sizes:
        repeats = sum(r["roots"] == n for r in rows) or 1
        sums += [f"{1e3 * walls[n] / repeats:,.2f}", "100 %"]
    head = ("span", *(h for n in sizes for h in (f"{n} roots, ms", "share")))
    note = (
        f"Self times of a whole flood, plan drafted, K={k}: wall clock, mean of the "
        "repeats. They sum to the wall; 'unaccounted' is what no span holds."
    )
    return Table("Where the time goes", head, (*lines, ("wall", *sums)), note)
