"""The cost scheduler and its parts: calibrated survival, measured costs, allocation, the guard."""

from __future__ import annotations

import itertools
import random

import pytest

from floodstage.core.errors import ConfigError
from floodstage.core.types import Proposal, StepRecord
from floodstage.scheduling.cost import (
    CostScheduler,
    Guard,
    Shadow,
    allocate,
    counterfactual,
    explore,
)
from floodstage.scheduling.costs import CostCurve, monotone
from floodstage.scheduling.survival import Calibration, at_risk, depths, survival


def record(verified: int, accepted: int, **changes: object) -> StepRecord:
    given = {"drafted": verified, "batch": 1, "draft_s": 0.003, "verify_s": 0.005 + 3e-4 * verified,
             "rows": verified + 1}  # fmt: skip
    return StepRecord(verified=verified, accepted=accepted, **(given | changes))


# --- survival ------------------------------------------------------------------------------------

TREE = Proposal(5, (0.9, 0.8, 0.5, 0.4, 0.3), (-1, 0, -1, 2, 0))


def test_depths_and_survival_follow_the_paths() -> None:
    assert depths(TREE) == [1, 2, 1, 2, 2]
    assert survival(TREE) == pytest.approx([0.9, 0.72, 0.5, 0.2, 0.27])
    assert depths(Proposal(3)) == [1, 2, 3]


def test_who_was_at_risk() -> None:
    chain = Proposal(5, (0.5,) * 5)
    assert at_risk(chain, record(5, 2)) == [(0, True), (1, True), (2, False)]
    assert at_risk(chain, record(5, 5)) == [(i, True) for i in range(5)]
    assert at_risk(chain, record(2, 2)) == [(0, True), (1, True)]  # cut: nobody knows
    assert at_risk(chain, record(5, 2, emitted=2)) == [(0, True), (1, True)]  # the text ended
    assert at_risk(chain, record(0, 0)) == []
    tree = record(5, 1, path=(0,), depth=2)
    assert at_risk(TREE, tree) == [(0, True), (1, False), (4, False)]
    assert at_risk(TREE, record(4, 1, path=(0,), depth=2)) == [(0, True), (1, False)]
    assert at_risk(TREE, record(5, 0, path=(), depth=2)) == [(0, False), (2, False)]


def simulate(calibration: Calibration, cycles: int, cut: int | None, seed: int = 0) -> None:
    """A drafter whose odds are right but for a square root and a harder second half."""
    rng = random.Random(seed)
    for _ in range(cycles):
        sure = tuple(rng.choice((0.5, 0.8, 0.95, 0.99)) for _ in range(8))
        truth = [true_chance(c, k) for k, c in enumerate(sure, start=1)]
        verified = 8 if cut is None else cut
        accepted = next((k for k in range(verified) if rng.random() > truth[k]), verified)
        draft = Proposal(8, sure)
        calibration.observe(draft, at_risk(draft, record(verified, accepted)))


def true_chance(confidence: float, position: int) -> float:
    odds = (confidence / (1 - confidence)) ** 0.5 * (0.6 if position > 4 else 1.0)
    return odds / (1 + odds)


@pytest.mark.parametrize("cut", [None, 4])
def test_calibration_finds_the_truth_from_censored_outcomes(cut: int | None) -> None:
    calibration = Calibration()
    simulate(calibration, 4000, cut)
    for c in (0.5, 0.8, 0.95):
        chances = calibration.chances(Proposal(4, (c,) * 4))
        for position, chance in enumerate(chances, start=1):
            assert chance == pytest.approx(true_chance(c, position), abs=0.07), (c, position)


def test_counting_the_censored_as_failures_would_be_caught() -> None:
    """The planted bug of the test above: everything behind the cut was refused."""
    wrong = Calibration()
    rng = random.Random(0)
    for _ in range(2000):
        draft = Proposal(4, (0.9,) * 4)
        kept = sum(1 for _ in itertools.takewhile(lambda _: rng.random() < 0.9, range(2)))
        wrong.observe(draft, [*((k, True) for k in range(kept)), (kept, False)])
    assert wrong.chances(Proposal(4, (0.9,) * 4))[2] < 0.5


