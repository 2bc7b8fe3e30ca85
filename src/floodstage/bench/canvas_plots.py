"""Plots of canvases, as PNG bytes. Knows rows and grids, not where a plot goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from floodstage.bench.canvas_tables import DRAFTED, ONE, REFINE, TWIN, Row, groups, of, seconds
from floodstage.bench.flood_plots import picture
from floodstage.bench.plots import Axes
from floodstage.text.grids import Cells


def draw_canvas(rows: Sequence[Row]) -> Iterator[tuple[str, bytes]]:
    """Tokens against time at the largest size, and latency against cells."""
    alone = [g for g in groups(rows) if g[0] == 1]
    both = [g for g in alone if of(rows, g, TWIN)]
    if both:
        yield "tokens_vs_time.png", picture(partial(_tokens, rows, both[-1]))
    if len(alone) > 1:
        yield "latency_vs_cells.png", picture(partial(_latency, rows, alone))


def _tokens(rows: Sequence[Row], group: tuple[int, int, int], axes: Axes) -> None:
    """A line of single tokens and a step of a whole grid."""
    for arm in (REFINE, TWIN, DRAFTED):
        mine = of(rows, group, arm)
        if mine:
            curve = mine[0]["curve"]
            times = [0.001, *(s for s, _ in curve)]
            there = [0, *(n for _, n in curve)]
            style = "steps-post" if arm == REFINE else "default"
            axes.plot([1e3 * t for t in times], there, drawstyle=style, label=arm)
    axes.set(
        xscale="log",
        xlabel="milliseconds",
        ylabel="tokens generated",
        title=f"a grid of {group[1]}x{group[2]}",
    )


def _latency(rows: Sequence[Row], alone: Sequence[tuple[int, int, int]], axes: Axes) -> None:
    for arm in (REFINE, TWIN, DRAFTED, ONE):
        points = [(g[1] * g[2], seconds(of(rows, g, arm))) for g in alone if of(rows, g, arm)]
        if points:
            axes.plot([n for n, _ in points], [1e3 * s for _, s in points], marker="o", label=arm)
    axes.set(xscale="log", yscale="log", xlabel="cells", ylabel="milliseconds a grid")


def draw_study(rows: Sequence[Row]) -> Iterator[tuple[str, bytes]]:
    """Solved puzzles against passes, a line for every way to fill; what one cell at a time and the
    twin reach as level lines."""

    def draw(axes: Axes) -> None:
        for name in dict.fromkeys(r["way"] for r in rows):
            mine = sorted((r for r in rows if r["way"] == name), key=lambda r: int(r["passes"]))
            solved = [100 * r["solved"] / r["puzzles"] for r in mine]
            if len(mine) == 1:
                axes.axhline(solved[0], label=name, linestyle="--", color="0.5")
            else:
                axes.plot([r["passes"] for r in mine], solved, marker="o", label=name)
        axes.set(xscale="log", xlabel="passes at most", ylabel="solved, %")

    if rows:
        yield "exactness_vs_passes.png", picture(draw)


def filmstrip(frames: Sequence[Cells], titles: Sequence[str], most: int = 8) -> bytes:
    """A grid being filled, frame by frame; holes are grey. Of many frames `most` evenly spaced."""
    import matplotlib as mpl

    last = len(frames) - 1
    count = min(most, len(frames))
    chosen = [round(i * last / max(1, count - 1)) for i in range(count)]
    top = max((x for grid in frames for row in grid for x in row if x is not None), default=1)

    def frame(number: int, axes: Axes) -> None:
        grid = [[float("nan") if x is None else x for x in row] for row in frames[number]]
        colours = mpl.colormaps["viridis"].with_extremes(bad="0.85")
        axes.imshow(grid, vmin=0, vmax=top, cmap=colours, interpolation="nearest")
        axes.set(xticks=[], yticks=[], title=titles[number])
        axes.grid(False)
        if len(grid) <= 12:
            for i, row in enumerate(frames[number]):
                for j, x in enumerate(row):
                    if x is not None:
                        light = "black" if x > top / 2 else "white"
                        axes.text(j, i, str(x), ha="center", va="center", color=light, fontsize=7)

    return picture(*(partial(frame, number) for number in chosen))
