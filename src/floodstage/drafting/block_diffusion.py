"""Block drafting: one pass of a DFlash drafter fills a block, led by the target's taps.

The session keeps, per sequence, a cache of context keys and values for every committed position,
and the taps of those it has not read yet (a cycle without a draft only adds to them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from floodstage.core.errors import ConfigError, PairingError
from floodstage.core.slots import vacate
from floodstage.core.types import Commit, Draft, Request, TokenId
from floodstage.drafting.candidates import Adaptive, Shape, Tree
from floodstage.drafting.seeding import Seeding
from floodstage.models.block_diffusion import BlockDiffusion
from floodstage.models.cache import upload


@dataclass(frozen=True, slots=True)
class BlockDiffusionDrafter:
    """A block is always filled at the length the net was trained on, and then cut: how many masks
    there are is part of what it learnt. A longer `depth` fills a longer block.

    `depth` is the most tokens on a path (default: those of the trained block). With `candidates`
    a draft is a tree of up to `draft_len` nodes, without one a chain of up to `depth`.
    """

    net: BlockDiffusion
    depth: int = 0
    candidates: Shape | Adaptive | None = None
    seeding: Seeding = field(default_factory=Seeding)
    name: str = "block-diffusion"

    def __post_init__(self) -> None:
        if self.candidates is not None and self.seeding.mode != "none":
            raise ConfigError("Give candidates or seeding, not both: each makes its own drafts.")

    @property
    def taps(self) -> tuple[int, ...]:
        return self.net.config.taps

    @property
    def path(self) -> int:
        """The most tokens on a path."""
        return self.depth or self.net.config.draft_len

    @property
    def trees(self) -> bool:
        """Whether its drafts may be trees."""
        return self.candidates is not None or self.seeding.mode == "branch"

    @property
    def draft_len(self) -> int:
        if self.seeding.mode == "branch":
            return 2 * self.path
        return self.path + (0 if self.shape is None else self.shape.extra(self.path))

    @property
    def shape(self) -> Shape | None:
        return self.candidates.shape if isinstance(self.candidates, Adaptive) else self.candidates

    def begin(self, slots: int, capacity: int) -> BlockDiffusionSession:
        return BlockDiffusionSession(self, slots, capacity)


@dataclass(slots=True)
class Memory:
    """What the session knows of one sequence, its cache apart."""

    unread: list[Tensor]  # taps of committed positions that the net has not read
    draft: Tensor  # the greedy chain of the last block, [k]
    shown: int = 0  # how much of it was drafted
    recycled: Tensor | None = None
    cycle: int = 0
    kept: float = 0.0  # share of the last draft's depth that was accepted


class BlockDiffusionSession:
    """See `core.protocols.DraftSession`."""

    def __init__(self, drafter: BlockDiffusionDrafter, slots: int, capacity: int) -> None:
        self.drafter, self.net = drafter, drafter.net
        self.block = max(self.net.config.block_size, drafter.path + 1)
        self.cache = self.net.begin(self, slots, capacity + self.block)
        self.nothing = torch.empty(0, dtype=torch.long, device=self.cache.keys[0].device)
        self.memories: list[Memory] = []

    def join(self, request: Request, taps: Tensor | None) -> None:
        if taps is None:
            raise PairingError("A block-diffusion drafter needs taps of its target; got none.")
        self.memories.append(Memory([taps], self.nothing))
        self.cache.lengths.append(0)

    def propose(self, pending: Sequence[TokenId], budgets: Sequence[int]) -> list[Draft]:
        for memory in self.memories:
            memory.draft, memory.shown = self.nothing, 0
        if max(budgets) == 0:
            return [Draft(self.nothing) for _ in budgets]
        taps = [t for memory in self.memories for t in memory.unread]
        counts = [sum(t.shape[0] for t in memory.unread) for memory in self.memories]
        block = self.net.blank(pending, self.block)
        seeded = [self._seed(row, m) for row, m in zip(block, self.memories, strict=True)]
        shape = self.drafter.shape
        top = 1 if shape is None else shape.top_k
        tokens, probs = self.net.draft(self.cache, taps, counts, block, top)
        for memory, row in zip(self.memories, tokens, strict=True):
            memory.unread, memory.draft = [], row[:, 0]
        if shape is not None:
            return self._trees(shape, tokens, probs, budgets)
        return [
            self._chain(m, p[:, 0], budget, count)
            for m, p, budget, count in zip(self.memories, probs, budgets, seeded, strict=True)
        ]

    def _seed(self, block: Tensor, memory: Memory) -> int:
        if memory.recycled is None:
            return 0
        return self.drafter.seeding.place(block, memory.recycled)

    def _chain(self, memory: Memory, confidence: Tensor, budget: int, seeded: int) -> Draft:
        memory.shown = min(budget, self.drafter.path)
        tokens, confidence = memory.draft[: memory.shown], confidence[: memory.shown]
        old = memory.recycled
        if self.drafter.seeding.mode != "branch" or old is None or not old.shape[0]:
            return Draft(tokens, confidence=confidence, seeded=seeded)
        tree = Tree()
        tree.add_path(tokens.tolist(), confidence.tolist(), budget)
        before = len(tree.tokens)
        # What was drafted behind a wrong token is worth less than the same place is now.
        behind = list(zip(old.tolist(), confidence.tolist(), strict=False))
        tree.add_path([t for t, _ in behind], [0.5 * c for _, c in behind], budget)
        return self._tree(tree, seeded=len(tree.tokens) - before)

    def _trees(
        self, shape: Shape, tokens: Tensor, probs: Tensor, budgets: Sequence[int]
    ) -> list[Draft]:
        ids, chances = tokens.tolist(), probs.tolist()
        drafts: list[Draft] = []
        for memory, budget, t, p in zip(self.memories, budgets, ids, chances, strict=True):
            effort = None
            if isinstance(self.drafter.candidates, Adaptive):
                effort = self.drafter.candidates.effort(memory.cycle, memory.kept)
            # A path longer than what the sequence may still get would be verified for nothing.
            path = memory.shown = min(self.drafter.path, budget)
            drafts.append(self._tree(shape.grow(t[:path], p[:path], budget, effort)))
        return drafts

    def _tree(self, tree: Tree, seeded: int = 0) -> Draft:
        if not tree.tokens:
            return Draft(self.nothing)
        tree = tree.likeliest_first()
        device = self.nothing.device
        return Draft(
            upload(torch.tensor(tree.tokens, dtype=torch.long), device),
            tuple(tree.parents),
            confidence=upload(torch.tensor(tree.chances), device),
            seeded=seeded,
        )

    def observe(self, commits: Sequence[Commit]) -> None:
        for memory, commit in zip(self.memories, commits, strict=True):
            if commit.taps is not None:
                memory.unread.append(commit.taps)
            accepted = len(commit.tokens) - 1
            memory.recycled = None
            if memory.shown:
                memory.cycle += 1
                memory.kept = accepted / memory.shown
                if accepted < memory.shown:
                    memory.recycled = self.drafter.seeding.recycled(memory.draft, accepted)

    def leave(self, slot: int) -> None:
        self.cache.leave(slot)
        vacate(self.memories, slot)
