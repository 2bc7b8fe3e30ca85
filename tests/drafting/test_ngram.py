"""Prompt lookup: the longest n-gram, its latest place, and what followed there."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floodstage.core.errors import ConfigError
from floodstage.core.types import Commit, Request
from floodstage.drafting.ngram import NgramDrafter, NgramSession


def propose(text: Sequence[int], pending: int, budget: int, **settings: int) -> list[int]:
    return list(NgramSession(text, NgramDrafter(**settings)).propose(pending, budget))


def searched(
    text: Sequence[int], pending: int, budget: int, longest: int, shortest: int
) -> list[int]:
    """The same by search: no index, no session."""
    full = [*text, pending]
    for n in range(min(longest, len(full)), shortest - 1, -1):
        for end in range(len(text), n - 1, -1):
            if full[end - n : end] == full[len(full) - n :]:
                found = full[end : end + budget]
                while len(found) < budget:  # a text that repeats itself goes on repeating
                    found.append(found[end - len(full)])
                return found
    return []


def test_it_copies_what_followed_the_last_time() -> None:
    assert propose([1, 2, 3, 4, 5, 9, 1, 2], 3, 2) == [4, 5]


def test_the_longest_match_wins_over_a_later_shorter_one() -> None:
    assert propose([1, 2, 3, 7, 0, 3, 8, 1, 2], 3, 1) == [7]


def test_the_latest_of_equal_matches_wins() -> None:
    assert propose([1, 2, 7, 0, 1, 2, 8, 0, 1], 2, 1) == [8]


def test_the_copy_runs_into_the_pending_token_and_then_into_itself() -> None:
    assert propose([4, 5], 4, 5) == [5, 4, 5, 4, 5]
    assert propose([4], 4, 5) == [4, 4, 4, 4, 4]


def test_without_a_match_there_is_no_draft() -> None:
    assert propose([1, 2, 3], 4, 5) == []
    assert propose([1, 2, 3, 1], 9, 5, shortest=1) == []
    assert propose([1, 2, 3, 9], 1, 5, shortest=2) == []


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=14),
    st.integers(0, 2),
    st.integers(1, 6),
    st.sampled_from([(1, 1), (3, 1), (4, 2)]),
)
def test_the_index_finds_what_a_search_finds(
    text: list[int], pending: int, budget: int, sizes: tuple[int, int]
) -> None:
    longest, shortest = sizes
    got = propose(text, pending, budget, longest=longest, shortest=shortest)
    assert got == searched(text, pending, budget, longest, shortest)


def test_what_is_observed_is_in_the_text() -> None:
    session = NgramSession([1, 2], NgramDrafter())
    session.observe(Commit(3, (4, 5), None))
    assert session.text == [1, 2, 3, 4]
    assert session.propose(3, 1) == [4]


def test_a_batch_session_drafts_nothing_on_a_budget_of_nothing() -> None:
    session = NgramDrafter().begin(2, 16)
    for prompt in ((1, 2, 1), (3, 3)):
        session.join(Request(prompt=prompt, max_new_tokens=4), None)
    drafts = session.propose([2, 3], [0, 2])
    assert [d.tokens.tolist() for d in drafts] == [[], [3, 3]]
    assert drafts[0].tokens.dtype == drafts[1].tokens.dtype
    session.leave(0)
    assert session.propose([3], [1])[0].tokens.tolist() == [3]


@pytest.mark.parametrize(("longest", "shortest"), [(0, 0), (2, 3), (3, 0)])
def test_sizes_out_of_range_are_refused(longest: int, shortest: int) -> None:
    with pytest.raises(ConfigError, match=f"got {shortest} and {longest}"):
        NgramDrafter(longest=longest, shortest=shortest)
