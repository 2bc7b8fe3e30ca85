"""Tables as pure functions of the records of a run."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from floodstage.bench.records import read_records
from floodstage.core.errors import RunError
from floodstage.core.files import write_whole
from floodstage.core.metrics import Cost, Interval, acceptance_by_position, speedup, tau
from floodstage.core.types import StepRecord

Row = dict[str, Any]
POSITIONS = (1, 2, 4, 8, 15)
"""Draft positions whose acceptance a table shows."""


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """One line of the table. `identical` counts prompts with the baseline's very ids."""

    arm: str
    lossless: bool
    prompts: int
    tokens: int
    tokens_per_s: float
    ttft_ms: float | None
    tpot_ms: float | None
    tau: float | None
    acceptance: tuple[float, ...]  # by position, from 1
    speedup: Interval
    identical: int
    right: float | None
    repeated_4grams: float


def summarize(rows: Iterable[Row], baseline: str | None = None) -> list[ArmSummary]:
    """A line per arm, in the order of the records; speedups over `baseline` (the first arm)."""
    by_arm: dict[str, dict[int, list[Row]]] = {}
    for row in rows:
        if "error" in row:
            continue
        by_arm.setdefault(row["arm"], {}).setdefault(row["prompt"], []).append(row)
    if not by_arm:
        raise RunError("The run holds no records yet.")
    if baseline is not None and baseline not in by_arm:
        raise RunError(f"The run holds no answers of its baseline {baseline!r}.")
    base = by_arm[baseline or next(iter(by_arm))]
    return [_line(arm, answers, base) for arm, answers in by_arm.items()]


def _line(arm: str, answers: dict[int, list[Row]], base: dict[int, list[Row]]) -> ArmSummary:
    rows = [row for passes in answers.values() for row in passes]
    shared = sorted(set(answers) & set(base))
    records = [r for row in rows for r in step_records(row["cycles"])]
    tokens = sum(len(r["ids"]) for r in rows)
    timed = [r for r in rows if r["ttft_s"] is not None and len(r["ids"]) > 1]
    judged = [r["right"] for r in rows if r["right"] is not None]
    return ArmSummary(
        arm=arm,
        lossless=rows[0]["lossless"],
        prompts=len(answers),
        tokens=tokens,
        tokens_per_s=tokens / sum(r["wall_s"] for r in rows),
        ttft_ms=_mean([1e3 * r["ttft_s"] for r in timed]),
        tpot_ms=_tpot(timed),
        tau=tau(records) if records else None,
        acceptance=tuple(acceptance_by_position(records)),
        speedup=speedup([_cost(answers[i]) for i in shared], [_cost(base[i]) for i in shared]),
        identical=sum(_same(answers[i], base[i]) for i in shared),
        right=_mean([float(j) for j in judged]),
        repeated_4grams=_mean([r["repeated_4grams"] for r in rows]) or 0.0,
    )


def step_records(cycles: Mapping[str, Sequence[Any]]) -> list[StepRecord]:
    """The `cycles` of a row as records again."""
    return [
        StepRecord(
            drafted=c["drafted"],
            verified=c["verified"],
            accepted=c["accepted"],
            batch=1,
            draft_s=c["draft_s"],
            verify_s=c["verify_s"],
            judge_s=c["judge_s"],
            confidence=tuple(c["confidence"]),
            emitted=c["gained"],
            depth=c["reach"],
            rows=c["rows"],
            seeded=c["seeded"],
        )
        for c in (dict(zip(cycles, row, strict=True)) for row in zip(*cycles.values(), strict=True))
    ]


def _same(rows: Sequence[Row], base: Sequence[Row]) -> bool:
    """Whether every turn of a prompt has the ids of the baseline's first pass."""
    wanted = {r["turn"]: r["ids"] for r in reversed(base)}
    return all(r["ids"] == wanted.get(r["turn"]) for r in rows)


def _cost(passes: Sequence[Row]) -> Cost:
    return Cost(sum(len(r["ids"]) for r in passes), sum(r["wall_s"] for r in passes))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _tpot(rows: Sequence[Row]) -> float | None:
    if not rows:
        return None
    seconds = sum(r["wall_s"] - r["ttft_s"] for r in rows)
    return float(1e3 * seconds / sum(len(r["ids"]) - 1 for r in rows))


HEAD = (
    "arm",
    "tokens/s",
    "TTFT ms",
    "TPOT ms",
    "tau",
    "accepted at position " + " / ".join(map(str, POSITIONS)),
    "speedup [95 %]",
    "same ids",
    "right",
    "repeated 4-grams",
)
ACCEPTED = 5
"""The column of HEAD with the acceptance by position."""


def cells(line: ArmSummary) -> tuple[str, ...]:
    """The line as text, column by column of HEAD."""
    return (
        line.arm if line.lossless else f"{line.arm} (NOT lossless)",
        f"{line.tokens_per_s:,.0f}",
        "" if line.ttft_ms is None else f"{line.ttft_ms:.1f}",
        "" if line.tpot_ms is None else f"{line.tpot_ms:.2f}",
        "" if line.tau is None else f"{line.tau:.2f}",
        survival(line),
        str(line.speedup),
        f"{line.identical}/{line.prompts}",
        "" if line.right is None else f"{100 * line.right:.1f} %",
        f"{100 * line.repeated_4grams:.0f} %",
    )


def survival(line: ArmSummary) -> str:
    """Acceptance at POSITIONS, as far as the drafts go."""
    return " / ".join(
        f"{line.acceptance[k - 1]:.2f}" for k in POSITIONS if k <= len(line.acceptance)
    )


def markdown(lines: Sequence[ArmSummary]) -> str:
    """The summary as Markdown."""
    return markdown_table(HEAD, [cells(line) for line in lines])


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    every = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in every) + "\n"


def write_summaries(run: Path, baseline: str | None = None) -> list[ArmSummary]:
    """`summary.md`, `summary.csv`, `summary.json` of a run folder, from its records alone."""
    rows = list(read_records(run / "records.jsonl"))
    lines = summarize(rows, baseline)
    failed = {row["arm"]: row["error"] for row in rows if "error" in row}
    notes = "".join(f"\n{arm} failed: {error}\n" for arm, error in failed.items())
    write_whole(run / "summary.md", markdown(lines) + notes)
    write_whole(run / "summary.json", json.dumps([asdict(x) for x in lines], indent=1) + "\n")
    held = io.StringIO(newline="")
    table = csv.writer(held)
    table.writerow(["arm", "lossless", "prompts", "tokens", "tokens_per_s", "ttft_ms",
                    "tpot_ms", "tau", "speedup", "speedup_low", "speedup_high", "identical",
                    "right", "repeated_4grams"])  # fmt: skip
    for x in lines:
        table.writerow([x.arm, x.lossless, x.prompts, x.tokens, x.tokens_per_s, x.ttft_ms,
                        x.tpot_ms, x.tau, x.speedup.value, x.speedup.low, x.speedup.high,
                        x.identical, x.right, x.repeated_4grams])  # fmt: skip
    write_whole(run / "summary.csv", held.getvalue())
    return lines
