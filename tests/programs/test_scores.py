"""How near a wrong grid is, and that nobody asks where it cannot matter."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floodstage.programs import judge
from floodstage.programs.judge import judged, verdict_of
from floodstage.programs.records import Candidate, DataTask, Kind, Sample
from floodstage.programs.scores import SCORERS, cells, palette, shape

WANTED = [[1, 2], [3, 4]]


def task(*parts: str) -> DataTask:
    samples = tuple(Sample(([[0]],), WANTED if part != "open" else None, part) for part in parts)
    return DataTask("t", samples, ("solve",))


def gave(*outputs: Any) -> list[dict[str, Any]]:
    """Trials as a sandbox gives them; an exception where the output is None."""
    return [
        {"kind": "passed" if x else "exception", "output": json.dumps(x) if x else ""}
        for x in outputs
    ]


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        (WANTED, WANTED, (1.0, 1.0, 1.0)),
        ([[1, 2], [3, 0]], WANTED, (3 / 4, 1.0, 3 / 5)),
        ([[1, 2, 5]], WANTED, (2 / 5, 1 / 2 * 2 / 3, 2 / 5)),
        ([[7]], WANTED, (0.0, 1 / 4, 0.0)),
    ],
)
def test_scores_of_pairs(one: Any, two: Any, expected: tuple[float, ...]) -> None:
    assert (cells(one, two), shape(one, two), palette(one, two)) == pytest.approx(expected)


grids = st.integers(1, 4).flatmap(
    lambda w: st.lists(st.lists(st.integers(0, 3), min_size=w, max_size=w), min_size=1, max_size=4)
)


@given(grids, grids)
def test_one_is_reached_by_equals_alone(one: Any, two: Any) -> None:
    for score in SCORERS.values():
        assert 0.0 <= score(one, two) == score(two, one) <= score(one, one) == 1.0
    assert (cells(one, two) == 1.0) == (one == two)
    assert (shape(one, two) == 1.0) == ((len(one), len(one[0])) == (len(two), len(two[0])))


def test_each_runs_once_and_only_where_a_grid_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []

    def counting(name: str, score: Callable[[Any, Any], float]) -> Callable[[Any, Any], float]:
        return lambda one, two: asked.append((name, one)) or score(one, two)

    counted = {name: counting(name, score) for name, score in SCORERS.items()}
    monkeypatch.setattr(judge, "SCORERS", counted)
    wrong = [[1, 2], [3, 0]]
    found = judged(
        task("demo", "demo", "demo", "demo", "open"),
        gave(WANTED, wrong, None, [[1], [1, 2]], wrong),
    )
    assert asked == [(name, wrong) for name in SCORERS]
    kinds = ["passed", "wrong", "exception", "invalid_output", "passed"]
    assert [str(trial.kind) for trial in found] == kinds
    assert [trial.cells for trial in found] == [1.0, 0.75, 0.0, 0.0, 0.0]


def test_a_program_has_the_means_of_its_demo_samples() -> None:
    """What a test sample is like may rank nothing."""
    asked = task("demo", "demo", "test")
    trials = judged(asked, gave(WANTED, [[1, 2], [3, 0]], [[1, 2], [0, 0]]))
    verdict = verdict_of(
        Candidate("a", "t", "", ""), asked, trials, queue_s=0.0, reply_s=0.0, attempts=1
    )
    assert verdict.kind is Kind.WRONG
    assert (verdict.cells, verdict.shape) == ((1 + 0.75) / 2, 1.0)
