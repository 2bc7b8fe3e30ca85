"""Policies scored offline on a dense trace: where each would have cut, gained and spent.

A scheduler is driven through the trace as the loop would drive it, so tau is what a live run of
the same scheduler has; seconds are the trace's measured medians by rows. `oracle` knows what will
be kept: it verifies just that and drafts nothing where nothing would be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from floodstage.bench.dense import Costs, TextTrace
from floodstage.bench.summary import markdown_table
from floodstage.core.errors import RunError
from floodstage.core.metrics import Cost, Interval, speedup, tau
from floodstage.core.protocols import Scheduler
from floodstage.core.types import Proposal, StepRecord
from floodstage.scheduling.costs import CostCurve


@dataclass(frozen=True, slots=True)
class Score:
    """One policy over all texts. `ratio` is its rate over the best fixed length's."""

    policy: str
    tau: float
    rows: float  # mean rows per target pass
    tokens_per_s: float  # decode only: the prompts' passes are left out
    ratio: Interval


def curve(costs: Costs) -> CostCurve:
    """The trace's costs as a curve by rows."""
    out = CostCurve()
    for rows, seconds in costs.pass_s.items():
        out.add(rows, seconds)
    return out


def replay_text(
    text: TextTrace, scheduler: Scheduler, costs: CostCurve, draft_s: float
) -> list[StepRecord]:
    """The cycles that the scheduler would have run on one text, with their modelled seconds."""
    records: list[StepRecord] = []
    written = 1
    while written < text.tokens:
        budget = max(0, min(scheduler.choose(), text.limit - written - 1))
        sure = text.confidence[written - 1][:budget]
        budget = min(budget, len(sure)) if sure else budget
        shown = sure if scheduler.needs_confidence else ()
        size = scheduler.cut([Proposal(budget, shown)])[0]
        record = _cycle(text, written, budget, size, costs, draft_s, shown)
        scheduler.observe(record)
        records.append(record)
        written += record.gained
    return records


def oracle_text(text: TextTrace, costs: CostCurve, draft_s: float) -> list[StepRecord]:
    """The same by hindsight."""
    records: list[StepRecord] = []
    written = 1
    while written < text.tokens:
        kept = min(text.kept[written - 1], max(0, text.limit - written - 1))
        records.append(_cycle(text, written, kept, kept, costs, draft_s, ()))
        written += records[-1].gained
    return records


def _cycle(
    text: TextTrace,
    written: int,
    drafted: int,
    verified: int,
    costs: CostCurve,
    draft_s: float,
    shown: tuple[float, ...],
) -> StepRecord:
    kept = min(text.kept[written - 1], verified)
    emitted = min(kept + 1, text.tokens - written)
    return StepRecord(
        drafted=drafted,
        verified=verified,
        accepted=min(kept, emitted),
        batch=1,
        draft_s=draft_s if drafted else 0.0,
        verify_s=costs.at(verified + 1),
        confidence=shown,
        emitted=emitted,
        rows=verified + 1,
    )


def replay(
    texts: Sequence[TextTrace],
    costs: Costs,
    policies: Sequence[tuple[str, Callable[[], Scheduler] | None]],
) -> list[Score]:
    """Score policies (None: the oracle) over all texts, state kept from text to text. Entries
    named `fixed:N` are the fixed lengths that the others are compared with."""
    table, spent = curve(costs), {}
    runs: dict[str, list[list[StepRecord]]] = {}
    for name, make in policies:
        if make is None:
            runs[name] = [oracle_text(t, table, costs.draft_s) for t in texts]
        else:
            scheduler = make()
            runs[name] = [replay_text(t, scheduler, table, costs.draft_s) for t in texts]
        spent[name] = [_cost(records) for records in runs[name]]
    fixed = [name for name in runs if name.startswith("fixed:")]
    if not fixed:
        raise RunError("Replay compares with fixed lengths: give at least one, as in 'fixed:15'.")
    best = max(fixed, key=lambda name: _rate(spent[name]))
    return [
        Score(
            f"{name} (best fixed)" if name == best else name,
            tau([r for records in run for r in records]),
            sum(r.rows for records in run for r in records) / sum(map(len, run)),
            _rate(spent[name]),
            speedup(spent[name], spent[best]),
        )
        for name, run in runs.items()
    ]


def _cost(records: Sequence[StepRecord]) -> Cost:
    return Cost(sum(r.gained for r in records), sum(r.cycle_s for r in records))


def _rate(costs: Sequence[Cost]) -> float:
    return sum(c.tokens for c in costs) / sum(c.seconds for c in costs)


def markdown(scores: Sequence[Score]) -> str:
    """The scores as a Markdown table."""
    head = ("policy", "tau", "rows per pass", "tokens/s (modelled)", "over best fixed [95 %]")
    rows = [
        (s.policy, f"{s.tau:.2f}", f"{s.rows:.1f}", f"{s.tokens_per_s:,.0f}", str(s.ratio))
        for s in scores
    ]
    return markdown_table(head, rows)
