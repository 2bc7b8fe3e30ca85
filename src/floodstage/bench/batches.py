"""Throughput of a batch beside one sequence at a time, with each sequence's ids compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from floodstage.bench.arms import OurArm
from floodstage.bench.measure import environment
from floodstage.bench.summary import markdown_table
from floodstage.core.errors import ConfigError
from floodstage.core.metrics import Interval
from floodstage.core.types import Request


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """One arm: tokens per second of a batch over those of one sequence. The interval is the range
    over the passes."""

    arm: str
    slots: int
    alone_tokens_per_s: float
    batch_tokens_per_s: float
    ratio: Interval
    identical: int
    prompts: int


def measure_batches(
    arms: Sequence[OurArm],
    requests: Sequence[Request],
    out: Path,
    *,
    slots: int = 8,
    passes: int = 3,
) -> list[BatchSummary]:
    """Every arm answers all requests one by one and `slots` at a time, in turns (A B B A)."""
    if slots < 2 or passes < 1:
        raise ConfigError(f"slots must be >= 2 and passes >= 1, got {slots!r} and {passes!r}.")
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for arm in arms:
        for size in (1, slots):
            arm.answer_all(requests[: 2 * slots], slots=size)  # warm-up
    for turn in range(passes):
        plan = [(arm, size) for arm in arms for size in (1, slots)]
        for arm, size in plan if turn % 2 == 0 else reversed(plan):
            answers, wall_s = arm.answer_all(requests, slots=size)
            ids = [list(a.ids) for a in answers]
            rows.append(
                {"arm": arm.name, "slots": size, "pass": turn, "wall_s": wall_s, "ids": ids}
            )
            (out / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (out / "env.json").write_text(
        json.dumps(environment(str(arms[0].engine.target.device)), indent=1) + "\n"
    )
    lines = [_line(arm.name, slots, rows) for arm in arms]
    (out / "summary.json").write_text(json.dumps([asdict(x) for x in lines], indent=1) + "\n")
    (out / "summary.md").write_text(markdown(lines))
    return lines


def _line(arm: str, slots: int, rows: Sequence[dict[str, Any]]) -> BatchSummary:
    def of(size: int) -> list[dict[str, Any]]:
        found = [r for r in rows if r["arm"] == arm and r["slots"] == size]
        return sorted(found, key=lambda r: int(r["pass"]))

    def rate(row: dict[str, Any]) -> float:
        return sum(map(len, row["ids"])) / float(row["wall_s"])

    alone, batch = of(1), of(slots)
    ratios = sorted(rate(b) / rate(a) for a, b in zip(alone, batch, strict=True))
    tokens = sum(len(x) for x in alone[0]["ids"]) * len(alone)
    alone_rate = tokens / sum(r["wall_s"] for r in alone)
    batch_rate = sum(len(x) for r in batch for x in r["ids"]) / sum(r["wall_s"] for r in batch)
    same = sum(
        all(r["ids"][i] == ids for r in (*alone, *batch)) for i, ids in enumerate(alone[0]["ids"])
    )
    return BatchSummary(
        arm,
        slots,
        alone_rate,
        batch_rate,
        Interval(batch_rate / alone_rate, ratios[0], ratios[-1]),
        same,
        len(alone[0]["ids"]),
    )


def markdown(lines: Sequence[BatchSummary]) -> str:
    """The summary as Markdown."""
    head = ("arm", "alone, tokens/s", "batch of", "batch, tokens/s", "ratio [range]", "same ids")
    rows = [
        (
            x.arm,
            f"{x.alone_tokens_per_s:,.0f}",
            str(x.slots),
            f"{x.batch_tokens_per_s:,.0f}",
            str(x.ratio),
            f"{x.identical}/{x.prompts}",
        )
        for x in lines
    ]
    return markdown_table(head, rows)
