"""Verifiers: what is kept of a draft, so that the output follows the target's own law.

`match` lets the target draw its own token at every place and keeps the draft while it is equal;
`reject` keeps a draft token with probability min(1, p/q) (Leviathan et al. 2023). Both are exact
at every temperature. With `match` the text is even the same, token for token, as without a draft:
see `noise`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from floodstage.core.errors import ConfigError
from floodstage.core.types import Draft, Request, Verdict
from floodstage.decoding.noise import NoiseStream
from floodstage.models.cache import ancestry
from floodstage.ops.acceptance import reject, walk
from floodstage.ops.sampling import adjust, gumbel, probabilities

if TYPE_CHECKING:
    from floodstage.core.protocols import Verifier


@dataclass(frozen=True, slots=True)
class MatchVerifier:
    """Keep a draft while it equals the tokens the target draws for itself. Chains and trees."""

    name: str = "match"
    lossless: bool = True

    def begin(self, request: Request, vocab_size: int, device: torch.device) -> MatchJudge:
        return MatchJudge(request, vocab_size, device)


class MatchJudge:
    """See `core.protocols.Judge`."""

    def __init__(self, request: Request, vocab_size: int, device: torch.device) -> None:
        self.sampling = request.sampling
        self.history = History(request, vocab_size, device)
        self.noise = None if self.sampling.greedy else NoiseStream(request.seed, vocab_size, device)
        self.written = 0

    def first(self, logits: Tensor) -> Tensor:
        token = self._own(logits[None], self.history.before(None), [0])[0]
        self.history.add((int(token),))
        self.written = 1
        return token

    def look(self, draft: Draft, logits: Tensor) -> Tensor:
        depths = list(range(len(draft) + 1))
        if draft.parents is not None and self.noise is not None:
            depths = ancestry(draft.parents, len(draft) + 1)[0].tolist()
        own = self._own(logits, self.history.before(draft), [self.written + d for d in depths])
        return torch.cat([draft.tokens, own])

    def decide(self, draft: Draft, numbers: list[int]) -> Verdict:
        size = len(draft)
        tokens, own = numbers[:size], numbers[size:]
        path = walk(tokens, own, draft.parents)
        bonus = own[path[-1] + 1 if path else 0]
        kept = (*(tokens[node] for node in path), bonus)
        self.history.add(kept)
        self.written += len(kept)
        if self.noise is not None:
            self.noise.forget(self.written)
        return Verdict(path, kept, tuple(own))

    def _own(self, logits: Tensor, seen: Tensor | None, positions: list[int]) -> Tensor:
        logits = adjust(logits, self.sampling, seen)
        if self.noise is not None:
            logits = logits + self.noise.rows(positions)
        return logits.argmax(-1)


@dataclass(frozen=True, slots=True)
class RejectVerifier:
    """Keep a draft token with probability min(1, p/q), else draw from the rest. Chains only."""

    name: str = "reject"
    lossless: bool = True

    def begin(self, request: Request, vocab_size: int, device: torch.device) -> RejectJudge:
        return RejectJudge(request, vocab_size, device)


class RejectJudge:
    """See `core.protocols.Judge`."""

    def __init__(self, request: Request, vocab_size: int, device: torch.device) -> None:
        self.sampling = request.sampling
        self.history = History(request, vocab_size, device)
        self.generator = torch.Generator(device).manual_seed(request.seed)

    def first(self, logits: Tensor) -> Tensor:
        law = probabilities(
            adjust(logits[None], self.sampling, self.history.before(None)), self.sampling
        )
        token = (law.log() + gumbel(self._uniform(law.shape)))[0].argmax(-1)
        self.history.add((int(token),))
        return token

    def look(self, draft: Draft, logits: Tensor) -> Tensor:
        if draft.parents is not None:
            raise ConfigError("The verifier 'reject' takes chains only: use 'match' for trees.")
        law = probabilities(
            adjust(logits, self.sampling, self.history.before(draft)), self.sampling
        )
        uniform = self._uniform((len(draft),))
        kept, instead = reject(
            draft.tokens, draft.probs, law, uniform, gumbel(self._uniform(law.shape))
        )
        return torch.cat([draft.tokens, kept.long(), instead])

    def decide(self, draft: Draft, numbers: list[int]) -> Verdict:
        size = len(draft)
        tokens, kept, instead = numbers[:size], numbers[size : 2 * size], numbers[2 * size :]
        accepted = kept.index(0) if 0 in kept else size
        out = (*tokens[:accepted], instead[accepted])
        self.history.add(out)
        return Verdict(tuple(range(accepted)), out)

    def _uniform(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.generator.device)


class History:
    """Which tokens a text holds, for the repetition penalty; nothing where there is none."""

    def __init__(self, request: Request, vocab_size: int, device: torch.device) -> None:
        self.seen: Tensor | None = None
        if request.sampling.repetition_penalty != 1.0:
            self.seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
            self.add(request.prompt)

    def before(self, draft: Draft | None) -> Tensor | None:
        """[k + 1, V] the tokens before each row: the text, and the row's own path in the draft."""
        if self.seen is None:
            return None
        if draft is None or len(draft) == 0:
            return self.seen[None]
        size = len(draft)
        parents = draft.parents or tuple(range(-1, size - 1))
        sees = ancestry(parents, size + 1)[1].to(self.seen.device)[:, 1:]  # [k + 1, k]
        rows = self.seen.repeat(size + 1, 1)
        row, node = sees.nonzero(as_tuple=True)
        rows[row, draft.tokens[node]] = True
        return rows

    def add(self, tokens: tuple[int, ...]) -> None:
        if self.seen is not None:
            self.seen[list(tokens)] = True


VERIFIERS: dict[str, type[MatchVerifier] | type[RejectVerifier]] = {
    "match": MatchVerifier,
    "reject": RejectVerifier,
}

if TYPE_CHECKING:
    _seams: list[Verifier] = [MatchVerifier(), RejectVerifier()]
