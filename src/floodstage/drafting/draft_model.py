"""A smaller model of the same tokenizer drafts one token after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from floodstage.core.protocols import Target
from floodstage.core.slots import vacate
from floodstage.core.types import Commit, Draft, Request, Sampling, TokenId
from floodstage.ops.sampling import adjust, gumbel, probabilities

_OTHER_NUMBERS = 0x5DEECE66  # in the low 32 bits: the others do not count on a CPU


@dataclass(frozen=True, slots=True)
class ModelDrafter:
    """`sampled` draws drafts from the model's own law (what `reject` wants when sampling);
    otherwise they are its argmax (best for `match`)."""

    model: Target
    draft_len: int = 5
    sampled: bool = False
    name: str = "draft-model"
    taps: tuple[int, ...] = ()

    def begin(self, slots: int, capacity: int) -> ModelSession:
        # A draft may run ahead of the last token that the target will write.
        return ModelSession(self, slots, min(capacity + self.draft_len, self.model.context))


class ModelSession:
    """The draft model's state holds a prefix of the text; `behind` is what it has not read yet."""

    def __init__(self, drafter: ModelDrafter, slots: int, capacity: int) -> None:
        self.drafter, self.model = drafter, drafter.model
        self.state = self.model.begin(slots, capacity)
        self.capacity = capacity
        self.bases: list[int] = []
        self.behind: list[list[TokenId]] = []
        self.rules: list[Sampling] = []
        self.generators: list[torch.Generator] = []

    def join(self, request: Request, taps: Tensor | None) -> None:
        prompt = torch.tensor(request.prompt, device=self.model.device)
        self.model.forward(self.state, [prompt], first=len(self.bases), last_only=True)
        self.bases.append(len(request.prompt))
        self.behind.append([])
        rule = request.sampling if self.drafter.sampled else Sampling()
        self.rules.append(Sampling(temperature=rule.temperature))
        # Not the target's numbers, which the draft must not know, nor those of a neighbouring seed,
        # which would tie two samples of one prompt together.
        seed = request.seed ^ _OTHER_NUMBERS
        self.generators.append(torch.Generator(self.model.device).manual_seed(seed))

    def propose(self, pending: Sequence[TokenId], budgets: Sequence[int]) -> list[Draft]:
        device = self.model.device
        feed = [
            torch.tensor([*late, p], device=device)
            for late, p in zip(self.behind, pending, strict=True)
        ]
        tokens: list[list[Tensor]] = [[] for _ in pending]
        laws: list[list[Tensor]] = [[] for _ in pending]
        room = self.capacity - max(self.state.lengths) - max(f.shape[0] for f in feed) + 1
        for step in range(min(max(budgets), room)):
            logits = self.model.forward(self.state, feed, last_only=True).logits
            feed = [f[-1:] for f in feed]
            for i, row in enumerate(logits):
                # Who wants no more draws no more: the numbers drawn must not depend on the batch.
                if step < budgets[i]:
                    law, token = self._draw(i, row)
                    laws[i].append(law)
                    tokens[i].append(token)
                    feed[i] = token[None]
        return [self._draft(t, w) for t, w in zip(tokens, laws, strict=True)]

    def _draw(self, slot: int, row: Tensor) -> tuple[Tensor, Tensor]:
        rule = self.rules[slot]
        law = probabilities(adjust(row[None], rule)[0], Sampling(temperature=1.0))
        if rule.greedy:
            return law, law.argmax()
        uniform = torch.rand(
            law.shape, generator=self.generators[slot], device=self.generators[slot].device
        )
        return law, (law.log() + gumbel(uniform)).argmax()

    def _draft(self, tokens: list[Tensor], laws: list[Tensor]) -> Draft:
        if not tokens:
            return Draft(torch.empty(0, dtype=torch.long, device=self.model.device))
        law = torch.stack(laws)
        # The likeliest token's probability, not the drawn one's: see `Draft.confidence`.
        return Draft(torch.stack(tokens), None, law if self.drafter.sampled else None, law.amax(-1))

    def observe(self, commits: Sequence[Commit]) -> None:
        for slot, commit in enumerate(commits):
            true = [*self.behind[slot], commit.pending, *commit.tokens[:-1]]
            kept = min(len(true), self.state.lengths[slot] - self.bases[slot])
            self.bases[slot] += kept
            self.state.rollback(slot, self.bases[slot])
            self.behind[slot] = true[kept:]

    def leave(self, slot: int) -> None:
        self.state.leave(slot)
        vacate(self.bases, slot)
        vacate(self.behind, slot)
        vacate(self.rules, slot)
        vacate(self.generators, slot)
