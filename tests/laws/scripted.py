"""Drafters that follow a script, and a scheduler that does: the corners no real one visits."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor

from floodstage.core.types import Commit, Draft, Proposal, Request, StepRecord, TokenId, TokenIds

Script = Callable[[TokenIds, int, TokenIds], "tuple[list[TokenId], tuple[int, ...] | None]"]
"""The text with its pending token, the budget, what truly follows -> tokens and parents."""


@dataclass(frozen=True)
class Scripted:
    """Knows the whole true `texts` (prompts included) and may use or abuse that."""

    script: Script
    texts: tuple[TokenIds, ...] = ()
    name: str = "scripted"
    draft_len: int = 16
    taps: tuple[int, ...] = ()

    def begin(self, slots: int, capacity: int) -> ScriptedSession:
        return ScriptedSession(self)


class ScriptedSession:
    """See `core.protocols.DraftSession`."""

    def __init__(self, drafter: Scripted) -> None:
        self.drafter = drafter
        self.said: list[TokenIds] = []

    def join(self, request: Request, taps: Tensor | None) -> None:
        self.said.append(request.prompt)

    def propose(self, pending: Sequence[TokenId], budgets: Sequence[int]) -> list[Draft]:
        drafts: list[Draft] = []
        for said, token, budget in zip(self.said, pending, budgets, strict=True):
            text = (*said, token)
            known = (t for t in self.drafter.texts if t[: len(text)] == text)
            tokens, parents = self.drafter.script(text, budget, next(known, text)[len(text) :])
            drafts.append(Draft(torch.tensor(tokens, dtype=torch.long), parents))
        return drafts

    def observe(self, commits: Sequence[Commit]) -> None:
        for slot, commit in enumerate(commits):
            self.said[slot] = (*self.said[slot], commit.pending, *commit.tokens[:-1])

    def leave(self, slot: int) -> None:
        self.said[slot] = self.said[-1]
        self.said.pop()


def right(text: TokenIds, budget: int, truth: TokenIds) -> tuple[list[TokenId], None]:
    return list(truth[:budget]), None


def wrong(text: TokenIds, budget: int, truth: TokenIds) -> tuple[list[TokenId], None]:
    return [token ^ 1 for token in truth[:budget]], None


def alternating(text: TokenIds, budget: int, truth: TokenIds) -> tuple[list[TokenId], None]:
    """Right, then wrong, by place in the text: no cut ever falls in the same phase for long."""
    return [t ^ (len(text) + i) % 3 // 2 for i, t in enumerate(truth[:budget])], None


def always(token: TokenId) -> Script:
    return lambda text, budget, truth: ([token] * budget, None)


def forest(text: TokenIds, budget: int, truth: TokenIds) -> tuple[list[TokenId], tuple[int, ...]]:
    """A random tree with the truth scattered in it: twins, dead ends and wrong roots included."""
    rng = random.Random(repr(text))
    tokens: list[TokenId] = []
    parents: list[int] = []
    tip, rest = -1, list(truth)
    for node in range(budget):
        if rest and rng.random() < 0.5:
            parents.append(tip)
            tokens.append(rest.pop(0))
            tip = node
        else:
            parents.append(rng.randrange(-1, node))
            tokens.append(rng.randrange(8))
    return tokens, tuple(parents)


class Turns:
    """A scheduler that asks for other lengths in turn; sequences of a batch get different ones."""

    name = "turns"
    needs_confidence = False

    def __init__(self, *lengths: int) -> None:
        self.lengths = cycle(lengths)

    def choose(self) -> int:
        return next(self.lengths)

    def cut(self, drafts: Sequence[Proposal]) -> list[int]:
        return [draft.size for draft in drafts]

    def observe(self, record: StepRecord) -> None:
        pass


class Recorder:
    """A drafter that notes what was proposed, and on which text."""

    def __init__(self, drafter: object) -> None:
        self.drafter = drafter
        self.name, self.taps = drafter.name, drafter.taps
        self.draft_len = drafter.draft_len
        self.notes: list[tuple[Request, TokenIds, TokenId, int, Draft]] = []

    def begin(self, slots: int, capacity: int) -> RecorderSession:
        self.slots, self.capacity = slots, capacity
        return RecorderSession(self, self.drafter.begin(slots, capacity))


class RecorderSession:
    """Keeps the book of slots on its own, by the words of `core.protocols`."""

    def __init__(self, recorder: Recorder, session: object) -> None:
        self.recorder, self.session = recorder, session
        self.said: list[tuple[Request, TokenIds]] = []

    def join(self, request: Request, taps: Tensor | None) -> None:
        self.said.append((request, request.prompt))
        self.session.join(request, taps)

    def propose(self, pending: Sequence[TokenId], budgets: Sequence[int]) -> Sequence[Draft]:
        drafts = self.session.propose(pending, budgets)
        for (request, text), p, b, draft in zip(self.said, pending, budgets, drafts, strict=True):
            self.recorder.notes.append((request, text, p, b, draft))
        return drafts

    def observe(self, commits: Sequence[Commit]) -> None:
        for slot, commit in enumerate(commits):
            request, text = self.said[slot]
            self.said[slot] = (request, (*text, commit.pending, *commit.tokens[:-1]))
        self.session.observe(commits)

    def leave(self, slot: int) -> None:
        self.said[slot] = self.said[-1]
        self.said.pop()
        self.session.leave(slot)
