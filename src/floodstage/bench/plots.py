"""The plots of a run, as PNG bytes.

matplotlib is loaded when the first is drawn, and only its Agg canvas: no window, no global state.
Knows the figures and the cycles, not where a plot goes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from floodstage.bench.analysis import Analysis, ArmFigures, draft_len
from floodstage.bench.curves import POOLED, RowCost
from floodstage.bench.trace import Floats, RunTrace
from floodstage.core.metrics import Interval

Figure: TypeAlias = Any  # matplotlib's; it ships no types that we load
Axes: TypeAlias = Any

POINTS = 3000  # of one arm in a scatter plot
VERTICES = 1000  # of one arm in a line
PANELS = 12  # arms in a plot with a panel for each
WINDOW = 64  # cycles of a rolling mean
STYLE = {
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.parse_math": False,  # the name of an arm is no formula
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture and a sentence that says how to read it."""

    file: str
    title: str
    caption: str
    png: bytes


def draw_all(trace: RunTrace, analysis: Analysis) -> Iterator[Plot]:
    """Every plot, one after another; one without data says what is lacking."""
    import matplotlib
    from matplotlib.figure import Figure as MatplotlibFigure

    for file, (title, caption, draw) in PLOTS.items():
        with matplotlib.rc_context(STYLE):
            figure = MatplotlibFigure(figsize=(9, 4.2), layout="constrained")
            more = draw(figure, trace, analysis)
            if not figure.axes:
                figure.text(0.5, 0.5, more, ha="center", va="center")
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=100)
        yield Plot(file, title, f"{caption} {more}".strip(), buffer.getvalue())


