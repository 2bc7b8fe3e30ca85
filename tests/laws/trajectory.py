"""What holds for drafters that remember the target's guesses.

Their draft depends on the drafts that were verified before, so it is not that of a fresh session
on the same text. It is that of a fresh session fed the same proposals and commits, alone; and it
is what a search through everything the target said about this sequence finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from floodstage.core.protocols import Drafter, DraftSession, Target
from floodstage.core.types import Commit, Draft, Forward, Request, TokenId, TokenIds

from . import laws
from .laws import Case
from .toy import ToyState, ToyTarget


@dataclass(frozen=True)
class Event:
    """One cycle of one sequence."""

    pending: TokenId
    budget: int
    draft: TokenIds
    commit: Commit


@dataclass
class Life:
    """A sequence from its prompt on."""

    request: Request
    events: list[Event] = field(default_factory=list)

    def texts(self) -> list[TokenIds]:
        """Per event the text before its pending token."""
        out = [self.request.prompt]
        for event in self.events:
            out.append((*out[-1], event.pending, *event.commit.tokens[:-1]))
        return out[:-1]


class Diary:
    """A drafter that writes down the life of every sequence, with slots of its own book."""

    def __init__(self, drafter: Drafter) -> None:
        self.drafter = drafter
        self.name, self.taps, self.draft_len = drafter.name, drafter.taps, drafter.draft_len
        self.lives: list[Life] = []

    def begin(self, slots: int, capacity: int) -> DiarySession:
        return DiarySession(self, self.drafter.begin(slots, capacity))


class DiarySession:
    """See `core.protocols.DraftSession`."""

    def __init__(self, diary: Diary, session: DraftSession) -> None:
        self.diary, self.session = diary, session
        self.slots: list[Life] = []
        self.asked: list[tuple[TokenId, int, Draft]] = []

    def join(self, request: Request, taps: Tensor | None) -> None:
        self.slots.append(Life(request))
        self.diary.lives.append(self.slots[-1])
        self.session.join(request, taps)

    def propose(self, pending: Sequence[TokenId], budgets: Sequence[int]) -> Sequence[Draft]:
        drafts = self.session.propose(pending, budgets)
        self.asked = list(zip(pending, budgets, drafts, strict=True))
        return drafts

    def observe(self, commits: Sequence[Commit]) -> None:
        for life, (pending, budget, draft), commit in zip(
            self.slots, self.asked, commits, strict=True
        ):
            life.events.append(Event(pending, budget, tuple(draft.tokens.tolist()), commit))
        self.session.observe(commits)

    def leave(self, slot: int) -> None:
        self.slots[slot] = self.slots[-1]
        self.slots.pop()
        self.session.leave(slot)


def lives(case: Case) -> list[Life]:
    diary = Diary(case.drafter)
    laws.run(replace(case, drafter=diary))
    assert len(diary.lives) == len(case.requests)
    return diary.lives


def drafts_follow_from_the_sequences_own_commits(case: Case) -> None:
    """A fresh session that is fed one sequence's commits and nothing else drafts the same."""
    drafted = 0
    for life in lives(case):
        session = case.drafter.begin(1, 256)
        session.join(life.request, None)
        for event in life.events:
            (draft,) = session.propose([event.pending], [event.budget])
            assert tuple(draft.tokens.tolist()) == event.draft, life.request
            session.observe([event.commit])
            drafted += len(event.draft)
    assert drafted, "the case is too easy"


def drafts_are_what_a_search_finds(case: Case, longest: int = 0) -> None:
    """Greedy, every draft verified whole. By places of the text and passes of a fresh state: what
    did the target last say about this place, or, with `longest`, what came last after the n-gram
    before it?"""
    kept = 0
    for life in lives(case):
        book: dict[int, TokenId] = {}  # place in the text -> the target's latest token for it
        seen: list[tuple[TokenIds, TokenId]] = []  # what the target, or the text, put after what
        prompt = life.request.prompt
        seen += [(prompt[:i], prompt[i]) for i in range(len(prompt))]
        for text, event in zip(life.texts(), life.events, strict=True):
            so_far = (*text, event.pending)
            assert len(event.draft) == event.budget
            for token in event.draft:
                guess = book.get(len(so_far), event.pending)
                assert token == _search(seen, so_far, longest, guess), (life.request, so_far)
                kept += len(so_far) in book
                so_far = (*so_far, token)
            seen += _say(case.target, (*text, event.pending), event, book)
    assert kept, "the case is too easy"


def _search(
    seen: Sequence[tuple[TokenIds, TokenId]], text: TokenIds, longest: int, guess: TokenId
) -> TokenId:
    for n in range(min(longest, len(text)), 0, -1):
        for before, token in reversed(seen):
            if before[-n:] == text[-n:]:
                return token
    return guess


def _say(
    target: Target, text: TokenIds, event: Event, book: dict[int, TokenId]
) -> list[tuple[TokenIds, TokenId]]:
    """What the target says after the pending token and after every drafted one. On the wrong
    branch the deepest comes first; then the text in its order. `book` gets it by place."""
    branch = []
    for row in range(len(event.draft), -1, -1):
        before = (*text, *event.draft[:row])
        book[len(before)] = int(laws.fresh(target, before)[0].argmax())
        branch.append((before, book[len(before)]))
    after = (*text, *event.commit.tokens)
    return [
        *branch[: len(event.draft) + 1 - len(event.commit.tokens)],
        *((after[:i], after[i]) for i in range(len(text) - 1, len(after))),
    ]


class PlaceTarget(ToyTarget):
    """Says what its place says, whatever the text: every guess of it is right at once."""

    def forward(self, state: ToyState, tokens: Sequence[Tensor], **options: object) -> Forward:
        first = int(options.get("first", 0))
        held = [*state.lengths, 0]
        out = super().forward(state, tokens, **options)
        places = [
            base + i
            for base, new in zip(held[first:], tokens, strict=False)
            for i in range(len(new))
        ]
        if options.get("last_only"):
            places = places[-1:]
        return replace(out, logits=self.rows([7919 * place for place in places]))


def guesses_of_places_are_never_rejected(case: Case) -> None:
    """Where the text does not matter, the iteration is at its fixed point after one pass: a guess
    that is rejected stood at the wrong place. Filled places are not counted."""
    assert isinstance(case.target, PlaceTarget)
    kept = 0
    for life in lives(case):
        held = 0
        for event in life.events:
            accepted = len(event.commit.tokens) - 1
            assert accepted >= min(held, event.budget), life.request
            kept += min(held, event.budget)
            held = max(held, event.budget + 1) - len(event.commit.tokens)
    assert kept, "the case is too easy"
