"""A drafter of one's own: any object of the shape of `floodstage.core.protocols.Drafter`.

This one remembers what followed each pair of tokens in everything it has seen the target write.
"""

from dataclasses import dataclass, field, replace

import floodstage
from floodstage.drafting.each import EachSession


@dataclass
class PairDrafter:
    draft_len: int = 6
    name: str = "pairs"
    taps: tuple[int, ...] = ()  # it needs no hidden states
    next: dict[tuple[int, int], int] = field(default_factory=dict)

    def begin(self, slots, capacity):
        return EachSession(lambda request: PairSession(self, request.prompt[-1]), "cpu")


@dataclass
class PairSession:
    drafter: PairDrafter
    last: int  # the token before the pending one

    def propose(self, pending, budget):
        tokens, pair = [], (self.last, pending)
        while len(tokens) < budget and pair in self.drafter.next:
            tokens.append(self.drafter.next[pair])
            pair = (pair[1], tokens[-1])
        return tokens

    def observe(self, commit):
        text = [self.last, commit.pending, *commit.tokens]
        for a, b, c in zip(text, text[1:], text[2:], strict=False):
            self.drafter.next[a, b] = c
        self.last = text[-2]


plain = floodstage.load("math-mini", drafter="none")
drafter = PairDrafter()
mine = replace(
    floodstage.load("math-mini", drafter="ngram", draft_len=drafter.draft_len), drafter=drafter
)
for question in ["What is 17 × 24?", "What is 16 × 23?", "What is 15 × 22?"]:
    a, b = plain.generate(question), mine.generate(question)
    print(f"{question} tau {b.tau:.2f}, identical to plain decoding: {a.ids == b.ids}")
