"""Tables are pure functions of the records; the numbers here are worked out by hand."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from floodstage.bench.summary import HEAD, cells, markdown, summarize, write_summaries
from floodstage.core.errors import RunError


def row(arm: str, prompt: int, turn: int, wall_s: float, **changes: Any) -> dict[str, Any]:
    given = {
        "schema_version": 2,
        "turn": 0,
        "arm": arm,
        "lossless": True,
        "prompt": prompt,
        "pass": turn,
        "group": "",
        "ids": [prompt, 1, 2, 3, 4, 5],
        "finish": "length",
        "right": None,
        "ttft_s": 0.5,
        "wall_s": wall_s,
        "repeated_4grams": 0.0,
        "cycles": {},
    }
    return given | changes


def cycles(*rows: tuple[int, int, int, float, int]) -> dict[str, list[Any]]:
    """(drafted, verified, accepted, draft_s, gained) per cycle."""
    names = ("drafted", "verified", "accepted", "draft_s", "gained")
    columns = {name: [r[i] for r in rows] for i, name in enumerate(names)}
    rest = {"seeded": 0, "rows": 1, "verify_s": 0.5, "judge_s": 0.0, "confidence": ()}
    return columns | {"reach": columns["verified"]} | {k: [v] * len(rows) for k, v in rest.items()}


PLAIN = cycles(*[(0, 0, 0, 0.0, 1)] * 5)
DRAFTED = cycles((4, 4, 3, 0.1, 4), (4, 2, 0, 0.1, 1))
ROWS = [
    row("none", 0, 0, 3.0, cycles=PLAIN, right=True),
    row("fast", 0, 0, 1.0, cycles=DRAFTED, right=True),
    row("fast", 0, 1, 1.0, cycles=DRAFTED, right=True),
    row("none", 0, 1, 3.0, cycles=PLAIN, right=True),
    row("none", 1, 0, 3.0, cycles=PLAIN, right=False, repeated_4grams=0.2),
    row("fast", 1, 0, 2.0, cycles=DRAFTED, right=True, ids=[1, 1, 2, 3, 4, 9]),
    row("fast", 1, 1, 2.0, cycles=DRAFTED, right=False),
    row("none", 1, 1, 3.0, cycles=PLAIN, right=False, repeated_4grams=0.2),
]


def test_a_line_per_arm_in_the_order_of_the_records() -> None:
    none, fast = summarize(ROWS)
    assert (none.arm, none.lossless, none.prompts, none.tokens) == ("none", True, 2, 24)
    assert none.tokens_per_s == 24 / 12
    assert none.ttft_ms == 500
    assert none.tpot_ms == pytest.approx(1000 * 2.5 / 5)
    assert none.tau == 1.0
    assert none.acceptance == ()
    assert (none.speedup.value, none.speedup.low, none.speedup.high) == (1.0, 1.0, 1.0)
    assert none.identical == 2
    assert none.right == 0.5
    assert none.repeated_4grams == pytest.approx(0.1)

    assert fast.tokens_per_s == 24 / 6
    assert fast.tpot_ms == pytest.approx(1000 * (0.5 + 0.5 + 1.5 + 1.5) / 20)
    assert fast.tau == (4 + 1) / 2
    assert fast.acceptance == (1 / 2, 1 / 2, 1.0, 0.0)  # places 3 and 4 were verified once a pass
    assert fast.speedup.value == pytest.approx(12 / 6)
    assert (fast.speedup.low, fast.speedup.high) == (pytest.approx(1.5), pytest.approx(3.0))
    assert fast.identical == 1  # one pass of the second prompt wrote other ids
    assert fast.right == 0.75


def test_a_summary_depends_on_the_records_alone() -> None:
    before = json.dumps(ROWS)
    assert summarize(ROWS) == summarize(ROWS)
    assert json.dumps(ROWS) == before
    by_name = {line.arm: line for line in summarize(ROWS)}
    assert {line.arm: line for line in summarize(ROWS[::-1], "none")} == by_name


def test_the_baseline_may_be_named() -> None:
    none, fast = summarize(ROWS, "fast")
    assert fast.speedup.value == 1.0
    assert none.speedup.value == pytest.approx(0.5)


def test_speedups_are_over_the_prompts_that_both_answered() -> None:
    fast = summarize(ROWS[:4] + ROWS[5:7])[1]
    assert fast.prompts == 2
    assert fast.speedup.value == pytest.approx(3.0)
    assert fast.identical == 1


def test_an_arm_that_cannot_tell_the_first_token_or_the_cycles_leaves_them_out() -> None:
    (line,) = summarize([row("peer", 0, 0, 2.0, ttft_s=None)])
    assert (line.ttft_ms, line.tpot_ms, line.tau, line.right) == (None, None, None, None)
    shown = dict(zip(HEAD, cells(line), strict=True))
    assert shown["TTFT ms"] == shown["TPOT ms"] == shown["tau"] == shown["right"] == ""


def test_what_is_not_lossless_says_so() -> None:
    (line,) = summarize([row("bold", 0, 0, 2.0, lossless=False)])
    assert cells(line)[0] == "bold (NOT lossless)"


def test_no_records_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no records yet"):
        write_summaries(tmp_path)


def test_the_table_is_stable() -> None:
    lines = summarize(ROWS)
    assert markdown(lines).splitlines() == [
        "| " + " | ".join(HEAD) + " |",
        "| " + " | ".join("---" for _ in HEAD) + " |",
        "| none | 2 | 500.0 | 500.00 | 1.00 |  | 1.00 [1.00, 1.00] | 2/2 | 50.0 % | 10 % |",
        "| fast | 4 | 500.0 | 200.00 | 2.50 | 0.50 / 0.50 / 0.00 | 2.00 [1.50, 3.00] | 1/2 "
        "| 75.0 % | 0 % |",
    ]


def test_three_files_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    lines = write_summaries(tmp_path)
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name != "records.jsonl"}
    assert set(files) == {"summary.md", "summary.csv", "summary.json"}
    assert files["summary.md"].decode() == markdown(lines)
    assert json.loads(files["summary.json"]) == json.loads(json.dumps([asdict(x) for x in lines]))
    table = list(csv.DictReader(files["summary.csv"].decode().splitlines()))
    assert [(t["arm"], float(t["tau"]), float(t["speedup_low"])) for t in table] == [
        ("none", 1.0, 1.0),
        ("fast", 2.5, lines[1].speedup.low),
    ]
    write_summaries(tmp_path)
    assert all((tmp_path / name).read_bytes() == content for name, content in files.items())
