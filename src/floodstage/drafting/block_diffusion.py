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
from floodstage.models.cache import KVCache, plan_rows


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
        body, embedding = self.net.config.body, self.net.target.model.embed_tokens.weight
        self.net.rotary.reserve(capacity + self.block, embedding)
        self.cache = KVCache.empty(
            body.layers,
            slots,
            body.kv_heads,
            capacity + self.block,
            body.head_dim,
            dtype=embedding.dtype,
            device=embedding.device,
        )
        self.unread: list[list[Tensor]] = []

    def join(self, request: Request, taps: Tensor | None) -> None:
        if taps is None:
            raise PairingError("A block-diffusion drafter needs taps of its target; got none.")
        self.unread.append([taps])
        self.cache.lengths.append(0)

    def propose(self, pending: Sequence[TokenId], budgets: Sequence[int]) -> list[Draft]:
        if max(budgets) == 0:
            return [self._draft(b) for b in budgets]
        self._read()
        logits = self.net.fill(self.cache, pending, self.block)
        tokens = logits.argmax(-1)  # [n, B - 1]
        confidence = logits.float().softmax(-1).amax(-1)
        return [self._draft(b, t, c) for b, t, c in zip(budgets, tokens, confidence, strict=True)]

    def _draft(
        self, budget: int, tokens: Tensor | None = None, confidence: Tensor | None = None
    ) -> Draft:
        if tokens is None or confidence is None:
            device = self.cache.keys[0].device
            return Draft(torch.empty(0, dtype=torch.long, device=device))
        return Draft(tokens[:budget], confidence=confidence[:budget])

    def _read(self) -> None:
        """Bring the context cache up to the committed text."""
        fresh = [t for taps in self.unread for t in taps]
        counts = [sum(t.shape[0] for t in taps) for taps in self.unread]
        if not fresh:
            return
        context = self.net.context(fresh[0] if len(fresh) == 1 else torch.cat(fresh))
        bases = self.cache.extend(0, counts)
        rows = plan_rows(bases, counts, device=context.device)
        self.net.remember(self.cache, context, rows)
        self.unread = [[] for _ in self.unread]

    def observe(self, commits: Sequence[Commit]) -> None:
        for unread, commit in zip(self.unread, commits, strict=True):
            if commit.taps is not None:
                unread.append(commit.taps)

    def leave(self, slot: int) -> None:
        self.cache.leave(slot)
        vacate(self.unread, slot)
