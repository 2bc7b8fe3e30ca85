"""The n-gram pool of the Jacobi trajectory, and drafts that are walked through it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floodstage.core.errors import ConfigError
from floodstage.core.types import Commit
from floodstage.drafting.lookahead import LookaheadDrafter, LookaheadSession, Pool


def begin(prompt: Sequence[int], **settings: int) -> LookaheadSession:
    return LookaheadSession(prompt, LookaheadDrafter(**settings))


def test_the_longest_n_gram_wins_and_of_equal_ones_the_latest() -> None:
    pool = Pool(2, 99)
    pool.add([1, 2], 7)
    pool.add([5, 2], 8)
    assert pool.after([1, 2]) == 7
    assert pool.after([9, 2]) == 8
    assert pool.after([9]) is None
    assert pool.after([]) is None


def test_a_full_pool_forgets_what_it_has_not_seen_for_longest() -> None:
    pool = Pool(1, 2)
    pool.add([1], 5)
    pool.add([2], 6)
    pool.add([1], 7)
    pool.add([3], 8)
    assert [pool.after([t]) for t in (1, 2, 3)] == [7, None, 8]


def test_a_draft_is_walked_through_what_the_text_holds() -> None:
    session = begin((1, 2, 3, 4, 1))
    assert session.propose(2, 4) == [3, 4, 1, 2]


def test_a_wrong_branch_is_remembered_and_used_elsewhere() -> None:
    session = begin((1,))
    assert session.propose(2, 2) == [2, 2], "nothing is known: the pending token"
    # After 2 2 the target says 6, after 2 2 2 it says 7: of a branch that was refused.
    session.observe(Commit(2, (5,), None, (5, 6, 7)))
    assert session.propose(5, 2) == [6, 7], "the Jacobi guesses of these places"
    session.observe(Commit(5, (2,), None, (2, 8, 9)))
    assert session.propose(2, 1) == [5], "what stands in the text outlives the branch"
    session.observe(Commit(2, (2,), None, (2, 4)))
    assert session.propose(2, 1) == [6], "2 2 was followed by 6 on the first branch"


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=12),
    st.integers(0, 2),
    st.integers(1, 6),
    st.integers(1, 3),
)
def test_a_walk_finds_what_a_search_finds(
    text: list[int], pending: int, budget: int, longest: int
) -> None:
    full = [*text, pending]
    for _ in range(budget):
        found = pending
        for n in range(min(longest, len(full)), 0, -1):
            ends = [e for e in range(n, len(text)) if text[e - n : e] == full[len(full) - n :]]
            if ends:
                found = text[ends[-1]]
                break
        full.append(found)
    assert begin(text, longest=longest).propose(pending, budget) == full[len(text) + 1 :]


def test_no_more_of_the_text_is_kept_than_an_n_gram_needs() -> None:
    session = begin(range(50), longest=2)
    session.observe(Commit(50, (51, 52), None, (51, 52)))
    assert session.text == [50, 51]


@pytest.mark.parametrize("name", ["longest", "pool_size"])
def test_sizes_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be >= 1, got 0"):
        LookaheadDrafter(**{name: 0})
