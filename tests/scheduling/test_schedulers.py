"""How much is drafted and how much of it is verified."""

from __future__ import annotations

import pytest

from floodstage.core.errors import ConfigError
from floodstage.core.types import Proposal
from floodstage.scheduling.confidence import ConfidenceScheduler
from floodstage.scheduling.fixed import FixedScheduler
from floodstage.scheduling.survival import survival


def test_fixed_drafts_as_told_and_verifies_it_all() -> None:
    scheduler = FixedScheduler(5)
    assert scheduler.choose() == 5
    assert scheduler.cut([Proposal(3), Proposal(1)]) == [3, 1]
    assert not scheduler.needs_confidence


@pytest.mark.parametrize(
    ("confidence", "size"),
    [
        ((), 4),
        ((0.9, 0.9, 0.9, 0.9), 4),
        ((0.9, 0.5, 0.9, 0.9), 2),
        ((0.9, 0.4, 1.0, 1.0), 1),
        ((0.3, 1.0, 1.0, 1.0), 0),
        ((0.5, 0.9, 1.0, 0.99), 1),
    ],
)
def test_confidence_cuts_where_the_product_falls_below_the_threshold(
    confidence: tuple[float, ...], size: int
) -> None:
    scheduler = ConfidenceScheduler(4, threshold=0.45 if size != 1 else 0.5)
    assert scheduler.cut([Proposal(4, confidence)]) == [size]


def test_confidence_follows_the_paths_of_a_tree() -> None:
    tree = Proposal(4, (0.9, 0.8, 0.5, 0.4), (-1, 0, -1, 2))
    assert survival(tree) == pytest.approx([0.9, 0.72, 0.5, 0.2])
    assert ConfidenceScheduler(4, threshold=0.3).cut([tree]) == [3]


def test_a_threshold_of_zero_verifies_everything() -> None:
    assert ConfidenceScheduler(3, threshold=0.0).cut([Proposal(3, (0.0, 0.0, 0.0))]) == [3]


@pytest.mark.parametrize(
    "make",
    [
        lambda: FixedScheduler(-1),
        lambda: ConfidenceScheduler(-1),
        lambda: ConfidenceScheduler(4, threshold=1.5),
        lambda: ConfidenceScheduler(4, threshold=-0.1),
    ],
)
def test_a_setting_out_of_range_is_refused_with_what_was_given(make: object) -> None:
    with pytest.raises(ConfigError, match=r"got -?[\d.]+"):
        make()
