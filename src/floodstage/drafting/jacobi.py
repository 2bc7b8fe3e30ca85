"""Jacobi decoding (Santilli et al. 2023) as a drafter: the verify pass is the iteration.

A pass over the pending token and a draft gives the target's own token after every one of them.
Those up to the bonus are committed; those past it, made behind a wrong token, are the next iterate
of the same places and become the next draft. Knows no weights, and learns from guesses alone: a
verifier that gives none (`reject`) leaves it with the filling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from floodstage.core.errors import unknown
from floodstage.core.types import Commit, TokenId
from floodstage.drafting.each import EachSession
from floodstage.drafting.ngram import NgramDrafter, NgramSession

FILLS = ("repeat", "ngram")


@dataclass(frozen=True, slots=True)
class JacobiDrafter:
    """A window of `draft_len` tokens after the pending one. Places that no pass has looked at are
    filled with the pending token (`repeat`) or with what followed the last time the n-gram before
    them was written (`ngram`; the pending token where there was none).

    Raises ConfigError for an unknown `fill`.
    """

    draft_len: int = 8
    fill: str = "repeat"
    device: torch.device | str = "cpu"
    name: str = "jacobi"
    taps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.fill not in FILLS:
            raise unknown("fill", self.fill, FILLS)

    def begin(self, slots: int, capacity: int) -> EachSession:
        return EachSession(lambda request: JacobiSession(request.prompt, self.fill), self.device)


@dataclass(slots=True)
class Guesses:
    """The iterate: the target's latest token for each place after the pending one."""

    tokens: list[TokenId] = field(default_factory=list)

    def observe(self, commit: Commit) -> None:
        # guesses[j] stands j + 1 places after the old pending token; the new one is the bonus,
        # len(tokens) places after it. A place that was not verified keeps what it had.
        gained, seen = len(commit.tokens), len(commit.guesses)
        self.tokens = [*commit.guesses[gained:], *self.tokens[max(gained, seen) :]]


class JacobiSession:
    """One sequence; see `each.Solo`."""

    def __init__(self, prompt: Sequence[TokenId], fill: str) -> None:
        self.guesses = Guesses()
        self.text = NgramSession(prompt, NgramDrafter()) if fill == "ngram" else None

    def propose(self, pending: TokenId, budget: int) -> Sequence[TokenId]:
        draft = self.guesses.tokens[:budget]
        if self.text is not None:
            draft += self.text.follow([pending, *draft], budget - len(draft))
        return draft + [pending] * (budget - len(draft))

    def observe(self, commit: Commit) -> None:
        self.guesses.observe(commit)
        if self.text is not None:
            self.text.observe(commit)
