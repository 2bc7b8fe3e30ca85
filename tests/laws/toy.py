"""A language model without weights: a hash of the whole text picks a row of a table.

It works as a transformer does: each cell of its state holds one token at one position, each row of
a pass looks at all the cells it may see. So a cell that is stale, missing, moved or at a wrong
position changes the next token. Cells past a slot's length keep what they held, as in a real cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from floodstage.core.errors import ContextError, RollbackError
from floodstage.core.types import Commit, Draft, Forward, Request, TokenId

_ROWS = 509


def cell(token: TokenId, position: int) -> int:
    """What a token at a position adds to the hash of a text; not linear, so that order counts."""
    mixed = (token + 1) * 0x9E3779B1 ^ (position + 1) * 0x85EBCA6B
    return (mixed ^ mixed >> 15) * 0xC2B2AE35 % 2**31


class ToyState:
    """See `core.protocols.TargetState`."""

    def __init__(self, slots: int, capacity: int, taps: int) -> None:
        self.cells = [[0] * capacity for _ in range(slots)]
        self.capacity, self.taps = capacity, taps
        self.lengths: list[int] = []

    def read(
        self, slot: int, tokens: Sequence[TokenId], parents: Sequence[int] | None
    ) -> list[tuple[int, int]]:
        """Append tokens, the first one the root of the others; a cell and a hash for each."""
        if slot >= len(self.cells):
            raise ContextError(f"There is no slot {slot}.")
        if slot == len(self.lengths):
            self.lengths.append(0)
        base = self.lengths[slot]
        if base + len(tokens) > self.capacity:
            raise ContextError(f"{base + len(tokens)} tokens do not fit in {self.capacity} cells.")
        held = sum(self.cells[slot][:base])
        depths: list[int] = []
        hashes: list[int] = []
        for i, token in enumerate(tokens):
            above = i - 1 if parents is None or i == 0 else parents[i - 1] + 1
            depths.append(depths[above] + 1 if i else 0)
            value = cell(token, base + depths[i])
            hashes.append((hashes[above] if i else held) + value)
            self.cells[slot][base + i] = value
        self.lengths[slot] += len(tokens)
        return list(zip(self.cells[slot][base : base + len(tokens)], hashes, strict=True))

    def rollback(self, slot: int, length: int) -> None:
        if not 0 <= length <= self.lengths[slot]:
            raise RollbackError(f"Cannot roll back {self.lengths[slot]} tokens to {length}.")
        self.lengths[slot] = length

    def keep(self, slot: int, base: int, path: Sequence[int]) -> None:
        cells = self.cells[slot]
        for i, node in enumerate(path):
            cells[base + 1 + i] = cells[base + 1 + node]
        self.rollback(slot, base + 1 + len(path))

    def leave(self, slot: int) -> None:
        last = len(self.lengths) - 1
        self.cells[slot][:] = self.cells[last]
        self.lengths[slot] = self.lengths[last]
        self.lengths.pop()


class ToyTarget:
    """See `core.protocols.Target`. `blur` makes the same model a little wrong: it can draft."""

    trees = True
    device = torch.device("cpu")

    def __init__(
        self, vocab_size: int = 8, *, seed: int = 0, blur: float = 0.0, context: int = 4096
    ) -> None:
        table = 2 * torch.randn(_ROWS, vocab_size, generator=torch.Generator().manual_seed(seed))
        noise = torch.randn(table.shape, generator=torch.Generator().manual_seed(seed + 1))
        self.table = table + blur * noise
        self.vocab_size, self.context = vocab_size, context

    def begin(self, slots: int, capacity: int, *, taps: tuple[int, ...] = ()) -> ToyState:
        if capacity > self.context:
            raise ContextError(f"{capacity} tokens are more than the context of {self.context}.")
        return ToyState(slots, capacity, len(taps))

    def forward(
        self,
        state: ToyState,
        tokens: Sequence[Tensor],
        *,
        first: int = 0,
        parents: Sequence[tuple[int, ...] | None] | None = None,
        last_only: bool = False,
    ) -> Forward:
        rows: list[tuple[int, int]] = []
        last: list[int] = []
        for i, new in enumerate(tokens):
            rows += state.read(first + i, new.tolist(), parents[i] if parents else None)
            last.append(len(rows) - 1)
        wanted = [rows[i][1] for i in last] if last_only else [digest for _, digest in rows]
        taps = torch.tensor([value for value, _ in rows])[:, None].expand(-1, state.taps)
        return Forward(self.rows(wanted), taps if state.taps else None)

    def rows(self, hashes: Sequence[int]) -> Tensor:
        """[len(hashes), V] logits of texts with these hashes."""
        return self.table[[h % _ROWS for h in hashes]]


@dataclass(frozen=True)
class ToyBlock:
    """A drafter led by taps: it knows of the text only what the target's cells tell it.

    With `branches` it adds to every guess the runner-up, as a leaf before it.
    """

    model: ToyTarget
    draft_len: int = 7
    branches: bool = False
    name: str = "toy-block"
    taps: tuple[int, ...] = (1, 2)

    def begin(self, slots: int, capacity: int) -> ToyBlockSession:
        return ToyBlockSession(self)


class ToyBlockSession:
    """See `core.protocols.DraftSession`."""

    def __init__(self, drafter: ToyBlock) -> None:
        self.drafter = drafter
        self.seen: list[list[int]] = []

    def join(self, request: Request, taps: Tensor | None) -> None:
        assert taps is not None, "a drafter that asks for taps gets them"
        self.seen.append(taps[:, 0].tolist())

    def propose(self, pending: Sequence[TokenId], budgets: Sequence[int]) -> list[Draft]:
        return [self._draft(s, p, b) for s, p, b in zip(self.seen, pending, budgets, strict=True)]

    def _draft(self, seen: Sequence[int], pending: TokenId, budget: int) -> Draft:
        digest, tokens, parents, confidence = sum(seen), [], [], []
        token, at, depth = pending, -1, 0
        while len(tokens) < min(budget, self.drafter.draft_len):
            digest += cell(token, len(seen) + depth)
            law = self.drafter.model.rows([digest])[0].softmax(-1)
            best, second = law.topk(2).indices.tolist()
            guesses = [second, best] if self.drafter.branches else [best]
            for token in guesses[: budget - len(tokens)]:
                tokens.append(token)
                parents.append(at)
                confidence.append(float(law[token]))
            at, depth = len(tokens) - 1, depth + 1
        return Draft(
            torch.tensor(tokens, dtype=torch.long),
            tuple(parents) if self.drafter.branches else None,
            confidence=torch.tensor(confidence),
        )

    def observe(self, commits: Sequence[Commit]) -> None:
        for seen, commit in zip(self.seen, commits, strict=True):
            assert commit.taps is not None, "a drafter that asks for taps gets them"
            seen += commit.taps[:, 0].tolist()

    def leave(self, slot: int) -> None:
        last = self.seen.pop()
        if slot < len(self.seen):
            self.seen[slot] = last
