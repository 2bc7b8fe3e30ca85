"""The tables of a ladder: functions of its records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from floodstage.bench.tables import Table
from floodstage.core.metrics import Cost, Interval, speedup

BASE = "sequential"
TUNED = "sequential, equal parents once"
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
    names = dict.fromkeys(r["rung"] for r in timed if r["repeat"] == 0)
    base, tuned = _of(timed, BASE), _of(timed, TUNED)
    lines = []
    for name in names:
        mine = _of(timed, name)
        renders = mine[0]["exact"] is not None
        whole = mine[0]["plan_s"] is not None
        n, seconds = len(mine), sum(r["render_s"] for r in mine)
        plan = sum(r["plan_s"] for r in mine) if whole else 0.0
        right = sum(r["right_chars"] for r in mine)
        lines.append(
            (
                name,
                f"{1e3 * seconds / n:,.1f}" if renders else "",
                f"{sum(r['rendered'] for r in mine) / seconds:,.0f}" if renders else "",
                f"{right / seconds:,.0f}" if renders else "",
                f"{sum(r['exact'] for r in mine)}/{n}" if renders else "its own",
                *(str(ratio(mine, b, whole=False)) if renders else "" for b in (base, tuned)),
                f"{1e3 * plan / n:,.0f}" if whole and renders else "",
                f"{right / (seconds + plan):,.0f}" if whole else "",
                *(str(ratio(mine, b, whole=True)) if whole else "" for b in (base, tuned)),
                f"{sum(r['same_plan'] for r in mine)}/{n}" if whole and renders else "",
            )
        )
    head = (
        *("rung", "render ms", "roots/s", "correct chars/s", "text exact", "render speedup"),
        *("over tuned", "plan ms", "whole chars/s", "whole speedup", "over tuned", "same plan"),
    )
    chars = sum(r["chars"] for r in base) / len(base)
    note = (
        f"{size} roots are {chars:,.0f} characters on average. Speedups are over {BASE!r} and over "
        f"{TUNED!r}, by correct characters per second, paired by plan, with a 95 % interval from "
        "resampling plans; 'whole' is plan and rendering together, in one run. Rungs without a "
        "plan of their own were given the roots. The character model's text is its own: its "
        "characters count as correct."
    )
    return Table(f"{size} roots", head, tuple(lines), note)


def _of(rows: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return sorted((r for r in rows if r["rung"] == name), key=lambda r: int(r["repeat"]))


def ratio(
    mine: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]], *, whole: bool
) -> Interval:
    """How much faster, by correct characters per second."""

    def cost(r: dict[str, Any]) -> Cost:
        return Cost(r["right_chars"], r["render_s"] + (r["plan_s"] if whole else 0.0))

    return speedup([cost(r) for r in mine], [cost(r) for r in base])


def _span_table(rows: Sequence[dict[str, Any]], sizes: Sequence[int], k: int) -> Table:
    """Self times by span: means of the repeats."""
    parents = {tuple(path[:-1]) for row in rows for path, *_ in row["spans"]}
    totals: dict[tuple[str, ...], dict[int, float]] = {}
    walls: dict[int, list[float]] = {n: [] for n in sizes}
    for row in rows:
        walls[row["roots"]].append(row["wall_s"])
        for path, _, self_s, _ in row["spans"]:
            at = totals.setdefault(tuple(path), dict.fromkeys(sizes, 0.0))
            at[row["roots"]] += self_s

    def line(name: str, by_size: dict[int, float]) -> tuple[str, ...]:
        cells = [name]
        for n in sizes:
            wall = sum(walls[n]) or 1e-9
            cells += [
                f"{1e3 * by_size[n] / max(1, len(walls[n])):,.2f}",
                f"{100 * by_size[n] / wall:.2f} %",
            ]
        return tuple(cells)

    lines = []
    for path, by_size in totals.items():
        host = " (host)" if path in parents else ""
        lines.append(line(" / ".join(path[1:]) + host if path[1:] else "unaccounted", by_size))
    lines.append(line("sum", {n: sum(t[n] for t in totals.values()) for n in sizes}))
    head = ("span", *(h for n in sizes for h in (f"{n} roots, ms", "of wall")))
    note = (
        f"Self times of a whole flood, plan drafted, K={k}: wall clock, mean of the repeats, and "
        "their share of the wall time that was measured around the call. 'host' is what a stage "
        "spends between its parts; 'unaccounted' is what no span holds."
    )
    return Table("Where the time goes", head, tuple(lines), note)
