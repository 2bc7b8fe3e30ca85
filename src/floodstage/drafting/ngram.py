"""Prompt lookup (Saxena 2023): copy what followed the last time the current n-gram was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from floodstage.core.errors import ConfigError
from floodstage.core.types import Commit, TokenId
from floodstage.drafting.each import EachSession


@dataclass(frozen=True, slots=True)
class NgramDrafter:
    """Looks up the last `longest` tokens, then fewer, down to `shortest`."""

    draft_len: int = 10
    longest: int = 3
    shortest: int = 1
    device: torch.device | str = "cpu"
    name: str = "ngram"
    taps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            raise ConfigError(
                "An n-gram drafter needs 1 <= shortest <= longest, "
                f"got {self.shortest!r} and {self.longest!r}."
            )

    def begin(self, slots: int, capacity: int) -> EachSession:
        return EachSession(lambda r: NgramSession(r.prompt, self), self.device)


class NgramSession:
    """An index from every n-gram to where it last ended, so that a look-up costs no search."""

    def __init__(self, prompt: Sequence[TokenId], drafter: NgramDrafter) -> None:
        self.drafter = drafter
        self.text: list[TokenId] = []
        self.ends: dict[tuple[TokenId, ...], int] = {}
        self._extend(prompt)

    def propose(self, pending: TokenId, budget: int) -> Sequence[TokenId]:
        return self.follow([pending], budget)

    def follow(self, unread: Sequence[TokenId], budget: int) -> list[TokenId]:
        """`budget` tokens after the text and the `unread` ones behind it, which are not in the
        index; none where no n-gram is found."""
        text = [*self.text[-self.drafter.longest :], *unread]
        for n in range(min(self.drafter.longest, len(text)), self.drafter.shortest - 1, -1):
            end = self.ends.get(tuple(text[-n:]))
            if end is not None:
                return self._copy(end, unread, budget)
        return []

    def _copy(self, start: int, unread: Sequence[TokenId], budget: int) -> list[TokenId]:
        """The text from `start` on, the unread tokens after it, and then the copy itself: a text
        that repeats itself goes on repeating."""
        tokens = [*self.text[start : start + budget], *unread][:budget]
        period = len(tokens)
        while len(tokens) < budget:
            tokens.append(tokens[-period])
        return tokens

    def observe(self, commit: Commit) -> None:
        self._extend([commit.pending, *commit.tokens[:-1]])

    def _extend(self, tokens: Sequence[TokenId]) -> None:
        for token in tokens:
            self.text.append(token)
            end = len(self.text)
            for n in range(self.drafter.shortest, min(self.drafter.longest, end) + 1):
                self.ends[tuple(self.text[end - n : end])] = end
