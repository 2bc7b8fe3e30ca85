"""Jacobi guesses: which stand where after a pass, and what fills the rest of the window."""

from __future__ import annotations

import pytest

from floodstage.core.errors import ConfigError
from floodstage.core.types import Commit, Request
from floodstage.drafting.jacobi import Guesses, JacobiDrafter, JacobiSession


def after(*commits: Commit) -> list[int]:
    guesses = Guesses()
    for commit in commits:
        guesses.observe(commit)
    return guesses.tokens


def test_guesses_past_the_bonus_are_kept_and_shifted() -> None:
    """Draft 11 12 13 14, of which 11 is right: 22 is the bonus, and 23, 24, 25 were made for the
    three places after it."""
    assert after(Commit(10, (11, 22), None, (11, 22, 23, 24, 25))) == [23, 24, 25]


def test_a_whole_draft_leaves_no_guess() -> None:
    assert after(Commit(10, (11, 12, 13), None, (11, 12, 13))) == []


def test_without_a_draft_the_guesses_of_later_places_stay() -> None:
    first = Commit(10, (22,), None, (22, 23, 24, 25))
    assert after(first, Commit(22, (33,), None, (33,))) == [24, 25]


def test_a_draft_that_was_cut_renews_the_places_that_were_verified() -> None:
    first = Commit(10, (22,), None, (22, 23, 24, 25))  # 23 24 25 guessed; 23 alone is verified
    assert after(first, Commit(22, (33,), None, (33, 34))) == [34, 25]
    assert after(first, Commit(22, (23, 34), None, (23, 34))) == [25]


def test_a_verifier_without_guesses_leaves_those_that_are_left() -> None:
    first = Commit(10, (22,), None, (22, 23, 24, 25))
    assert after(first, Commit(22, (23, 9), None)) == [25]


def test_the_rest_of_the_window_repeats_the_pending_token() -> None:
    session = JacobiSession((1, 2), "repeat")
    assert session.propose(5, 3) == [5, 5, 5]
    session.observe(Commit(5, (6,), None, (6, 7, 8, 9)))
    assert session.propose(6, 5) == [7, 8, 9, 6, 6]
    assert session.propose(6, 2) == [7, 8]
    assert session.propose(6, 0) == []


def test_or_goes_on_by_the_n_gram_before_it() -> None:
    session = JacobiSession((1, 8, 9, 3, 4, 2), "ngram")
    assert session.propose(5, 2) == [5, 5], "no n-gram: the pending token"
    session.observe(Commit(5, (7,), None, (7, 8, 9)))
    assert session.propose(7, 4) == [8, 9, 3, 4], "8 9 is followed by 3 4"
    assert session.text is not None
    assert session.text.text == [1, 8, 9, 3, 4, 2, 5], "the bonus is still pending"


def test_sequences_keep_their_own_guesses_when_one_leaves() -> None:
    session = JacobiDrafter().begin(3, 16)
    for prompt in ((1,), (2,), (3,)):
        session.join(Request(prompt=prompt, max_new_tokens=4), None)
    session.propose([4, 5, 6], [2, 2, 2])
    session.observe([Commit(p, (p,), None, (p, 10 * p, 11 * p)) for p in (4, 5, 6)])
    session.leave(0)
    drafts = session.propose([6, 5], [2, 0])
    assert [d.tokens.tolist() for d in drafts] == [[60, 66], []]


def test_a_filling_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Unknown fill 'ngrams'\. Did you mean 'ngram'"):
        JacobiDrafter(fill="ngrams")
