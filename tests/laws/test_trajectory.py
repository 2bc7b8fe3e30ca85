"""The laws of drafters that remember the target's guesses, and bugs that they must catch."""
# ruff: noqa: E501 (a bug is a line)

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest

from floodstage.drafting import each
from floodstage.drafting.jacobi import Guesses, JacobiDrafter
from floodstage.drafting.lookahead import LookaheadDrafter, LookaheadSession, Pool

from . import laws, trajectory
from .cases import SCHEDULERS, TOY, TRAJECTORY, WARM, requests
from .laws import Case
from .test_mutants import Mutant, around, instead, no_swap
from .tiny import tiny_target
from .trajectory import PlaceTarget


@cache
def own(drafter: str, scheduler: str = "7", slots: int = 3) -> Callable[[], None]:
    def law() -> None:
        case = Case(
            target=TOY,
            drafter=TRAJECTORY[drafter],
            requests=requests(WARM),
            scheduler=SCHEDULERS[scheduler],
            slots=slots,
        )
        trajectory.drafts_follow_from_the_sequences_own_commits(case)

    return law


@cache
def searched(drafter: str, scheduler: str = "7", slots: int = 1, *, tiny: bool = False):
    def law() -> None:
        case = Case(
            target=tiny_target() if tiny else TOY,
            drafter={"jacobi": JacobiDrafter(), "lookahead": LookaheadDrafter(longest=2)}[drafter],
            requests=requests(),
            scheduler=SCHEDULERS[scheduler],
            slots=slots,
        )
        trajectory.drafts_are_what_a_search_finds(case, 2 if drafter == "lookahead" else 0)

    return law


@cache
def placed(scheduler: str = "7") -> Callable[[], None]:
    def law() -> None:
        case = Case(
            target=PlaceTarget(),
            drafter=TRAJECTORY["jacobi"],
            requests=requests(),
            scheduler=SCHEDULERS[scheduler],
            slots=3,
        )
        trajectory.guesses_of_places_are_never_rejected(case)

    return law


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("scheduler", ["1", "7", "confidence", "turns"])
@pytest.mark.parametrize("drafter", TRAJECTORY)
def test_a_draft_follows_from_the_sequences_own_commits(
    drafter: str, scheduler: str, slots: int
) -> None:
    own(drafter, scheduler, slots)()


@pytest.mark.parametrize("tiny", [False, True], ids=["toy", "transformer"])
@pytest.mark.parametrize(("scheduler", "slots"), [("7", 1), ("turns", 1), ("turns", 3)])
@pytest.mark.parametrize("drafter", ["jacobi", "lookahead"])
def test_a_draft_is_what_a_search_finds(
    drafter: str, scheduler: str, slots: int, tiny: bool
) -> None:
    searched(drafter, scheduler, slots, tiny=tiny)()


@pytest.mark.parametrize("scheduler", ["1", "7", "turns"])
def test_a_guess_of_a_place_is_never_rejected(scheduler: str) -> None:
    placed(scheduler)()


@pytest.mark.parametrize("drafter", TRAJECTORY)
def test_a_stop_id_among_the_guesses_ends_nothing(drafter: str) -> None:
    """Only one that is committed ends a text; the guesses behind it are forgotten with it."""
    (free, *_) = requests(sizes=(40,))
    guessed = {
        token
        for event in trajectory.lives(
            Case(target=TOY, drafter=TRAJECTORY[drafter], requests=(free,))
        )[0].events
        for token in event.commit.guesses[len(event.commit.tokens) :]
    }
    out = laws.own_text(TOY, free)
    late = [t for t in guessed if t in out and out.index(t) >= 8]
    assert late, "the case is too easy"
    for stop in late:
        case = Case(
            target=TOY,
            drafter=TRAJECTORY[drafter],
            requests=requests(sizes=(40, 11, 40), stop_ids=frozenset({stop})),
            slots=2,
        )
        laws.output_ends_where_it_should(case)
        laws.greedy_output_is_the_targets_own(case)
        trajectory.drafts_follow_from_the_sequences_own_commits(case)


