"""The tables of an analysis as text in cells, for Markdown, HTML and a terminal alike.

Knows what is worth showing to a person; the CSV and JSON files hold everything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from floodstage.bench.analysis import Analysis, ArmFigures, Regret
from floodstage.bench.curves import SELECTED, Block
from floodstage.bench.summary import markdown_table
from floodstage.core.files import write_whole
from floodstage.core.metrics import Interval


@dataclass(frozen=True, slots=True)
class Table:
    """Text in cells. `note` says how to read it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


TAU = (
    "tau is the mean number of tokens gained per target pass, the bonus token included, the "
    "prefill left out and the last cycle cut where the text ended: over all cycles (with a 95 % "
    "interval from resampling prompts), and as the mean of the answers' own means."
)
CLOCKS = (
    "Two clocks. TTFT ends with the first token; TPOT is the wall time after it over the tokens "
    "after it, every draft included, all answers pooled; derived speedup is the baseline's TPOT "
    "over the arm's. The legacy clock is that of published tables (legacy_tpot_ms, "
    "legacy_speedup): it starts only after the first draft, divides by all tokens, the first too, "
    "and averages over answers. It leaves work out, the more so the shorter the answers: use it to "
    "compare with those tables and for nothing else."
)
SPEEDUP = (
    "Speedup is total tokens / total seconds, prefill included, over the baseline's on the same "
    "prompts; in brackets the 95 % interval from resampling prompts."
)
NOTES = (SPEEDUP, TAU, CLOCKS)


def tables(analysis: Analysis) -> list[Table]:
    """The tables for a terminal, those without a row left out."""
    makers = (speed, answers, drafting, regret, reliability, failed)
    return [table for make in makers if (table := make(analysis)).rows]


def markdown(table: Table) -> str:
    """The table and its note as Markdown; no cell ends its column or its line."""
    rows = [[" ".join(x.replace("|", r"\|").split()) for x in row] for row in table.rows]
    return markdown_table(table.head, rows) + (f"\n{table.note}\n" if table.note else "")


def write_tables(out: Path, shown: Sequence[Table]) -> None:
    """`summary.md` and `summary.json` of a run folder."""
    text = "\n".join(f"**{t.title}**\n\n{markdown(t)}" for t in shown)
    write_whole(out / "summary.md", text)
    write_whole(out / "summary.json", json.dumps([asdict(t) for t in shown], indent=1) + "\n")


def speed(analysis: Analysis) -> Table:
    head = ("arm", "tokens/s", "speedup [95 %]", "derived", "legacy", "TTFT ms", "TPOT ms",
            "legacy TPOT ms", "tau [95 %]", "tau, by answer")  # fmt: skip
    rows = tuple(
        (
            named(f),
            f"{f.tokens_per_s:,.1f}",
            _interval(f.speedup),
            _number(f.derived_speedup, 2),
            _number(f.legacy_speedup, 2),
            _number(f.ttft_ms, 1),
            _number(f.tpot_ms, 2),
            _number(f.legacy_tpot_ms, 2),
            _interval(f.tau),
            _number(f.tau_sample_mean, 2),
        )
        for f in analysis.arms
    )
    note = f"Speedups are over {analysis.baseline!r}." if analysis.baseline is not None else ""
    return Table("Speed", head, rows, note)


def answers(analysis: Analysis) -> Table:
    head = ("arm", "prompts", "answers", "tokens", "tokens/answer", "hit the limit", "same ids",
            "right", "repeated 4-grams")  # fmt: skip
    rows = tuple(
        (
            named(f),
            str(f.prompts),
            str(f.answers),
            str(f.tokens),
            f"{f.mean_output_tokens:.1f}",
            _percent(f.capped),
            f"{f.identical}/{f.compared}",
            _percent(f.right),
            _percent(f.repeated_4grams),
        )
        for f in analysis.arms
    )
    note = "Same ids: prompts with the very tokens of the baseline, in every pass."
    return Table("Answers", head, rows, note)


