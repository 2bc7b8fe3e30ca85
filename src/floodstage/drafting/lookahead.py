"""Lookahead decoding (Fu et al. 2024), as far as a chain behind the drafter's seam takes it.

Every row of a verify pass says which token the target puts after some n-gram, on the text and on
the wrong branches of its Jacobi trajectory alike. A pool per sequence keeps that, and a draft is
walked through it, token after token; where the pool is silent the Jacobi guess of that place
stands. The published method refines its window in rows of their own beside the n-grams that it
verifies; here one chain is both. Knows no weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from floodstage.core.errors import ConfigError
from floodstage.core.types import Commit, TokenId
from floodstage.drafting.each import EachSession
from floodstage.drafting.jacobi import Guesses


@dataclass(frozen=True, slots=True)
class LookaheadDrafter:
    """Looks up the last `longest` tokens, then fewer, down to one. The pool of a sequence holds
    its latest `pool_size` n-grams. Raises ConfigError for a size below 1."""

    draft_len: int = 8
    longest: int = 3
    pool_size: int = 65536
    device: torch.device | str = "cpu"
    name: str = "lookahead"
    taps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, size in (("longest", self.longest), ("pool_size", self.pool_size)):
            if size < 1:
                raise ConfigError(f"{name} must be >= 1, got {size!r}.")

    def begin(self, slots: int, capacity: int) -> EachSession:
        return EachSession(lambda request: LookaheadSession(request.prompt, self), self.device)


class Pool:
    """The token that was last seen after each n-gram of up to `longest` tokens."""

    def __init__(self, longest: int, size: int) -> None:
        self.longest, self.size = longest, size
        self.next: dict[tuple[TokenId, ...], TokenId] = {}

    def add(self, before: Sequence[TokenId], token: TokenId) -> None:
        """`token` was seen after `before`; the oldest n-gram goes where there is no more room."""
        for gram in self._grams(before):
            self.next.pop(gram, None)  # so that it counts as new
            self.next[gram] = token
            if len(self.next) > self.size:
                del self.next[next(iter(self.next))]

    def after(self, before: Sequence[TokenId]) -> TokenId | None:
        """The token after the longest known n-gram that `before` ends in."""
        known = (self.next[gram] for gram in self._grams(before) if gram in self.next)
        return next(known, None)

    def _grams(self, before: Sequence[TokenId]) -> Iterator[tuple[TokenId, ...]]:
        """The ends of `before`, the longest first."""
        return (tuple(before[-n:]) for n in range(min(self.longest, len(before)), 0, -1))


class LookaheadSession:
    """One sequence; see `each.Solo`."""

    def __init__(self, prompt: Sequence[TokenId], drafter: LookaheadDrafter) -> None:
        self.guesses = Guesses()
        self.pool = Pool(drafter.longest, drafter.pool_size)
        self.text: list[TokenId] = []  # no more of its end than an n-gram needs
        self.draft: list[TokenId] = []
        self._read(prompt)

    def propose(self, pending: TokenId, budget: int) -> Sequence[TokenId]:
        text = [*self.text, pending]
        begin = len(text)
        for place in range(budget):
            token = self.pool.after(text)
            if token is None:
                guesses = self.guesses.tokens
                token = guesses[place] if place < len(guesses) else pending
            text.append(token)
        self.draft = text[begin:]
        return self.draft

    def observe(self, commit: Commit) -> None:
        self.guesses.observe(commit)
        text = [*self.text, commit.pending]
        # From the deepest row up, so that what stands in the text outlives the wrong branch.
        for row in range(len(commit.guesses) - 1, len(commit.tokens) - 1, -1):
            self.pool.add([*text, *self.draft[:row]], commit.guesses[row])
        self._read([commit.pending, *commit.tokens[:-1]])
        self.pool.add(self.text, commit.tokens[-1])

    def _read(self, tokens: Sequence[TokenId]) -> None:
        """Append to the text, and learn from it."""
        for token in tokens:
            self.pool.add(self.text, token)
            self.text = [*self.text, token][-self.pool.longest :]
