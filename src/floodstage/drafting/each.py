"""For drafters that need no tensors: one small session per sequence, looked after together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch

from floodstage.core.slots import vacate
from floodstage.core.types import Commit, Draft, Request, TokenId

if TYPE_CHECKING:
    from torch import Tensor


class Solo(Protocol):
    """The memory of one sequence."""

    def propose(self, pending: TokenId, budget: int) -> Sequence[TokenId]: ...
    def observe(self, commit: Commit) -> None: ...


class EachSession:
    """A `core.protocols.DraftSession` made of `Solo` sessions."""

    def __init__(self, begin: Callable[[Request], Solo], device: torch.device | str) -> None:
        self.begin, self.device = begin, device
        self.solos: list[Solo] = []

    def join(self, request: Request, taps: Tensor | None) -> None:
        self.solos.append(self.begin(request))

    def propose(self, pending: Sequence[TokenId], budgets: Sequence[int]) -> list[Draft]:
        return [
            Draft(
                torch.tensor(
                    list(solo.propose(p, b)) if b else [], dtype=torch.long, device=self.device
                )
            )
            for solo, p, b in zip(self.solos, pending, budgets, strict=True)
        ]

    def observe(self, commits: Sequence[Commit]) -> None:
        for solo, commit in zip(self.solos, commits, strict=True):
            solo.observe(commit)

    def leave(self, slot: int) -> None:
        vacate(self.solos, slot)