def _tau_vs_cycle(figure: Figure, trace: RunTrace, analysis: Analysis) -> str:
    arms = [arm for arm in trace.arms.values() if arm.cycles.drafted.any()]
    if not arms:
        return "No arm drafted anything."
    shown, across = arms[:PANELS], min(3, len(arms))
    down = -(-len(shown) // across)
    figure.set_size_inches(9, 1 + 2.4 * down)
    panels = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    longest = max(int(arm.cycles.drafted.max()) for arm in shown)
    thinned, points = False, None
    for panel, arm in zip(panels, shown, strict=False):
        c, rng = arm.cycles, np.random.default_rng(0)
        keep = rng.permutation(len(c))[:POINTS]
        thinned |= len(c) > POINTS
        height = c.gained[keep] + rng.uniform(-0.3, 0.3, len(keep))  # or equal counts hide
        points = panel.scatter(
            *(c.number[keep] + 1, height),
            **{"c": c.drafted[keep], "cmap": "rainbow", "vmin": 0, "vmax": longest},
            **{"s": 4, "linewidths": 0},
        )
        panel.set_title(arm.name)
    for panel in panels[len(shown) :]:
        panel.set_visible(False)
    figure.supxlabel("cycle of the answer")
    figure.supylabel("tokens gained")
    figure.colorbar(points, ax=figure.axes, label="tokens drafted")
    said = [f"At most {POINTS} cycles of an arm are drawn, chosen at random."] if thinned else []
    said += [f"Left out: {', '.join(a.name for a in arms[PANELS:])}."] if len(arms) > PANELS else []
    return " ".join(said)


def _rolling(figure: Figure, trace: RunTrace, analysis: Analysis) -> str:
    arms = [arm for arm in trace.arms.values() if len(arm.cycles)]
    if not arms:
        return "No arm recorded a cycle."
    upper, lower = figure.subplots(2, 1, sharex=True)
    for arm in arms:
        c, color = arm.cycles, _color(analysis, arm.name)
        for axes, values in ((upper, c.gained), (lower, 1e3 * c.cycle_s)):
            mean = rolling_mean(np.asarray(values, np.float64), WINDOW)
            keep = np.unique(np.linspace(0, len(mean) - 1, VERTICES).astype(int))
            x = 100 * (keep + 1) / len(mean)
            axes.plot(x, mean[keep], lw=0.9, color=color, label=arm.name)
    upper.set_ylabel("tau")
    lower.set_ylabel("ms per cycle")
    lower.set_xlabel("% of the arm's cycles, in the order measured")
    _legend(figure, upper)
    thinned = any(len(arm.cycles) > VERTICES for arm in arms)
    return f"At most {VERTICES} points of a line are drawn." if thinned else ""


def _tokens_per_s(figure: Figure, trace: RunTrace, analysis: Analysis) -> str:
    lines = analysis.arms[::-1]  # the first on top
    if not lines:
        return "No arm gave an answer."
    figure.set_size_inches(9, 1.2 + 0.35 * len(lines))
    axes = figure.subplots()
    widths = np.array([f.tokens_per_s for f in lines])
    given = [f.speedup or Interval(1.0, 1.0, 1.0) for f in lines]
    below = [w * (1 - s.low / s.value) for w, s in zip(widths, given, strict=True)]
    above = [w * (s.high / s.value - 1) for w, s in zip(widths, given, strict=True)]
    colors = ["0.6" if f.arm == analysis.baseline else "C0" for f in lines]
    whiskers = np.maximum([below, above], 0)
    axes.barh([f.arm for f in lines], widths, xerr=whiskers, color=colors, capsize=3)
    for y, (f, width, more) in enumerate(zip(lines, widths, above, strict=True)):
        text = "" if f.speedup is None else f" {f.speedup}×"
        axes.text(width + more, y, text, va="center", fontsize=8)
    axes.set_xlabel("tokens / s")
    axes.set_xlim(0, 1.3 * float((widths + above).max()))
    return ""


def _by_draft_len(figure: Figure, trace: RunTrace, analysis: Analysis) -> str:
    drafters: dict[str, list[tuple[int, ArmFigures]]] = {}
    for f in analysis.arms:
        named = draft_len(f.arm)
        if named is not None and f.tau is not None and f.speedup is not None:
            drafters.setdefault(named[0], []).append((named[1], f))
    if not drafters:
        return "No arm has a draft length in its name (such as 'auto:8')."
    left, right = figure.subplots(1, 2)
    for drafter, found in drafters.items():
        lengths, lines = zip(*sorted(found, key=lambda pair: pair[0]), strict=True)
        for axes, values in ((left, [f.speedup for f in lines]), (right, [f.tau for f in lines])):
            middle = [v.value for v in values]
            error = [[v.value - v.low for v in values], [v.high - v.value for v in values]]
            axes.errorbar(
                lengths, middle, yerr=np.maximum(error, 0), marker="o", capsize=3, label=drafter
            )
    left.set_ylabel(f"speedup over {analysis.baseline}")
    left.axhline(1, color="0.5", lw=0.8)
    right.set_ylabel("tau")
    figure.supxlabel("draft length L")
    _whole_ticks(left, right)
    _legend(figure, right)
    return ""


def _survival(figure: Figure, trace: RunTrace, analysis: Analysis) -> str:
    if not analysis.positions:
        return "No arm verified a draft."
    left, right = figure.subplots(1, 2, sharex=True)
    for arm in dict.fromkeys(p.arm for p in analysis.positions):
        known = [p for p in analysis.positions if p.arm == arm]
        judged = [p for p in known if p.hazard is not None]
        style = {"marker": ".", "color": _color(analysis, arm), "label": arm}
        left.plot([p.position for p in known], [p.survival for p in known], **style)
        right.plot([p.position for p in judged], [p.hazard for p in judged], **style)
    left.set_ylabel("survival: kept, of those verified")
    right.set_ylabel("hazard: lost, of those reached")
    for axes in (left, right):
        axes.set_ylim(-0.02, 1.02)
    figure.supxlabel("draft position k")
    _whole_ticks(left, right)
    _legend(figure, right)
    return ""


def _cost(figure: Figure, trace: RunTrace, analysis: Analysis) -> str:
    if not analysis.cost:
        return "No arm recorded a cycle."
    left, right = figure.subplots(1, 2, sharex=True)

    def line(axes: Axes, known: list[RowCost], values: list[float], **style: Any) -> None:
        axes.plot([x.rows for x in known], [1e3 * v for v in values], **style)

    for arm in dict.fromkeys(x.arm for x in analysis.cost):
        known = [x for x in analysis.cost if x.arm == arm]
        pooled = arm == POOLED
        style: dict[str, Any] = {"marker": ".", "lw": 0.7, "color": _color(analysis, arm)}
        if pooled:
            style = {"color": "0.2", "lw": 1.6, "zorder": 1}
        line(left, known, [x.verify_judge_s for x in known], label=arm, **style)
        if pooled:
            low, high = (
                [1e3 * x.verify_judge_p10_s for x in known],
                [1e3 * x.verify_judge_p90_s for x in known],
            )
            left.fill_between([x.rows for x in known], low, high, color="0.5", alpha=0.2, lw=0)
        else:
            line(right, known, [x.draft_s for x in known], label=arm, **style)
    left.set_ylabel("verify + judge, median ms")
    right.set_ylabel("draft, median ms")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
    figure.supxlabel("rows of the target pass")
    _whole_ticks(left, right)
    _legend(figure, left)
    return ""


def _reliability(figure: Figure, trace: RunTrace, analysis: Analysis) -> str:
    if not analysis.reliability:
        return "No arm traced the confidence of a chain."
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="0.5", lw=0.8)
    for r in analysis.reliability:
        known = [b for b in r.bins if b.nodes]
        left.plot(
            [b.confidence for b in known],
            [b.accepted for b in known],
            marker=".",
            color=_color(analysis, r.arm),
            label=f"{r.arm}: ECE {r.ece:.3f}",
        )
        edges = [b.low for b in r.bins] + [1.0]
        shares = [b.nodes / r.nodes for b in r.bins]
        right.stairs(shares, edges, color=_color(analysis, r.arm))
    left.set_xlabel("mean confidence of the bin")
    left.set_ylabel("accepted, of those reached")
    right.set_xlabel("confidence")
    right.set_ylabel("share of nodes")
    _legend(figure, left)
    return ""