def test_the_cases_hold_kept_and_rejected_guesses() -> None:
    for drafter in TRAJECTORY:
        case = Case(target=TOY, drafter=TRAJECTORY[drafter], requests=requests())
        events = [e for life in trajectory.lives(case) for e in life.events if e.draft]
        assert any(len(e.commit.tokens) > 1 for e in events)
        assert any(len(e.commit.tokens) == 1 for e in events)
        assert any(a.draft != b.draft for a, b in pairwise(events))


# --- The bugs ------------------------------------------------------------------------------------


def a_place_too_early(observe, guesses, commit):
    observe(guesses, commit)
    guesses.tokens = [commit.tokens[-1], *guesses.tokens]


def a_place_too_late(observe, guesses, commit):
    observe(guesses, commit)
    del guesses.tokens[:1]


def the_bonus_again(guesses, commit):
    guesses.tokens = list(commit.guesses[len(commit.tokens) - 1 :])


def the_stale_iterate(guesses, commit):
    """The draft behind the bonus instead of what the target said about it."""
    gained = len(commit.tokens)
    guesses.tokens = guesses.tokens[gained:] or list(commit.guesses[gained:])


def unverified_places_move(guesses, commit):
    gained, seen = len(commit.tokens), len(commit.guesses)
    guesses.tokens = [*commit.guesses[gained:], *guesses.tokens[seen - 1 :]]


def forgets_unverified_places(guesses, commit):
    guesses.tokens = list(commit.guesses[len(commit.tokens) :])


EVERYBODYS: dict[tuple[int, ...], int] = {}


def one_pool_for_all(init, pool, longest, size):
    init(pool, longest, size)
    pool.next = EVERYBODYS


def the_wrong_branch_wins(observe, session, commit):
    """Rows are learnt from the top, so a guess overwrites what stands in the text."""
    draft, text = list(session.draft), [*session.text, commit.pending]
    observe(session, commit)
    for row in range(len(commit.guesses)):
        session.pool.add([*text, *draft[:row]], commit.guesses[row])


def the_row_after(observe, session, commit):
    """A guess is learnt as what follows the token that it was to replace."""
    session.draft = session.draft[1:]
    observe(session, commit)


def the_first_n_gram_stays(add, pool, before, token):
    if tuple(before[-pool.longest :]) not in pool.next:
        add(pool, before, token)


def without_the_bonus(observe, session, commit):
    observe(session, commit)
    for gram in session.pool._grams(session.text):
        session.pool.next.pop(gram, None)


MUTANTS = [
    Mutant("guesses stand a place too early", around(Guesses, "observe", a_place_too_early), searched("jacobi")),
    Mutant("guesses stand a place too late", around(Guesses, "observe", a_place_too_late), searched("jacobi")),
    Mutant("guesses stand a place too late, by their fixed point", around(Guesses, "observe", a_place_too_late), placed()),
    Mutant("the bonus is drafted after itself", instead(Guesses, "observe", the_bonus_again), searched("jacobi")),
    Mutant("stale guesses after the bonus", instead(Guesses, "observe", the_stale_iterate), searched("jacobi")),
    Mutant("guesses of unverified places move", instead(Guesses, "observe", unverified_places_move), searched("jacobi", "turns")),
    Mutant("guesses of unverified places are lost", instead(Guesses, "observe", forgets_unverified_places), searched("jacobi", "turns")),
    Mutant("jacobi slots are not swapped on leave", instead(each, "vacate", no_swap), own("jacobi")),
    Mutant("lookahead slots are not swapped on leave", instead(each, "vacate", no_swap), own("lookahead")),
    Mutant("a pool is shared between sequences", around(Pool, "__init__", one_pool_for_all), own("lookahead")),
    Mutant("a wrong branch outlives the text", around(LookaheadSession, "observe", the_wrong_branch_wins), searched("lookahead")),
    Mutant("a guess is learnt after the wrong token", around(LookaheadSession, "observe", the_row_after), searched("lookahead")),
    Mutant("the first n-gram wins, not the latest", around(Pool, "add", the_first_n_gram_stays), searched("lookahead")),
    Mutant("the pool does not know the pending token", around(LookaheadSession, "observe", without_the_bonus), searched("lookahead")),
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.bug)
def test_a_planted_bug_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    EVERYBODYS.clear()
    with monkeypatch.context() as patch:
        mutant.plant(patch)
        with pytest.raises(AssertionError):
            mutant.law()