def test_without_data_the_drafter_is_believed() -> None:
    assert Calibration().chances(Proposal(2, (0.9, 0.3))) == pytest.approx([0.9, 0.3])
    assert Calibration().chances(Proposal(2)) == [0.5, 0.5]


# --- costs ---------------------------------------------------------------------------------------


def test_the_nearest_monotone_sequence() -> None:
    assert monotone([1, 3, 2, 4], [1, 1, 1, 1]) == [1, 2.5, 2.5, 4]
    assert monotone([3, 1], [1, 3]) == [1.5, 1.5]
    assert monotone([], []) == []


def test_a_curve_is_the_median_and_linear_in_between() -> None:
    curve = CostCurve()
    with pytest.raises(ValueError, match="No pass"):
        curve.at(1)
    for rows, seconds in ((1, 5.0), (1, 6.0), (1, 100.0), (11, 16.0)):
        curve.add(rows, seconds)
    curve._fit()
    assert [curve.at(r) for r in (1, 6, 11, 21)] == [6.0, 11.0, 16.0, 26.0]
    assert curve.at(0) == 5.0


def test_a_curve_follows_the_machine() -> None:
    curve = CostCurve(kept=3, refresh=1)
    for seconds in (1.0, 1.0, 1.0, 9.0, 9.0):
        curve.add(4, seconds)
    assert curve.at(4) == 9.0


# --- allocation ----------------------------------------------------------------------------------


