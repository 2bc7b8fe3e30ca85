"""A dense trace replays what a live run does: the same cycles, hence the same tau."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from floodstage.bench.compare import BenchConfig, make_arms
from floodstage.bench.dense import Costs, TextTrace, read_costs, read_trace, trace_text
from floodstage.bench.replay import curve, markdown, oracle_text, replay, replay_text
from floodstage.bench.sweep import replay_run, trace
from floodstage.bench.workloads import load_workload
from floodstage.core.errors import ConfigError, RunError
from floodstage.engine.options import Options
from floodstage.scheduling.confidence import ConfidenceScheduler
from floodstage.scheduling.fixed import FixedScheduler
from floodstage.scheduling.rolling import RollingScheduler

LIVE = [
    ("auto:1", lambda: FixedScheduler(1)),
    ("auto:6", lambda: FixedScheduler(6)),
    ("auto:15", lambda: FixedScheduler(15)),
    ("auto:15+confidence(threshold=0.6)", lambda: ConfidenceScheduler(15, 0.6)),
    ("auto:15+rolling", lambda: RollingScheduler(15)),
]


def figures(records: Any) -> list[tuple[int, int, int, int]]:
    return [(r.drafted, r.verified, r.accepted, r.gained) for r in records if not r.prefill]


@pytest.mark.parametrize(("name", "make"), LIVE, ids=[name for name, _ in LIVE])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_replay_predicts_a_live_run_cycle_by_cycle(
    name: str, make: Any, temperature: float
) -> None:
    arms, engine = make_arms(BenchConfig(arms=("auto", name), threads=1, device="cpu"))
    scheduler, table = make(), curve(Costs(0.003, {1: 0.005, 16: 0.009}))
    live, replayed = [], []
    for i, item in enumerate(load_workload("mathematics", 3).items):
        limit = (40, 300, 17)[i]
        options = Options(max_new_tokens=limit, temperature=temperature, seed=i)
        request = engine.request(item.prompt, options)
        live.append(figures(arms[1].answer(request).records))
        text = trace_text(arms[0].engine, request, i)  # type: ignore[union-attr]
        replayed.append(figures(replay_text(text, scheduler, table, 0.003)))
    assert replayed == live
    assert sum(map(len, live)) > 5


TEXTS = [
    TextTrace(0, 8, 20, (2, 1, 0, 3, 2, 1, 0), ((0.9, 0.8, 0.7),) * 7),
    TextTrace(1, 4, 4, (0, 0, 0), ((0.2, 0.1, 0.1),) * 3),
]
COSTS = Costs(1.0, {1: 4.0, 4: 7.0})


def test_the_arithmetic_of_a_replay() -> None:
    (one,) = [replay_text(TEXTS[0], FixedScheduler(3), curve(COSTS), 1.0)]
    # at 1: keeps 2, gains 3; at 4: keeps 3, gains 4 and is at the end
    assert figures(one) == [(3, 3, 2, 3), (3, 3, 3, 4)]
    assert [r.cycle_s for r in one] == [8.0, 8.0]
    short = replay_text(TEXTS[1], FixedScheduler(3), curve(COSTS), 1.0)
    assert figures(short) == [(2, 2, 0, 1), (1, 1, 0, 1), (0, 0, 0, 1)]  # no more than may come
    assert [r.cycle_s for r in short] == [7.0, 6.0, 4.0]


def test_the_oracle_pays_for_what_is_kept_only() -> None:
    assert figures(oracle_text(TEXTS[0], curve(COSTS), 1.0)) == [(2, 2, 2, 3), (3, 3, 3, 4)]
    hard = oracle_text(TEXTS[1], curve(COSTS), 1.0)
    assert [r.cycle_s for r in hard] == [4.0, 4.0, 4.0]


def test_scores_are_over_the_best_fixed_length() -> None:
    fixed = [(f"fixed:{n}", partial(FixedScheduler, n)) for n in (1, 3)]
    scores = replay(TEXTS, COSTS, [*fixed, ("oracle", None)])
    rates = {s.policy: s.tokens_per_s for s in scores}
    assert rates["fixed:3 (best fixed)"] == pytest.approx(10 / 33)
    assert rates["fixed:3 (best fixed)"] > rates["fixed:1"]
    assert rates["oracle"] == pytest.approx(10 / 27)  # 7 + 8, and three plain passes
    assert "best fixed" in markdown(scores)


def test_a_replay_needs_a_fixed_length() -> None:
    with pytest.raises(RunError, match="at least one"):
        replay(TEXTS, COSTS, [("oracle", None)])


def test_a_trace_is_written_resumed_and_replayed(tiny: Any, tmp_path: Path) -> None:
    asked = BenchConfig(target=str(tiny.target), prompts=3, max_new_tokens=12, device="cpu",
                        threads=1)  # fmt: skip
    trace(asked, str(tiny.drafter), tmp_path)
    whole = (tmp_path / "trace.jsonl").read_bytes()
    assert [t.prompt for t in read_trace(tmp_path)] == [0, 1, 2]
    assert set(read_costs(tmp_path).pass_s) <= set(range(1, 7))
    lines = whole.splitlines(keepends=True)
    (tmp_path / "trace.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:9])
    trace(asked, str(tiny.drafter), tmp_path)
    assert (tmp_path / "trace.jsonl").read_bytes() == whole
    names = ["fixed:1-5", "confidence(threshold=0.5)", "cost", "oracle"]
    scores = replay_run([tmp_path, tmp_path], names)
    assert len(scores) == 8
    best = max(s.tokens_per_s for s in scores[:5])
    assert scores[-1].tokens_per_s >= best
    with pytest.raises(RunError, match="another folder"):
        trace(asked, "ngram", tmp_path)
    with pytest.raises(ConfigError, match="'jacobi' cannot be traced: a trace verifies no draft"):
        trace(asked, "jacobi", tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 'cost'"):
        replay_run([tmp_path], ["fixed:1", "csot"])


def test_a_broken_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no trace"):
        read_trace(tmp_path)
    (tmp_path / "trace.jsonl").write_text("[1, 2]\n[0, 1, 2, [], []]\n")
    with pytest.raises(RunError, match="line 1 is not a trace"):
        read_trace(tmp_path)
    with pytest.raises(RunError, match=r"costs\.json"):
        read_costs(tmp_path)
