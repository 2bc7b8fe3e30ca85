"""The seams. A room above may hold any object of these shapes; no room inherits from them.

Sequence i of a batch sits in slot i of every state. When one leaves, the last takes its slot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from floodstage.core.types import (
    Commit,
    Draft,
    Forward,
    Proposal,
    Request,
    StepRecord,
    TokenId,
    Verdict,
)

if TYPE_CHECKING:
    from torch import Tensor, device


class TargetState(Protocol):
    """A target's memory of a batch of sequences."""

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens held per slot, for the slots in use."""

    def rollback(self, slot: int, length: int) -> None:
        """Forget everything past `length` tokens, in O(1)."""

    def keep(self, slot: int, base: int, path: Sequence[int]) -> None:
        """Of the rows written at `base` keep the first (the pending token) and the tree nodes
        `path` (0-based draft indices, root first); forget the rest."""

    def leave(self, slot: int) -> None:
        """Forget the sequence in `slot`; the last sequence moves there."""


class Target(Protocol):
    """The model whose output counts."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def context(self) -> int:
        """Positions the model can address."""

    @property
    def device(self) -> device: ...
    @property
    def trees(self) -> bool:
        """Whether `parents` other than a chain are understood."""

    def begin(self, slots: int, capacity: int, *, taps: tuple[int, ...] = ()) -> TargetState:
        """An empty state for up to `slots` sequences of up to `capacity` tokens each."""

    def forward(
        self,
        state: Any,  # what `begin` of this very target gave
        tokens: Sequence[Tensor],
        *,
        first: int = 0,
        parents: Sequence[tuple[int, ...] | None] | None = None,
        last_only: bool = False,
    ) -> Forward:
        """Append `tokens[i]` ([r_i] int64) to slot `first + i` and give the packed logits.

        `parents[i]` makes rows 1.. of sequence i a tree under row 0 (see `Draft.parents`).
        """


class DraftSession(Protocol):
    """A drafter's memory of a batch of sequences."""

    def join(self, request: Request, taps: Tensor | None) -> None:
        """A sequence takes the next slot. `taps` [P, D] are those of its prompt."""

    def propose(self, pending: Sequence[TokenId], budgets: Sequence[int]) -> Sequence[Draft]:
        """For every slot a draft of at most `budgets[i]` nodes after `pending[i]`."""

    def observe(self, commits: Sequence[Commit]) -> None:
        """For every slot what the target kept."""

    def leave(self, slot: int) -> None:
        """Forget the sequence in `slot`; the last sequence moves there."""


class Drafter(Protocol):
    """What proposes. Weights, shared by all sequences."""

    @property
    def name(self) -> str: ...
    @property
    def taps(self) -> tuple[int, ...]:
        """Target layers (0-based) whose output it wants to see; empty for none."""

    @property
    def draft_len(self) -> int:
        """The most tokens one proposal usefully holds; 0 for none."""

    def begin(self, slots: int, capacity: int) -> DraftSession: ...


class Judge(Protocol):
    """A verifier's memory of one sequence: its random numbers and its history."""

    def first(self, logits: Tensor) -> Tensor:
        """[V] -> the token after the prompt, [] int64."""

    def look(self, draft: Draft, logits: Tensor) -> Tensor:
        """[k] draft, [k + 1, V] -> int64 numbers that `decide` needs, still on the device."""

    def decide(self, draft: Draft, numbers: list[int]) -> Verdict:
        """The numbers of `look`, now on the host -> what is kept."""


class Verifier(Protocol):
    """A rule that keeps part of a draft. `lossless`: the output follows the target's own law."""

    @property
    def name(self) -> str: ...
    @property
    def lossless(self) -> bool: ...
    def begin(self, request: Request, vocab_size: int, device: device) -> Judge: ...


class Scheduler(Protocol):
    """How much to draft, and after the draft how much of it to verify. Sees only records."""

    @property
    def name(self) -> str: ...
    @property
    def needs_confidence(self) -> bool:
        """Whether it looks at the drafter's confidence (costs one more copy to the host)."""

    def choose(self) -> int:
        """Tokens to draft in this cycle."""

    def cut(self, drafts: Sequence[Proposal]) -> Sequence[int]:
        """Of every live sequence's draft, how many nodes to verify: its first so many."""

    def observe(self, record: StepRecord) -> None: ...


Clock = Callable[[], float]
"""Seconds, monotonic. The one place where a device is synchronized."""