def _autocorrelation(figure: Figure, trace: RunTrace, analysis: Analysis) -> str:
    known = [x for x in analysis.autocorrelation if x.autocorrelation is not None]
    if not known:
        return "No arm gains a varying number of tokens over several cycles."
    axes = figure.subplots()
    axes.axhline(0, color="0.5", lw=0.8)
    for arm in dict.fromkeys(x.arm for x in known):
        lags = [x for x in known if x.arm == arm]
        style = {"marker": ".", "color": _color(analysis, arm), "label": arm}
        axes.plot([x.lag for x in lags], [x.autocorrelation for x in lags], **style)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.1), max(high, 0.3))  # noise stays small to the eye
    axes.set_xlabel("lag in cycles")
    axes.set_ylabel("autocorrelation of gained")
    _legend(figure, axes)
    return ""


def rolling_mean(values: Floats, window: int) -> Floats:
    """[n] the mean of the last `window` values up to each, of fewer at the start."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    mean: Floats = (total[end] - total[start]) / (end - start)
    return mean


def _color(analysis: Analysis, arm: str) -> Any:
    """The arm's own colour, the same in every plot; light ones from the eleventh on."""
    import matplotlib

    i = next((i for i, f in enumerate(analysis.arms) if f.arm == arm), 0)
    return matplotlib.colormaps["tab20"](2 * i % 20 + i // 10 % 2)


def _whole_ticks(*plots: Axes) -> None:
    """No half rows and no half positions."""
    from matplotlib.ticker import MaxNLocator

    for axes in plots:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _legend(figure: Figure, axes: Axes) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")


Draw: TypeAlias = Callable[[Figure, RunTrace, Analysis], str]
PLOTS: Mapping[str, tuple[str, str, Draw]] = {
    "tokens_per_s.png": (
        "Speed",
        "Longer is faster; the number is the speedup over the baseline (grey) with its 95 % "
        "bootstrap interval over prompts, which the whisker shows around the bar's end.",
        _tokens_per_s,
    ),
    "tau_vs_draft_len.png": (
        "By draft length",
        "Where speedup stops growing while tau still does, longer drafts cost more than they gain; "
        "whiskers are 95 % bootstrap intervals over prompts.",
        _by_draft_len,
    ),
    "survival.png": (
        "Acceptance by position",
        "Survival falls as rejections add up; a hazard that rises with k means that the drafter "
        "itself gets worse deeper in, a flat one that it does not.",
        _survival,
    ),
    "cost_curve.png": (
        "Cost of a cycle",
        "Where the grey line (all arms, with p10 to p90) is flat, verifying more rows is free; "
        "draft time stands beside it, by the same rows.",
        _cost,
    ),
    "reliability.png": (
        "Is the drafter as sure as it should be?",
        "On the diagonal the confidence of a position is the chance that it is accepted once "
        "reached; below it the drafter is too sure.",
        _reliability,
    ),
    "autocorrelation.png": (
        "Memory of tau",
        "How much a cycle's gain tells about the one so many cycles later, each prompt's own mean "
        "taken off (which alone pulls it down, by about one over the cycles of a prompt); near "
        "zero the past cycles of a text do not help to choose a draft length.",
        _autocorrelation,
    ),
    "tau_vs_cycle_colored_block.png": (
        "Gain of every cycle",
        "A point is a cycle, its colour the number of tokens drafted, shaken a little so that "
        "equal ones can be told apart; a single colour is an arm of fixed length.",
        _tau_vs_cycle,
    ),
    "rolling_tau_cycle_time.png": (
        "Over the run",
        f"Means of the last {WINDOW} cycles; a lower line that climbs towards the end is a machine "
        "that slowed down, and a tau that moves is a change of text.",
        _rolling,
    ),
}
"""File -> title, caption and what draws it, in the order of a report."""
