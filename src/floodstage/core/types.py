"""The records that flow between rooms. Values only: no behaviour, no tensors made here.

Shapes: n sequences are active; sequence i brings r_i rows (its pending token and its draft) to a
target pass; N = sum r_i rows are *packed* one after another; V is the vocabulary, D the tap width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from floodstage.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

TokenId: TypeAlias = int
TokenIds: TypeAlias = "tuple[TokenId, ...]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a token is drawn from logits. The default is greedy.

    The order is that of transformers: repetition penalty, temperature, top-k, top-p, min-p.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        bounds = {
            "temperature": (self.temperature >= 0.0, ">= 0"),
            "top_k": (self.top_k >= 0, ">= 0 (0 is off)"),
            "top_p": (0.0 < self.top_p <= 1.0, "in (0, 1]"),
            "min_p": (0.0 <= self.min_p <= 1.0, "in [0, 1] (0 is off)"),
            "repetition_penalty": (self.repetition_penalty > 0.0, "> 0 (1 is off)"),
        }
        for name, (ok, want) in bounds.items():
            if not ok:
                raise ConfigError(f"{name} must be {want}, got {getattr(self, name)!r}.")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One text to continue: what the loop needs to know, and nothing about words."""

    prompt: TokenIds
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop_ids: frozenset[TokenId] = frozenset()
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ConfigError("The prompt is empty: give at least one token to continue.")
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens must be >= 1, got {self.max_new_tokens!r}.")


@dataclass(frozen=True, slots=True)
class Forward:
    """One target pass over packed rows."""

    logits: Tensor  # [N, V], or [n, V] when only each sequence's last row was asked for
    taps: Tensor | None = None  # [N, D] hidden states a drafter asked for


@dataclass(frozen=True, slots=True)
class Draft:
    """Tokens guessed to follow the pending token, as a tree.

    `parents[i]` is the index of the node that token i follows, -1 for the pending token; a parent
    comes before its children. None is the chain -1, 0, 1, ... `probs` are the probabilities each
    token was drawn from; None means the guess was certain (an argmax, a copy). `confidence` may
    depend on the tokens before its own, never on a token that was drawn: a draft cut because of
    the token it cuts is no longer drawn from `probs`, and `reject` would not be exact.
    """

    tokens: Tensor  # [k] int64, on the target's device
    parents: tuple[int, ...] | None = None
    probs: Tensor | None = None  # [k, V]
    confidence: Tensor | None = None  # [k] the drafter's probability of its likeliest token
    seeded: int = 0  # tokens of an earlier, rejected draft that this one was made from

    def __len__(self) -> int:
        return self.tokens.shape[0]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a scheduler sees of a draft: its shape and how sure the drafter is, no tokens.

    `confidence` is empty where the scheduler did not ask for it or the drafter has none.
    """

    size: int
    confidence: tuple[float, ...] = ()
    parents: tuple[int, ...] | None = None  # see Draft


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the target made of a draft: a kept path from the root, and one token of its own."""

    path: tuple[int, ...]  # indices of accepted draft nodes, root first; a chain's are 0..A-1
    tokens: TokenIds  # the accepted tokens, then the bonus
    guesses: TokenIds = ()  # the target's own token after the pending one and after every node


@dataclass(frozen=True, slots=True)
class Commit:
    """What became true for one sequence in one cycle; all that a drafter learns from."""

    pending: TokenId  # the token the draft followed
    tokens: TokenIds  # accepted tokens, then the bonus: the next pending
    taps: Tensor | None  # [len(tokens), D] of the pending and the accepted tokens
    guesses: TokenIds = ()  # see Verdict


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one cycle cost one sequence and gained it; all that a scheduler or a table sees.

    Seconds are wall time of the whole cycle, shared by the `batch` sequences in it.
    """

    drafted: int  # nodes proposed
    verified: int  # nodes shown to the target after the scheduler's cut
    accepted: int
    batch: int
    draft_s: float
    verify_s: float
    judge_s: float = 0.0
    prefill: bool = False
    confidence: tuple[float, ...] = ()
    emitted: int | None = None  # tokens the sequence got, where its end cut some of them off
    depth: int | None = None  # longest path of a verified tree; None: a chain, so `verified`
    rows: int = 0  # rows of the whole batch in this target pass
    seeded: int = 0  # see Draft
    path: TokenIds | None = None  # accepted nodes of a tree; None: a chain, so the first

    @property
    def gained(self) -> int:
        return self.accepted + 1 if self.emitted is None else self.emitted

    @property
    def reach(self) -> int:
        """The most tokens that could have been accepted."""
        return self.verified if self.depth is None else self.depth

    @property
    def cycle_s(self) -> float:
        return self.draft_s + self.verify_s + self.judge_s


@dataclass(frozen=True, slots=True)
class Step:
    """What one sequence got from one cycle. `tokens` end at a stop id or at the limit."""

    sequence: int  # the number the sequence got when it joined
    tokens: TokenIds
    accepted: int  # how many of `tokens`, from the left, were drafted
    record: StepRecord
    finish: str | None = None  # None: goes on; "stop": a stop id; "length": the limit