def drafting(analysis: Analysis) -> Table:
    head = ("arm", "cycles", "gained p10 / median / p90", "wasted rows", "retention",
            "seeded/cycle", "seeded cycles", "switch rate", "lag-1 autocorrelation")  # fmt: skip
    rows = tuple(
        (
            named(f),
            str(f.cycles),
            f"{_number(f.gained_p10, 0)} / {_number(f.gained_median, 0)} / "
            f"{_number(f.gained_p90, 0)}",
            _percent(f.wasted_rows),
            _percent(f.retention),
            _number(f.seeded_per_cycle, 2),
            _percent(f.seeded_cycles),
            _percent(f.switch_rate),
            _number(f.autocorrelation_1, 2),
        )
        for f in analysis.arms
        if f.cycles
    )
    note = (
        "Wasted rows: verified and not accepted. Retention: tokens accepted per cycle over those "
        "of the longest fixed arm (such as auto:15) of the same drafter. Switch rate: consecutive "
        "cycles that drafted another number of tokens, those that an answer's end may have cut "
        "left out."
    )
    return Table("Drafting", head, rows, note)


def regret(analysis: Analysis) -> Table:
    by_arm: dict[str, list[Regret]] = {}
    for r in analysis.regret:
        by_arm.setdefault(r.arm, []).append(r)
    rows = tuple(
        (r.arm, f"{r.kind}: {r.reference}", str(r.ratio), _percent(r.regret, 1))
        for found in by_arm.values()
        for r in found
    )
    note = (
        "Regret is what is lacking to the reference's tokens/s (negative: faster than it). The "
        "best fixed arm is the fastest without a policy in its name, chosen on these very "
        "records, which favours it."
    )
    return Table("Regret", ("arm", "against", "tokens/s ratio [95 %]", "regret"), rows, note)


def usage(analysis: Analysis) -> Table:
    """Block usage of the arms that drafted more than one length; too long for a terminal."""
    by_arm: dict[str, list[Block]] = {}
    for b in analysis.blocks:
        by_arm.setdefault(b.arm, []).append(b)
    rows = tuple(
        (
            b.arm,
            str(b.drafted),
            str(b.cycles),
            _percent(b.share, 1),
            _number(b.tokens / b.cycles, 2),
            _number(b.tokens_per_s, 1),
        )
        for found in by_arm.values()
        if len(found) > 1
        for b in found
    )
    note = (
        f"Of arms that drafted more than one length. tokens/s of the cycles alone, and {SELECTED}: "
        "an arm drafts long where it expects much, so a fixed length would give something else."
    )
    return Table(
        "Block usage", ("arm", "drafted", "cycles", "share", "tau", "tokens/s"), rows, note
    )


def reliability(analysis: Analysis) -> Table:
    head = ("arm", "nodes", "mean confidence", "accepted", "ECE", "Brier", "AUC")
    rows = tuple(
        (
            r.arm,
            str(r.nodes),
            f"{r.confidence:.3f}",
            f"{r.accepted:.3f}",
            f"{r.ece:.3f}",
            f"{r.brier:.3f}",
            _number(r.auc, 3),
        )
        for r in analysis.reliability
    )
    note = (
        "The raw confidence of a position as the chance that it is accepted once all before it "
        "were; nodes are the positions that were judged. ECE over 15 bins of equal width."
    )
    return Table("Reliability of the confidence", head, rows, note)


def failed(analysis: Analysis) -> Table:
    rows = tuple((arm, said) for arm, every in analysis.errors.items() for said in every)
    return Table("Arms that failed", ("arm", "error"), rows)


def named(f: ArmFigures) -> str:
    """The arm's name, and a warning where its output is not the target's own."""
    return f.arm if f.lossless else f"{f.arm} (NOT lossless)"


def environment(env: Mapping[str, Any]) -> Table:
    """`env.json`, a row per setting, nested ones by a dotted name."""
    rows = tuple((name, str(value)) for name, value in flat(env).items())
    return Table("Where this was measured", ("setting", "value"), rows)


def flat(env: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted names."""
    found: dict[str, Any] = {}
    for name, value in env.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{100 * value:.{digits}f} %"


def _interval(value: Interval | None) -> str:
    return "" if value is None else str(value)
