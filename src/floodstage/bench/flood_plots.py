"""Plots of floods, as PNG bytes. Knows rows, not where a plot goes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from floodstage.bench.flood_tables import BASE, CHARS, SPANS, ratio
from floodstage.bench.plots import STYLE, Axes


def draw_ladder(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """Roots against time and against speedup."""
    timed = [r for r in rows if r["rung"] != SPANS]
    sizes = sorted({r["roots"] for r in timed})
    if not sizes:
        return
    names = list(dict.fromkeys(r["rung"] for r in timed if r["repeat"] == 0))

    def seconds(name: str, size: int) -> float:
        mine = [float(r["render_s"]) for r in timed if r["rung"] == name and r["roots"] == size]
        return sum(mine) / max(1, len(mine))

    def speedup_at(name: str, size: int) -> float:
        by_name = [
            sorted(
                (r for r in timed if (r["rung"], r["roots"]) == (rung, size)),
                key=lambda r: int(r["repeat"]),
            )
            for rung in (name, BASE)
        ]
        return ratio(*by_name, whole=False).value

    def times(axes: Axes) -> None:
        for name in names:
            axes.plot(sizes, [1e3 * seconds(name, n) for n in sizes], marker="o", label=name)
        axes.set(xscale="log", yscale="log", xlabel="roots", ylabel="rendering, ms")

    def gains(axes: Axes) -> None:
        for name in names:
            if name not in (BASE, CHARS, "table"):
                gain = [speedup_at(name, n) for n in sizes]
                axes.plot(sizes, gain, marker="o", label=name)
        axes.set(xscale="log", yscale="log", xlabel="roots", ylabel="times sequential, rendering")

    yield "time_vs_roots.png", picture(times)
    yield "speedup_vs_roots.png", picture(gains)


def draw_study(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """K against accuracy, a panel for each level and noise, at one denoising pass."""
    panels = list(dict.fromkeys((r["level"], r["noise"]) for r in rows))
    least = min((r["steps"] for r in rows), default=1)

    def accuracy(level: str, noise: str) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            mine = [
                r for r in rows if (r["level"], r["noise"], r["steps"]) == (level, noise, least)
            ]
            for choice in ("first", "lowest", "random", "oracle"):
                axes.plot(
                    [r["k"] for r in mine],
                    [100 * r[choice] for r in mine],
                    marker="o",
                    label=choice,
                )
            axes.set(xscale="log", xlabel="draws K", ylabel="exact, %", title=f"{level}, {noise}")

        return draw

    if panels:
        yield "accuracy_vs_k.png", picture(*(accuracy(*panel) for panel in panels))


def picture(*draws: Callable[[Axes], None]) -> bytes:
    """Panels side by side with one legend."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(draws) + 2.6, 3.6), layout="constrained")
        panels = figure.subplots(1, len(draws), squeeze=False)[0]
        for axes, draw in zip(panels, draws, strict=True):
            draw(axes)
            for axis in (axes.xaxis, axes.yaxis):
                if axis.get_scale() in ("log", "symlog"):
                    # Its own labels are formulas, which STYLE does not typeset.
                    axis.set_major_formatter("{x:g}")
                    axis.set_minor_formatter("")
        handles, labels = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside right upper")
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=100)
    return out.getvalue()