def flat(base: float, per_row: float, stairs: int = 1) -> CostCurve:
    curve = CostCurve()
    for rows in range(1, 33):
        curve.add(rows, base + per_row * (-(-rows // stairs)) * stairs)
    return curve


@pytest.mark.parametrize("stairs", [1, 4])
@pytest.mark.parametrize("seed", range(20))
def test_the_allocation_is_the_best_of_all(seed: int, stairs: int) -> None:
    rng = random.Random(seed)
    drafts = []
    for _ in range(3):
        chance, row = 1.0, []
        for _ in range(5):
            chance *= rng.random() ** 0.3
            row.append(chance)
        drafts.append(row)
    costs, rate = flat(5e-3, 3e-4, stairs), rng.uniform(100, 2000)

    def worth(sizes: tuple[int, ...]) -> float:
        tokens = sum(sum(row[:n]) for row, n in zip(drafts, sizes, strict=True))
        return tokens - rate * costs.at(3 + sum(sizes))

    best = max(itertools.product(range(6), repeat=3), key=worth)
    got = tuple(allocate(drafts, costs, rate))
    assert worth(got) == pytest.approx(worth(best), abs=1e-9)


def test_cheap_rows_are_all_taken_and_dear_ones_none() -> None:
    chances = [[0.9, 0.5, 0.1]]
    assert allocate(chances, flat(5e-3, 1e-7), 1000.0) == [3]
    assert allocate(chances, flat(5e-3, 1e-2), 1000.0) == [0]


def test_lengths_to_explore_span_the_curve() -> None:
    assert explore(15) == [0, 3, 7, 11, 15]
    assert explore(1) == [0, 1]


# --- the guard -----------------------------------------------------------------------------------


def test_what_another_length_would_have_gained() -> None:
    chances = [0.5] * 6
    assert counterfactual(record(4, 2), chances, 1) == 2
    assert counterfactual(record(4, 2), chances, 6) == 3  # refused at 3, whatever the length
    assert counterfactual(record(4, 4), chances, 3) == 4
    assert counterfactual(record(4, 4), chances, 6) == 5 + 0.5 + 0.25  # expected
    assert counterfactual(record(4, 2, emitted=2), chances, 6) == 2  # the text ended


def test_a_shadow_must_be_surely_better() -> None:
    shadow = Shadow()
    for x in [1.0, -1.0] * 50:
        shadow.add(x, 1.0)
    assert not shadow.surely_positive(2.0)
    for x in [1.0] * 50:
        shadow.add(x, 1.0)
    assert shadow.surely_positive(2.0)


def test_the_guard_falls_back_while_a_fixed_length_is_better_and_then_tries_again() -> None:
    guard, costs = Guard(6), flat(5e-3, 1e-7)
    for _ in range(400):  # a policy that always cuts to one, where everything would be accepted
        guard.observe(record(1, 1, drafted=6), [0.99] * 6, costs, 200.0)
        if guard.length is not None:
            break
    assert guard.length == 6
    for _ in range(Guard.patience):
        assert guard.length == 6
        guard.observe(record(6, 6), [0.99] * 6, costs, 200.0)
    assert guard.length is None


# --- the scheduler -------------------------------------------------------------------------------


def drive(policy: CostScheduler, cycles: int, chance: float, per_row: float, base: float = 5e-3,
          draft_s: float = 1e-3, seed: int = 0) -> tuple[float, list[int]]:  # fmt: skip
    """Tokens per second and the sizes verified in a world of one acceptance rate."""
    rng, tokens, seconds, sizes = random.Random(seed), 0, 0.0, []
    for _ in range(cycles):
        n = policy.choose()
        draft = Proposal(n, (chance,) * n)
        (size,) = policy.cut([draft])
        accepted = next((k for k in range(size) if rng.random() > chance), size)
        spent = base + per_row * size
        done = StepRecord(n, size, accepted, 1, draft_s if n else 0.0, spent, rows=size + 1)
        policy.observe(done)
        tokens, seconds = tokens + done.gained, seconds + done.cycle_s
        sizes.append(size)
    return tokens / seconds, sizes


def fixed_rate(length: int, chance: float, per_row: float, base: float = 5e-3,
               draft_s: float = 1e-3) -> float:  # fmt: skip
    gained = 1 + sum(chance**k for k in range(1, length + 1))
    return gained / (base + per_row * length + draft_s)


@pytest.mark.parametrize(("chance", "per_row"), [(0.9, 3e-4), (0.6, 1e-3), (0.8, 1e-5)])
def test_it_finds_the_best_fixed_length_where_there_is_nothing_else_to_know(
    chance: float, per_row: float
) -> None:
    rate, sizes = drive(CostScheduler(15), 4000, chance, per_row)
    best = max(fixed_rate(n, chance, per_row) for n in range(16))
    assert rate > 0.97 * best
    assert sorted(set(sizes[:15])) == explore(15)  # the curve is measured first


def test_it_stops_drafting_where_drafts_do_not_pay() -> None:
    rate, sizes = drive(CostScheduler(15), 6000, 0.05, 1e-4, draft_s=4e-3)
    plain = 1 / 5e-3
    assert rate > 0.93 * plain
    assert sizes[-500:].count(0) > 400


def test_nothing_is_cut_for_profit_before_passes_were_measured() -> None:
    policy = CostScheduler(4)
    assert policy.cut([Proposal(2, (0.01,) * 2)]) == [2]  # too short to explore with


def test_a_larger_batch_is_explored_and_a_smaller_one_is_not() -> None:
    policy = CostScheduler(4)

    def cycles(batch: int, count: int) -> list[list[int]]:
        out = []
        for _ in range(count):
            sizes = policy.cut([Proposal(4, (0.9,) * 4)] * batch)
            rows = batch + sum(sizes)
            for n in sizes:
                policy.observe(record(n, n, batch=batch, rows=rows, verify_s=5e-3 + 1e-4 * rows))
            out.append(list(sizes))
        return out

    first = cycles(2, 20)
    assert [sizes[0] for sizes in first[:5]] == [4, 3, 2, 1, 0]
    assert not policy.exploration
    cycles(1, 5)
    assert not policy.exploration
    assert [sizes[0] for sizes in cycles(3, 5)] == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("make", [lambda: CostScheduler(0), lambda: CostScheduler(4, memory=1.0)])
def test_settings_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(ConfigError, match="got"):
        make()  # type: ignore[operator]
