"""What goes from a rejected draft into the next block, and where."""

from __future__ import annotations

import pytest
import torch

from floodstage.core.errors import ConfigError
from floodstage.drafting.seeding import Seeding

DRAFT = torch.tensor([11, 12, 13, 14, 15])
"""Slots 1 to 5; with two kept, 13 is the rejected one and its place the next anchor's."""


@pytest.mark.parametrize(
    ("mode", "block"),
    [
        ("none", [9, 0, 0, 0, 0, 0]),
        ("dense", [9, 13, 14, 15, 0, 0]),  # one place too late, as published
        ("sparse", [9, 0, 13, 0, 14, 0]),
        ("aligned", [9, 14, 15, 0, 0, 0]),
        ("branch", [9, 0, 0, 0, 0, 0]),
    ],
)
def test_recycled_tokens_go_where_the_mode_says(mode: str, block: list[int]) -> None:
    seeding, given = Seeding(mode), torch.tensor([9, 0, 0, 0, 0, 0])
    count = seeding.place(given, seeding.recycled(DRAFT, 2))
    assert given.tolist() == block
    assert count == sum(x > 9 for x in block)


def test_a_whole_draft_leaves_nothing_and_the_most_is_kept() -> None:
    assert Seeding("dense").recycled(DRAFT, 5).tolist() == []
    assert Seeding("dense", 2).recycled(DRAFT, 0).tolist() == [11, 12]
    assert Seeding("aligned", 1).recycled(DRAFT, 0).tolist() == [12]
    assert Seeding("branch").recycled(DRAFT, 4).tolist() == []
    assert Seeding("dense", 0).recycled(DRAFT, 1).tolist() == []


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'dense'"):
        Seeding("densse")
    with pytest.raises(ConfigError, match="got -2"):
        Seeding("dense", -2)
