"""`floodstage analyze`: every figure here is worked out by hand, and no model is needed."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from floodstage.bench import report
from floodstage.bench.analysis import (
    Analysis,
    ArmFigures,
    analyze,
    draft_len,
    paired_speedup,
    resampled,
)
from floodstage.bench.curves import POOLED, SELECTED
from floodstage.bench.plots import PLOTS, WINDOW, rolling_mean
from floodstage.bench.trace import Fault, RunTrace, describe, read_trace
from floodstage.cli.analyze import analyze as analyze_command
from floodstage.core.errors import ConfigError, RunError
from floodstage.core.metrics import Cost, speedup

NAMES = ("drafted", "verified", "accepted", "gained", "seeded")


def cycles(
    *rows: tuple[int, ...],
    confidence: Sequence[Sequence[float]] | None = None,
    verify_s: Sequence[float] | None = None,
    draft_s: float = 0.1,
) -> dict[str, list[Any]]:
    """(drafted, verified, accepted, gained, seeded) per cycle; chains; 0.7 s where it drafts."""
    columns = {name: [row[i] for row in rows] for i, name in enumerate(NAMES)}
    n = len(rows)
    return columns | {
        "reach": columns["verified"],
        "rows": [v + 1 for v in columns["verified"]],
        "draft_s": [draft_s] * n,
        "verify_s": list(verify_s or [0.5] * n),
        "judge_s": [0.1] * n,
        "confidence": [list(c) for c in confidence or [()] * n],
    }


def plain(n: int) -> dict[str, list[Any]]:
    return cycles(*[(0, 0, 0, 1, 0)] * n, draft_s=0.0, verify_s=[0.4] * n)


def row(arm: str, prompt: int, wall_s: float, **changes: Any) -> dict[str, Any]:
    given = {
        "schema_version": 2,
        "arm": arm,
        "lossless": True,
        "prompt": prompt,
        "turn": 0,
        "pass": 0,
        "group": "g",
        "ids": [prompt, *range(1, 7 if prompt == 0 else 4)],
        "finish": "stop",
        "right": None,
        "ttft_s": 1.0,
        "wall_s": wall_s,
        "repeated_4grams": 0.0,
        "cycles": {},
    }
    return given | changes


CONFIDENCE = ([0.9, 0.9, 0.5, 0.5], [0.9] * 4, [0.5] * 4, [0.1, 0.9, 0.9, 0.9], [0.9, 0.5])
FIRST = cycles((4, 4, 3, 4, 0), (4, 4, 4, 2, 2), confidence=CONFIDENCE[:2])
SECOND = cycles((4, 4, 0, 1, 0), (4, 4, 0, 1, 1), (2, 2, 1, 1, 0), confidence=CONFIDENCE[2:])
SWITCHING = cycles((4, 4, 1, 2, 0), (2, 2, 1, 2, 0), (2, 2, 0, 1, 0), (4, 4, 0, 1, 0))
TREE = cycles((6, 6, 2, 3, 0), (6, 6, 2, 3, 0), confidence=[[0.5] * 6] * 2) | {"reach": [3, 3]}
ROWS: list[dict[str, Any]] = [
    row("none", 0, 4.0, cycles=plain(6), right=True),
    row("none", 1, 2.5, cycles=plain(3), right=False, finish="length", repeated_4grams=0.5),
    row("auto:4", 0, 2.4, cycles=FIRST),
    row("auto:4", 1, 3.1, cycles=SECOND, ids=[1, 1, 9, 3]),
    row("auto:2", 0, 4.0, cycles=cycles(*[(2, 2, 1, 2, 0)] * 3)),
    row("auto+fancy", 0, 2.2, cycles=SWITCHING, lossless=False),
    row("auto+fancy", 0, 2.2, cycles=SWITCHING, **{"pass": 1}),
    row("each+tree", 0, 3.0, cycles=TREE),
    row("peer:10", 0, 1.0, ttft_s=None, cycles={name: [] for name in ("gained", "rows")}),
]


def write(run: Path, rows: Sequence[Any] = ROWS) -> Path:
    run.mkdir(parents=True, exist_ok=True)
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
    (run / "records.jsonl").write_text("\n".join(lines) + "\n")
    env = {"device": "cpu", "threads": 1, "prompt_hash": "ab12", "commit": "c0ffee"}
    (run / "env.json").write_text(json.dumps(env | {"versions": {"torch": "2.13.0"}}))
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("runs") / "hand")


@pytest.fixture(scope="module")
def trace(run: Path) -> RunTrace:
    return read_trace(run)


@pytest.fixture(scope="module")
def figures(trace: RunTrace) -> Analysis:
    return analyze(trace)


@pytest.fixture(scope="module")
def files(trace: RunTrace, figures: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "new" / "analysis"
    report.write_report(trace, figures, out)
    return out


def arm(analysis: Analysis, name: str) -> ArmFigures:
    return next(f for f in analysis.arms if f.arm == name)


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


# -- one line per arm ---------------------------------------------------------------------------


def test_speeds_by_both_clocks(figures: Analysis) -> None:
    none, auto = arm(figures, "none"), arm(figures, "auto:4")
    assert figures.baseline == "none"
    assert (none.tokens, none.tokens_per_s) == (11, 11 / 6.5)
    assert auto.tokens_per_s == pytest.approx(11 / 5.5)
    assert auto.ttft_ms == 1000
    assert none.tpot_ms == pytest.approx(1000 * (3.0 + 1.5) / (6 + 3))
    assert auto.tpot_ms == pytest.approx(1000 * (1.4 + 2.1) / (6 + 3))
    assert auto.derived_speedup == pytest.approx(4.5 / 3.5)
    assert none.legacy_tpot_ms == pytest.approx(1000 * (3.0 / 7 + 1.5 / 4) / 2)
    assert auto.legacy_tpot_ms == pytest.approx(1000 * (1.3 / 7 + 2.0 / 4) / 2)
    assert auto.legacy_speedup == pytest.approx((3.0 / 7 + 1.5 / 4) / (1.3 / 7 + 2.0 / 4))
    assert auto.speedup is not None
    assert auto.speedup.value == pytest.approx(6.5 / 5.5)
    assert auto.speedup.low == pytest.approx(2.5 / 3.1)  # both draws the second prompt
    assert auto.speedup.high == pytest.approx(4.0 / 2.4)


def test_tau_and_what_became_of_the_drafts(figures: Analysis) -> None:
    auto = arm(figures, "auto:4")  # gained 4 2 | 1 1 1, the last cycle of both cut by the end
    assert auto.tau is not None
    assert (auto.tau.value, auto.tau.low, auto.tau.high) == (9 / 5, 1.0, 3.0)
    assert auto.tau_sample_mean == (3.0 + 1.0) / 2
    assert (auto.gained_p10, auto.gained_median) == (1.0, 1.0)
    assert auto.gained_p90 == pytest.approx(3.2)
    assert auto.wasted_rows == pytest.approx(10 / 18)
    assert auto.accepted_per_cycle == 8 / 5
    assert (auto.seeded_per_cycle, auto.seeded_cycles) == (3 / 5, 2 / 5)
    assert auto.autocorrelation_1 == pytest.approx((-1 / 3) / (2 / 5))


def test_answers_are_counted_and_compared_with_the_baseline(figures: Analysis) -> None:
    none, auto = arm(figures, "none"), arm(figures, "auto:4")
    assert (none.right, none.capped, none.repeated_4grams) == (0.5, 0.5, 0.25)
    assert (auto.right, auto.capped, none.mean_output_tokens) == (None, 0.0, 5.5)
    assert (none.identical, auto.identical, auto.compared) == (2, 1, 2)
    fancy = arm(figures, "auto+fancy")
    assert (fancy.lossless, fancy.prompts, fancy.answers) == (False, 1, 2)
    assert (fancy.identical, fancy.compared) == (1, 1)


def test_turns_of_a_conversation_belong_to_one_prompt() -> None:
    second = {"turn": 1, "ids": [5, 6]}
    old = {k: v for k, v in row("none", 0, 1.0).items() if k != "turn"}  # then it was the first
    rows = [old, row("none", 0, 1.0, **second), row("a", 0, 1.0), row("a", 0, 1.0, **second)]
    found = arm(analyze(analyze_rows(rows)), "a")
    assert (found.prompts, found.answers, found.identical, found.compared) == (1, 2, 1, 1)
    rows[-1]["ids"] = [5, 7]
    assert arm(analyze(analyze_rows(rows)), "a").identical == 0


def test_ids_are_compared_with_the_first_pass_of_the_baseline() -> None:
    rows = [row("none", 0, 1.0, ids=[1, 2]), row("none", 0, 1.0, ids=[1, 3], **{"pass": 1})]
    found = analyze(analyze_rows([*rows, row("a", 0, 1.0, ids=[1, 2])]))
    assert [f.identical for f in found.arms] == [0, 1]  # the baseline is not like itself


def test_the_last_cycle_of_an_answer_is_no_switch(figures: Analysis) -> None:
    # 4 2 2 (4) twice: one change in two pairs each; none across answers
    assert arm(figures, "auto+fancy").switch_rate == 0.5
    assert arm(figures, "auto:4").switch_rate == 0.0  # 4 (4) | 4 4 (2)
    assert arm(figures, "each+tree").switch_rate is None  # a single inner cycle


def test_a_draft_that_the_token_limit_cut_is_no_switch_either() -> None:
    # 12 tokens, 1 from the prefill: 4 drafted and 5 gained, 4 (6 left), then all that was left
    ends = cycles(
        (4, 4, 4, 5, 0), (4, 4, 1, 2, 0), (3, 3, 1, 2, 0), (1, 1, 0, 1, 0), (0, 0, 0, 1, 0)
    )
    given = {"cycles": ends, "ids": list(range(12)), "finish": "length"}
    found = analyze(analyze_rows([row("a", 0, 9.0, **given)]))
    assert arm(found, "a").switch_rate == 0.0
    found = analyze(analyze_rows([row("a", 0, 9.0, **given | {"finish": "stop"})]))
    assert arm(found, "a").switch_rate == pytest.approx(2 / 3)  # 4 4 3 1 (0)


def test_retention_is_over_the_longest_fixed_arm_of_the_drafter(figures: Analysis) -> None:
    assert arm(figures, "auto:4").retention == 1.0
    assert arm(figures, "auto:2").retention == pytest.approx(1.0 / 1.6)
    assert arm(figures, "auto+fancy").retention == pytest.approx(0.5 / 1.6)
    assert arm(figures, "each+tree").retention is None
    longer = row("auto", 0, 2.0, cycles=cycles((7, 7, 3, 4, 0)))  # 7 by the drafter's own choice
    found = analyze(analyze_rows([*ROWS, longer]))
    assert arm(found, "auto").retention == 1.0
    assert arm(found, "auto:4").retention == pytest.approx(1.6 / 3)
    assert [draft_len(x) for x in ("auto:4", "a:b:3", "auto:4+x", "auto")] == [
        *(("auto", 4), ("a:b", 3), None, None)
    ]


def test_a_peer_without_cycles_leaves_blanks(figures: Analysis) -> None:
    peer = arm(figures, "peer:10")
    assert peer.tokens_per_s == 7.0
    assert peer.cycles == 0
    blank = ("ttft_ms", "tpot_ms", "legacy_tpot_ms", "tau", "tau_sample_mean", "gained_median",
             "wasted_rows", "retention", "switch_rate", "autocorrelation_1")  # fmt: skip
    assert [getattr(peer, name) for name in blank] == [None] * len(blank)


def test_intervals_are_those_of_the_bench_summary() -> None:
    rng = np.random.default_rng(3)
    walls = rng.uniform(1, 4, (2, 9))
    rows = [row(a, p, float(walls[i, p])) for i, a in enumerate("ab") for p in range(9)]
    found = paired_speedup(*(analyze_rows(rows).arms[a] for a in "ba"))
    tokens = [7] + [4] * 8
    costs = [[Cost(t, float(s)) for t, s in zip(tokens, w, strict=True)] for w in walls]
    want = speedup(costs[1], costs[0])
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((want.value, want.low, want.high))
    assert (resampled(9).sum(axis=1) == 9).all()


def analyze_rows(rows: Sequence[dict[str, Any]]) -> RunTrace:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return read_trace(write(Path(folder), rows))


def test_another_baseline_or_one_nobody_knows(trace: RunTrace) -> None:
    turned = analyze(trace, "auto:4")
    assert turned.baseline == "auto:4"
    base = arm(turned, "none").speedup
    assert base is not None
    assert base.value == pytest.approx(5.5 / 6.5)
    with pytest.raises(ConfigError, match="Did you mean 'auto:4'"):
        analyze(trace, "auto:5")


def test_regret_is_against_the_fastest_arm_without_a_policy_and_the_oracle(run: Path) -> None:
    best = {r.arm: r for r in analyze(read_trace(run)).regret}
    assert {r.reference for r in best.values()} == {"auto:4"}  # the peer is faster, and no setting
    assert best["none"].regret == pytest.approx(1 - 5.5 / 6.5)
    assert best["auto+fancy"].regret == pytest.approx(1 - 2.4 / 2.2)  # faster: negative
    assert best["auto:4"].ratio.value == 1.0
    oracle = [*ROWS, row("auto+oracle", 0, 1.2, cycles=SWITCHING)]
    found = analyze(analyze_rows(oracle)).regret
    headroom = {r.arm: r.regret for r in found if r.kind == "oracle"}
    assert headroom["auto:4"] == pytest.approx(1 - 1.2 / 2.4)
    assert {r.reference for r in found if r.kind == "best fixed"} == {"auto:4"}


# -- along an axis ------------------------------------------------------------------------------


def test_survival_hazard_and_the_drafts_that_were_cut_short(figures: Analysis) -> None:
    found = [p for p in figures.positions if p.arm == "auto:4"]  # reach 4 4 4 4 2, kept 3 4 0 0 1
    assert [(p.position, p.cycles, p.at_risk) for p in found] == [
        *((1, 5, 5), (2, 5, 3), (3, 4, 2), (4, 4, 2))
    ]
    assert [p.survival for p in found] == [0.6, 0.4, 0.5, 0.25]
    assert [p.hazard for p in found] == pytest.approx([0.4, 1 / 3, 0.0, 0.5])
    assert [p.kaplan_meier for p in found] == pytest.approx([0.6, 0.4, 0.4, 0.2])
    assert not [p for p in figures.positions if p.arm in ("none", "peer:10")]
    tree = [p for p in figures.positions if p.arm == "each+tree"]
    assert [p.survival for p in tree] == [1.0, 1.0, 0.0]  # by its longest path, not its nodes


def test_nothing_is_at_risk_beyond_what_was_verified() -> None:
    kept = cycles((4, 2, 2, 3, 0), (4, 4, 2, 3, 0), confidence=[[0.5] * 4] * 2)
    found = analyze(analyze_rows([row("a", 0, 9.0, cycles=kept)]))
    assert [(p.at_risk, p.hazard) for p in found.positions] == [
        *((2, 0.0), (2, 0.0), (1, 1.0), (0, None))
    ]
    assert found.positions[3].kaplan_meier is None
    assert found.reliability[0].nodes == 2 + 3


def test_reliability_counts_the_judged_positions_of_chains_only(figures: Analysis) -> None:
    (found,) = figures.reliability  # the tree, and arms without a trace, are left out
    # kept of those judged: 7 of 7 at 0.9, 1 of 4 at 0.5, 0 of 1 at 0.1
    assert (found.arm, found.nodes) == ("auto:4", 12)
    assert found.confidence == pytest.approx(0.7)
    assert found.accepted == pytest.approx(8 / 12)
    assert found.ece == pytest.approx((0.7 + 1.0 + 0.1) / 12)
    assert found.brier == pytest.approx((7 * 0.01 + 4 * 0.25 + 0.01) / 12)
    assert found.auc == pytest.approx((7 * 4 + 3 * 0.5 + 1) / (8 * 4))
    assert {i: (b.nodes, b.accepted) for i, b in enumerate(found.bins) if b.nodes} == {
        **{1: (1, 0.0), 7: (4, 0.25), 13: (7, 1.0)}
    }


def test_cost_is_the_median_by_rows_and_pooled() -> None:
    one = cycles(*[(4, 4, 0, 1, 0)] * 3, (1, 1, 0, 1, 0), verify_s=[0.5, 0.1, 0.2, 9.0])
    one["draft_s"] = [0.2, 0.1, 0.9, 5.0]
    two = cycles((4, 4, 0, 1, 0), verify_s=[0.3], draft_s=0.7)
    analysis = analyze(analyze_rows([row("a", 0, 9.0, cycles=one), row("b", 0, 9.0, cycles=two)]))
    found = {(x.arm, x.rows): x for x in analysis.cost}
    assert list(found) == [("a", 2), ("a", 5), ("b", 5), (POOLED, 2), (POOLED, 5)]
    assert found["a", 5].verify_judge_s == pytest.approx(0.3)  # with 0.1 s of judging
    assert found[POOLED, 5].verify_judge_s == pytest.approx(0.35)
    assert [x.draft_s for x in analysis.cost] == pytest.approx([5.0, 0.2, 0.7, 5.0, 0.45])
    assert found[POOLED, 5].cycles == 4


def test_throughput_by_drafted_length_says_that_it_was_chosen(figures: Analysis) -> None:
    short, long = [b for b in figures.blocks if b.arm == "auto:4"]
    assert (short.drafted, short.cycles, short.share, short.tokens) == (2, 1, 0.2, 1)
    assert (long.drafted, long.cycles, long.share, long.tokens) == (4, 4, 0.8, 8)
    assert long.tokens_per_s == pytest.approx(8 / 2.8)
    assert long.note == SELECTED == "confounded by selection"


def test_autocorrelation_pairs_cycles_of_one_answer_and_demeans_by_prompt() -> None:
    high = cycles(*[(9, 9, g - 1, g, 0) for g in (9, 7, 9, 7)])
    low = cycles(*[(9, 9, g - 1, g, 0) for g in (3, 1, 3, 1)])
    rows = [row("a", 0, 4.0, cycles=high), row("a", 1, 4.0, cycles=low)]
    found = analyze(analyze_rows(rows)).autocorrelation
    assert [x.lag for x in found] == list(range(1, 17))
    assert [x.pairs for x in found[:4]] == [6, 4, 2, 0]
    # without demeaning by prompt the first would be near +0.8
    assert [x.autocorrelation for x in found[:4]] == [-1.0, 1.0, -1.0, None]


def test_a_rolling_mean_begins_with_what_there_is() -> None:
    assert rolling_mean(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist() == [1, 2, 4, 6]
    assert len(rolling_mean(np.zeros(3), WINDOW)) == 3


# -- files --------------------------------------------------------------------------------------

TABLES = ("summary.csv", "per_sample_summary.csv", "cycle_trace_flat.csv", "survival.csv",
          "per_block_realized_throughput.csv", "cost.csv", "reliability.csv",
          "autocorrelation.csv")  # fmt: skip
PICTURES = ("tau_vs_cycle_colored_block.png", "rolling_tau_cycle_time.png", "tokens_per_s.png",
            "tau_vs_draft_len.png", "survival.png", "cost_curve.png", "reliability.png",
            "autocorrelation.png")  # fmt: skip


def test_every_file_is_there_and_no_half_one(files: Path) -> None:
    names = {*TABLES, *PICTURES, "summary.md", "summary.json", "report.html"}
    assert {p.name for p in files.iterdir()} == names
    assert set(PLOTS) == set(PICTURES)
    for name in TABLES:
        assert table(files / name), f"{name} has no row"


@pytest.mark.parametrize("name", PICTURES)
def test_every_figure_opens_and_shows_something(files: Path, name: str) -> None:
    picture = matplotlib.image.imread(files / name)
    assert picture.shape[0] > 100
    assert picture.shape[1] > 400
    colored = np.ptp(picture[:, :, :3], axis=2) > 0.2  # text and axes are grey
    assert colored.mean() > 1e-4


def test_the_csv_files_hold_the_figures(files: Path) -> None:
    auto = next(r for r in table(files / "summary.csv") if r["arm"] == "auto:4")
    assert float(auto["speedup"]) == pytest.approx(6.5 / 5.5)
    assert float(auto["tau_high"]) == 3.0
    samples = {
        (r["arm"], r["prompt"], r["pass"]): r for r in table(files / "per_sample_summary.csv")
    }
    assert len(samples) == len(ROWS)
    other = samples["auto:4", "1", "0"]
    assert (other["identical"], other["first_difference"]) == ("False", "2")
    assert (other["cycles"], other["accepted"], other["verified"]) == ("3", "1", "10")
    assert float(other["tpot_s"]) == pytest.approx(2.1 / 3)
    assert samples["peer:10", "0", "0"]["tau"] == ""


def test_the_flat_trace_has_a_row_per_cycle(files: Path) -> None:
    flat = table(files / "cycle_trace_flat.csv")
    assert len(flat) == 9 + 5 + 3 + 8 + 2
    auto = [r for r in flat if r["arm"] == "auto:4"]
    assert [(r["prompt"], r["cycle"], r["tokens_before"]) for r in auto] == [
        *(("0", "0", "1"), ("0", "1", "5"), ("1", "0", "1"), ("1", "1", "2"), ("1", "2", "3"))
    ]
    assert [r["gained"] for r in auto] == ["4", "2", "1", "1", "1"]
    assert float(auto[0]["cycle_s"]) == pytest.approx(0.7)


def test_the_page_needs_nothing_else(files: Path) -> None:
    page = (files / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(PICTURES)
    assert not re.search(r"https?://|<script|<link|src=\"(?!data:)", page)
    for said in ("ab12", "c0ffee", "torch 2.13.0", "legacy_tpot_ms", "bonus token included"):
        assert said in page
    assert "auto+fancy (NOT lossless)" in page


def test_names_cannot_break_the_page_or_the_tables(tmp_path: Path) -> None:
    name = "<b>|$x_1$"
    trace = read_trace(write(tmp_path / "odd", [row(name, 0, 2.4, cycles=FIRST)]))
    report.write_report(trace, analyze(trace), tmp_path)
    assert "<b>" not in (tmp_path / "report.html").read_text()
    assert r"| <b>\|$x_1$ |" in (tmp_path / "summary.md").read_text()
    assert table(tmp_path / "survival.csv")[0]["arm"] == name


def test_files_are_a_function_of_the_records(run: Path, files: Path, tmp_path: Path) -> None:
    again = read_trace(run)
    report.write_report(again, analyze(again), tmp_path)
    for path in files.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "summary.md"
    report.write_whole(target, "old")

    def half(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:1])
        raise OSError("no space left")

    def elsewhere(path: Path, content: bytes) -> int:
        assert path != target  # a reader would see it grow
        with path.open("wb") as file:
            return file.write(content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", elsewhere)
        report.write_whole(target, "older")
    assert target.read_text() == "older"

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="no space"):
        report.write_whole(target, "new")
    assert target.read_text() == "older"


# -- what cannot be used ------------------------------------------------------------------------

BROKEN: dict[str, Any] = {
    "not JSON": '{"schema_version": 2, "arm": "au',
    "not a JSON object": "[1, 2]",
    "schema_version 1, expected 2": {"schema_version": 1, "arm": "none"},
    "no name of an arm": {"schema_version": 2},
    "lacks 'wall_s'": {k: v for k, v in ROWS[0].items() if k != "wall_s"},
    "wall_s is 0": ROWS[0] | {"wall_s": 0},
    "ttft_s is 5": ROWS[0] | {"ttft_s": 5},
    "ids are not": ROWS[0] | {"ids": ["a"]},
    "prompt is '0'": ROWS[0] | {"prompt": "0"},
    "is there twice": ROWS[0],
    "differ in length": ROWS[0] | {"pass": 1, "cycles": plain(3) | {"rows": [1]}},
    "cycles lack 'rows'": ROWS[0]
    | {"pass": 1, "cycles": {k: v for k, v in plain(3).items() if k != "rows"}},
    "what is no count": ROWS[0] | {"pass": 1, "cycles": plain(1) | {"rows": ["1"]}},
    "accepted more than": ROWS[0] | {"pass": 1, "cycles": plain(1) | {"accepted": [3]}},
    "no list of prob": ROWS[0] | {"pass": 1, "cycles": plain(1) | {"confidence": [[1.5]]}},
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_line_that_cannot_be_used_is_named_and_left_out(
    tmp_path: Path, reason: str, figures: Analysis
) -> None:
    run = write(tmp_path, [*ROWS[:3], BROKEN[reason], *ROWS[3:]])
    before = (run / "records.jsonl").read_bytes()
    trace = read_trace(run)
    assert [fault.line for fault in trace.faults] == [4]
    (said,) = describe(trace)
    assert said.startswith("records.jsonl line 4 left out: ")
    assert reason in said
    found = analyze(trace)
    assert found.skipped_lines == 1
    assert found.arms == figures.arms  # nothing of it is counted
    assert (run / "records.jsonl").read_bytes() == before


def test_a_last_line_that_was_cut_off_stays_in_the_file(tmp_path: Path) -> None:
    run = write(tmp_path)
    path = run / "records.jsonl"
    cut = path.read_bytes()[:-40]
    path.write_bytes(cut)
    trace = read_trace(run)
    assert [fault.line for fault in trace.faults] == [len(ROWS)]
    assert "peer:10" not in trace.arms
    assert path.read_bytes() == cut


def test_lines_with_one_fault_make_one_sentence(trace: RunTrace) -> None:
    many = RunTrace("x", {}, "env.json is missing", {}, {}, (Fault(3, "bad"), Fault(9, "bad")))
    assert list(describe(many)) == [
        *("env.json is missing.", "records.jsonl lines 3, 9 left out: bad.")
    ]
    assert list(describe(trace)) == []


def test_an_arm_that_failed_is_reported_and_the_others_stand(
    tmp_path: Path, figures: Analysis
) -> None:
    error = {"schema_version": 2, "arm": "auto:99", "error": "out of <memory>"}
    trace = read_trace(write(tmp_path, [error, *ROWS]))
    found = analyze(trace)
    assert found.errors == {"auto:99": ("out of <memory>",)}
    assert found.skipped_lines == 0
    assert found.arms == figures.arms
    assert "| auto:99 | out of <memory> |" in report.markdown(trace, found)
    assert "out of &lt;memory&gt;" in report.html(trace, found, [])


def test_a_run_whose_arms_all_failed_still_gives_a_report(tmp_path: Path) -> None:
    error = {"schema_version": 2, "arm": "auto:99", "error": "out of memory"}
    trace = read_trace(write(tmp_path / "run", [error]))
    written = report.write_report(trace, analyze(trace), tmp_path / "out")
    assert len(written) == len(TABLES) + len(PICTURES) + 3
    assert "out of memory" in (tmp_path / "out" / "summary.md").read_text()


def test_a_folder_without_records_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="floodstage bench"):
        read_trace(tmp_path / "nowhere")
    with pytest.raises(RunError, match="line 1: not JSON"):
        read_trace(write(tmp_path, ["{"]))


def test_no_figure_needs_the_environment(tmp_path: Path, figures: Analysis) -> None:
    run = write(tmp_path)
    (run / "env.json").write_text("{")
    trace = read_trace(run)
    assert "env.json cannot be read" in "".join(describe(trace))
    assert analyze(trace).arms == figures.arms


# -- the command --------------------------------------------------------------------------------


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(analyze_command)
    return app


def test_the_command_prints_a_table_and_says_where_the_page_is(
    app: typer.Typer, tmp_path: Path
) -> None:
    run = write(tmp_path, [*ROWS, "{"])
    done = CliRunner().invoke(app, [str(run)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "auto:4" in done.stdout
    assert "1.18 [0.81, 1.67]" in done.stdout
    assert "report.html" in done.stdout
    assert "records.jsonl line 10 left out: not JSON" in done.stderr
    assert (run / "analysis" / "report.html").is_file()


def test_with_json_standard_output_is_one_document(app: typer.Typer, tmp_path: Path) -> None:
    run, out = write(tmp_path / "run", [*ROWS, "{"]), tmp_path / "elsewhere"
    options = [str(run), "--baseline", "auto:4", "--out", str(out), "--json"]
    done = CliRunner().invoke(app, options, catch_exceptions=False)
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["baseline"] == "auto:4"
    assert found["skipped_lines"] == 1
    assert found["arms"][0]["speedup"]["value"] == pytest.approx(5.5 / 6.5)
    assert json.loads((out / "summary.json").read_text()) == found
    assert not (run / "analysis").exists()


# -- speed --------------------------------------------------------------------------------------


def big_run(folder: Path, total: int) -> Path:
    """`total` cycles of five arms with traced confidences, 100 to an answer."""
    rng, rows = np.random.default_rng(0), []
    answers = total // 500
    for prompt in range(answers // 2):
        for turn in (0, 1):
            for name in ("none", "auto:4", "auto:8", "auto:15", "auto:15+policy"):
                length = int(name.split(":")[1].split("+")[0]) if ":" in name else 0
                cut = rng.integers(0, length + 1, 100) if "+" in name else np.full(100, length)
                kept = np.minimum(rng.geometric(0.2, 100) - 1, cut)
                figures = {
                    **{"drafted": [length] * 100, "verified": cut.tolist(), "reach": cut.tolist()},
                    **{"accepted": kept.tolist(), "gained": (kept + 1).tolist()},
                    **{"seeded": [0] * 100, "rows": (cut + 1).tolist()},
                    **{k: rng.random(100).tolist() for k in ("draft_s", "verify_s", "judge_s")},
                    "confidence": rng.random((100, length)).round(4).tolist(),
                }
                ids = [1] * (1 + int(kept.sum()) + 100)
                more = {"ids": ids, "pass": turn, "cycles": figures}
                rows.append(row(name, prompt, 200.0, **more))
    assert sum(len(r["cycles"]["gained"]) for r in rows) == total
    return write(folder, rows)


@pytest.mark.parametrize(
    ("total", "limit_s"),
    [(10_000, 10), pytest.param(100_000, 20, marks=pytest.mark.slow)],
)
def test_many_cycles_are_analysed_in_time(tmp_path: Path, total: int, limit_s: float) -> None:
    run = big_run(tmp_path / "run", total)
    start = time.process_time()
    trace = read_trace(run)
    analysis = analyze(trace)
    report.write_report(trace, analysis, tmp_path / "out")
    assert time.process_time() - start < limit_s
    assert sum(f.cycles for f in analysis.arms) == total
    assert len(table(tmp_path / "out" / "cycle_trace_flat.csv")) == total
    thinned = (
        "At most 3000 cycles of an arm are drawn" in (tmp_path / "out" / "report.html").read_text()
    )
    assert thinned == (total > 5 * 3000)
