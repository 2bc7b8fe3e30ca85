"""Figures of merit against numbers worked out by hand."""

from __future__ import annotations

import random

import pytest

from floodstage.core.metrics import (
    Cost,
    acceptance_by_position,
    auroc,
    recall_at,
    repeated_ngrams,
    speedup,
    tau,
)
from floodstage.core.types import StepRecord


def cycle(verified: int, accepted: int, *, prefill: bool = False) -> StepRecord:
    return StepRecord(verified, verified, accepted, 1, 0.0, 1.0, prefill=prefill)


CYCLES = [cycle(0, 0, prefill=True), cycle(4, 4), cycle(4, 1), cycle(2, 0), cycle(0, 0)]


def test_tau_counts_the_bonus_and_not_the_prefill() -> None:
    assert tau(CYCLES) == (5 + 2 + 1 + 1) / 4


def test_tau_of_nothing_is_one() -> None:
    assert tau([]) == tau(CYCLES[:1]) == 1.0


def test_acceptance_is_survival_by_position() -> None:
    # Positions 1 and 2 were verified three times, 3 and 4 twice.
    assert acceptance_by_position(CYCLES) == [2 / 3, 1 / 3, 1 / 2, 1 / 2]
    assert acceptance_by_position([]) == []


@pytest.mark.parametrize(
    ("ids", "share"),
    [
        ([1, 2, 3, 4, 5], 0.0),
        ([7] * 7, 3 / 4),  # four 4-grams, one of them new
        ([1, 2, 1, 2, 1, 2], 1 / 3),  # 1212 2121 1212
        ([1, 2, 3], 0.0),
        ([], 0.0),
    ],
)
def test_repeated_ngrams_are_those_seen_before(ids: list[int], share: float) -> None:
    assert repeated_ngrams(ids) == pytest.approx(share)


def test_speedup_is_total_tokens_over_total_seconds() -> None:
    arm = [Cost(10, 1.0), Cost(30, 1.0)]
    baseline = [Cost(10, 2.0), Cost(30, 6.0)]
    got = speedup(arm, baseline)
    assert got.value == pytest.approx((40 / 2) / (40 / 8))
    assert got.low == pytest.approx(2.0)  # only the first prompt drawn
    assert got.high == pytest.approx(6.0)  # only the second
    assert got == speedup(arm, baseline)
    assert str(got) == "4.00 [2.00, 6.00]"


def test_speedup_over_itself_is_certain() -> None:
    costs = [Cost(9, 1.5), Cost(4, 0.5), Cost(11, 2.0)]
    got = speedup(costs, costs)
    assert (got.value, got.low, got.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("n", [0, 1])
def test_speedup_wants_as_many_prompts_of_both(n: int) -> None:
    with pytest.raises(ValueError, match="as many prompts"):
        speedup([Cost(1, 1.0)] * n, [Cost(1, 1.0)] * 2 * n)


def test_auroc_counts_pairs() -> None:
    rng = random.Random(4)
    right = [rng.choice([0.0, 1.0, 2.0, 3.0]) for _ in range(40)]
    wrong = [rng.choice([1.0, 2.0, 3.0, 4.0]) for _ in range(30)]
    pairs = [(w > r) + (w == r) / 2 for r in right for w in wrong]
    assert auroc(right, wrong) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc([0.0, 1.0], [2.0]) == 1.0
    assert auroc([5.0], [2.0]) == 0.0


def test_recall_at_a_share_of_false_positives() -> None:
    right = [float(i) for i in range(100)]  # 99.0 is the one allowed above the bar
    assert recall_at(right, [98.5, 98.0, 200.0, 3.0], 0.01) == 0.5
    assert recall_at(right, [98.5, 99.0, 200.0, 3.0], 0.0) == 0.25
