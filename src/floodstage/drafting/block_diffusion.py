"""Block drafting: one pass of a DFlash drafter fills a block, led by the target's taps.

The session keeps, per sequence, a cache of context keys and values for every committed position,
and the taps of those it has not read yet (a cycle without a draft only adds to them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from floodstage.core.errors import PairingError
from floodstage.core.slots import vacate
from floodstage.core.types import Commit, Draft, Request, TokenId
from floodstage.models.block_diffusion import BlockDiffusion


@dataclass(frozen=True, slots=True)
class BlockDiffusionDrafter:
    """A block is always filled at the length the net was trained on, and then cut: how many masks
    there are is part of what it learnt. A longer `draft_len` fills a longer block."""

    net: BlockDiffusion
    draft_len: int
    name: str = "block-diffusion"

    @property
    def taps(self) -> tuple[int, ...]:
        return self.net.config.taps

    def begin(self, slots: int, capacity: int) -> BlockDiffusionSession:
        return BlockDiffusionSession(self, slots, capacity)


class BlockDiffusionSession:
    """See `core.protocols.DraftSession`."""

    def __init__(self, drafter: BlockDiffusionDrafter, slots: int, capacity: int) -> None:
        self.net = drafter.net
        self.block = max(self.net.config.block_size, drafter.draft_len + 1)
        self.cache = self.net.begin(self, slots, capacity + self.block)
        self.unread: list[list[Tensor]] = []

    def join(self, request: Request, taps: Tensor | None) -> None:
        if taps is None:
            raise PairingError("A block-diffusion drafter needs taps of its target; got none.")
        self.unread.append([taps])
        self.cache.lengths.append(0)

    def propose(self, pending: Sequence[TokenId], budgets: Sequence[int]) -> list[Draft]:
        if max(budgets) == 0:
            return [self._draft(b) for b in budgets]
        taps = [t for unread in self.unread for t in unread]
        counts = [sum(t.shape[0] for t in unread) for unread in self.unread]
        tokens, confidence = self.net.draft(self.cache, taps, counts, pending, self.block)
        self.unread = [[] for _ in self.unread]
        return [self._draft(b, t, c) for b, t, c in zip(budgets, tokens, confidence, strict=True)]

    def _draft(
        self, budget: int, tokens: Tensor | None = None, confidence: Tensor | None = None
    ) -> Draft:
        if tokens is None or confidence is None:
            device = self.cache.keys[0].device
            return Draft(torch.empty(0, dtype=torch.long, device=device))
        return Draft(tokens[:budget], confidence=confidence[:budget])

    def observe(self, commits: Sequence[Commit]) -> None:
        for unread, commit in zip(self.unread, commits, strict=True):
            if commit.taps is not None:
                unread.append(commit.taps)

    def leave(self, slot: int) -> None:
        self.cache.leave(slot)
        vacate(self.unread, slot)
