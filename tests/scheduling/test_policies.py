"""The history-based policies, step by step."""

from __future__ import annotations

import pytest

from floodstage.core.errors import ConfigError
from floodstage.core.types import Proposal, StepRecord
from floodstage.scheduling.ewma import AdlScheduler, EwmaScheduler
from floodstage.scheduling.rolling import RollingScheduler


def cycle(drafted: int, gained: int, seconds: float = 0.01) -> StepRecord:
    return StepRecord(drafted, drafted, gained - 1, 1, 0.0, seconds)


def test_rolling_follows_the_mean_of_the_last_four() -> None:
    policy = RollingScheduler(15)
    assert policy.choose() == 15
    chosen = []
    for gained in (7, 7, 7, 7, 3, 7, 1, 1, 16, 16, 16):
        policy.observe(cycle(policy.choose(), gained))
        chosen.append(policy.choose())
    # means: 7 7 7 7 6 6 4.5 3 6.25 8.5 12.25
    assert chosen == [15, 15, 15, 15, 11, 11, 7, 7, 11, 15, 15]


def test_rolling_does_not_learn_from_cycles_without_a_draft() -> None:
    policy = RollingScheduler(15)
    policy.observe(cycle(0, 1))
    assert policy.choose() == 15


def ewma(**changes: object) -> EwmaScheduler:
    given = {"probe_interval": 0, "warmup_cycles": 0, "low_accept_threshold": 0.0}
    return EwmaScheduler(15, **(given | changes))


def feed(policy: EwmaScheduler, *gains: int, seconds: float = 0.01) -> list[int]:
    chosen = []
    for gained in gains:
        chosen.append(policy.choose() + 1)
        policy.observe(cycle(policy.choose(), gained, seconds))
    return chosen


def test_ewma_warms_up_in_turn_and_probes_round_robin() -> None:
    policy = EwmaScheduler(15, low_accept_threshold=0.0, probe_interval=3)
    # two to warm up (8, 12), then at 2, 5, 8, ... a probe of a size that is not the current
    assert feed(policy, *[1] * 2) == [8, 12]
    assert policy.current == 16
    seen = []
    for _ in range(7):
        size = policy.choose() + 1
        seen.append(size)
        policy.observe(cycle(size - 1, 4 if size == 16 else 1))
    assert seen == [8, 16, 16, 12, 16, 16, 8]


def test_ewma_switches_after_a_streak_and_then_rests() -> None:
    policy = ewma(required_streak=2, cooldown_cycles=2, switch_margin=0.05)
    policy.gain[8].add(6.0, 1.0)
    policy.time[8].add(0.01, 1.0)
    assert feed(policy, 4, 4, 4) == [16, 16, 8]
    assert policy.cooldown == 1


def test_ewma_stays_within_the_margin() -> None:
    policy = ewma(switch_margin=0.6)
    policy.gain[8].add(6.0, 1.0)
    policy.time[8].add(0.01, 1.0)
    assert feed(policy, 4, 4, 4, 4) == [16] * 4


def test_ewma_steps_down_at_low_acceptance_at_once() -> None:
    policy = ewma(low_accept_threshold=0.35, low_accept_streak=2)
    assert feed(policy, 5, 5, 1, 9, 1, 1) == [16, 16, 12, 12, 12, 12]
    assert policy.current == 8


def test_sizes_cut_by_the_texts_end_are_ignored() -> None:
    policy = ewma()
    policy.observe(cycle(3, 1))
    assert policy.cycle == 0


def test_adl_stays_near_what_is_drafted() -> None:
    policy = AdlScheduler(15, probe_interval=0, warmup_cycles=0, low_accept_threshold=0.0,
                          neighborhood=2, delta=2.0)  # fmt: skip
    assert policy.allowed() == (8, 12, 16)
    policy.observe(cycle(7, 3))
    assert policy.allowed() == [8]
    policy.drafted.value, policy.accepted.value = 11.0, 11.5  # all accepted: two longer, 13
    assert policy.allowed() == [12]
    policy.drafted.value, policy.accepted.value = 13.1, 1.0  # 14 is as near to 16: the larger
    assert policy.allowed() == [16]


@pytest.mark.parametrize(
    "make",
    [
        lambda: EwmaScheduler(15, alpha=0.0),
        lambda: EwmaScheduler(7),
        lambda: RollingScheduler(15, window=0),
        lambda: RollingScheduler(15, high=1.0),
        lambda: RollingScheduler(15, block_sizes=(8, 8)),
        lambda: RollingScheduler(15, block_sizes=(1, 8)),
    ],
)
def test_settings_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]


def test_they_verify_all_that_was_drafted() -> None:
    for policy in (RollingScheduler(15), EwmaScheduler(15)):
        assert policy.cut([Proposal(3), Proposal(15)]) == [3, 15]
