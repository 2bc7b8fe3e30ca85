"""Several guesses at once, as one token tree: verified in a single target pass.

A block-diffusion drafter gives, for every slot of its block, the likeliest tokens and their
probabilities. A chain takes the first of each; the shapes here also take others where the drafter
is unsure. The greedy chain is always inside, so no draft is ever kept shorter than the chain's.

Lists: tokens[k][r] is the token of rank r (0 the likeliest) for the k-th token after the pending
one, probs[k][r] its probability.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from floodstage.core.errors import ConfigError
from floodstage.core.types import TokenId

Ranks = Sequence[Sequence[TokenId]]
Probs = Sequence[Sequence[float]]


@dataclass(slots=True)
class Tree:
    """A draft in the making; nodes that continue the same path with the same token are one."""

    tokens: list[TokenId] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)  # the drafter's probability of the token
    known: dict[tuple[int, TokenId], int] = field(default_factory=dict)

    def add(self, parent: int, token: TokenId, chance: float) -> int:
        """The node that continues `parent` with `token`."""
        node = self.known.setdefault((parent, token), len(self.tokens))
        if node == len(self.tokens):
            self.tokens.append(token)
            self.parents.append(parent)
            self.chances.append(chance)
        return node

    def add_path(self, tokens: Sequence[TokenId], chances: Sequence[float], budget: int) -> None:
        """A path from the root, as far as the tree stays within `budget` nodes."""
        at = -1
        for token, chance in zip(tokens, chances, strict=True):
            if len(self.tokens) >= budget and (at, token) not in self.known:
                return
            at = self.add(at, token, chance)

    def likeliest_first(self) -> Tree:
        """The same tree, its nodes in falling order of their path's probability. A node never
        comes before its parent, so the first so many nodes are a tree again."""
        paths: list[float] = []
        for parent, chance in zip(self.parents, self.chances, strict=True):
            paths.append(chance if parent < 0 else chance * paths[parent])
        order = sorted(range(len(paths)), key=lambda i: (-paths[i], i))
        out, place = Tree(), {-1: -1}
        for i in order:
            place[i] = out.add(place[self.parents[i]], self.tokens[i], self.chances[i])
        return out


class Shape(Protocol):
    """Which candidates a draft has."""

    @property
    def top_k(self) -> int:
        """Ranks it looks at."""

    def extra(self, depth: int) -> int:
        """The most nodes beside a chain of `depth` tokens."""

    def grow(self, tokens: Ranks, probs: Probs, budget: int, effort: int | None) -> Tree:
        """A tree of at most `budget` nodes. `effort` bounds the candidates, if not None."""


def chain(tokens: Ranks, probs: Probs, budget: int) -> Tree:
    tree = Tree()
    tree.add_path([t[0] for t in tokens], [p[0] for p in probs], budget)
    return tree


@dataclass(frozen=True, slots=True)
class Beam:
    """Other tokens at the first `branch_depth` places, where the drafter's margin between first
    and second is at most `margin_threshold` (negative: everywhere). A beam of `max_candidates`
    by probability; each goes on greedily."""

    branch_depth: int = 6
    top_k: int = 2
    margin_threshold: float = -1.0
    max_candidates: int = 4

    def __post_init__(self) -> None:
        _at_least(1, branch_depth=self.branch_depth, max_candidates=self.max_candidates)
        _at_least(2, top_k=self.top_k)

    def extra(self, depth: int) -> int:
        return (self.max_candidates - 1) * depth

    def grow(self, tokens: Ranks, probs: Probs, budget: int, effort: int | None) -> Tree:
        width = self.max_candidates if effort is None else min(effort, self.max_candidates)
        beams: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]  # log probability, ranks
        for p in probs[: self.branch_depth]:
            unsure = self.margin_threshold < 0 or p[0] - p[1] <= self.margin_threshold
            ranks = range(min(self.top_k, len(p)) if unsure else 1)
            grown = [(s + _log(p[r]), (*path, r)) for s, path in beams for r in ranks]
            beams = heapq.nsmallest(width, grown, key=lambda b: (-b[0], b[1]))
        tree = chain(tokens, probs, budget)
        for _, ranks_taken in beams:
            _add_ranks(tree, tokens, probs, dict(enumerate(ranks_taken)), budget)
        return tree


@dataclass(frozen=True, slots=True)
class PrefixRank:
    """After `prefix` greedy tokens, candidate r takes the token of rank r at *every* place."""

    prefix: int = 2
    top_k: int = 4
    max_candidates: int = 4

    def __post_init__(self) -> None:
        _at_least(0, prefix=self.prefix)
        _at_least(1, max_candidates=self.max_candidates)
        _at_least(2, top_k=self.top_k)

    def extra(self, depth: int) -> int:
        count = min(self.max_candidates, self.top_k) - 1
        return count * max(0, depth - self.prefix)

    def grow(self, tokens: Ranks, probs: Probs, budget: int, effort: int | None) -> Tree:
        count = min(self.max_candidates, self.top_k)
        tree = chain(tokens, probs, budget)
        for rank in range(1, count if effort is None else min(count, effort)):
            taken = dict.fromkeys(range(self.prefix, len(tokens)), rank)
            _add_ranks(tree, tokens, probs, taken, budget)
        return tree


@dataclass(frozen=True, slots=True)
class UncertainSparse:
    """After `prefix` tokens, the `max_positions` places of least margin; every candidate changes
    exactly one of them, to rank 1 .. top_k - 1, and goes on greedily."""

    prefix: int = 0
    max_positions: int = 4
    top_k: int = 2
    max_candidates: int = 4

    def __post_init__(self) -> None:
        _at_least(0, prefix=self.prefix)
        _at_least(1, max_candidates=self.max_candidates, max_positions=self.max_positions)
        _at_least(2, top_k=self.top_k)

    def extra(self, depth: int) -> int:
        return (self.max_candidates - 1) * max(0, depth - self.prefix)

    def grow(self, tokens: Ranks, probs: Probs, budget: int, effort: int | None) -> Tree:
        places = range(self.prefix, len(tokens))
        unsure = sorted(places, key=lambda k: (probs[k][0] - probs[k][1], k))
        changes = [(k, rank) for rank in range(1, self.top_k) for k in unsure[: self.max_positions]]
        count = self.max_candidates if effort is None else min(effort, self.max_candidates)
        tree = chain(tokens, probs, budget)
        for k, rank in changes[: count - 1]:
            _add_ranks(tree, tokens, probs, {k: rank}, budget)
        return tree


@dataclass(frozen=True, slots=True)
class BestFirst:
    """`nodes` nodes beside the greedy chain, those of highest path probability (DDTree,
    arXiv 2604.12989: a heap of rank paths; taking one offers its sibling and its child)."""

    nodes: int = 16
    top_k: int = 4

    def __post_init__(self) -> None:
        _at_least(0, nodes=self.nodes)
        _at_least(2, top_k=self.top_k)

    def extra(self, depth: int) -> int:
        return self.nodes

    def grow(self, tokens: Ranks, probs: Probs, budget: int, effort: int | None) -> Tree:
        tree = chain(tokens, probs, budget)
        most = len(tree.tokens) + (self.nodes if effort is None else min(effort, self.nodes))
        heap = [(-_log(probs[0][0]), 0, 0, -1)] if tokens else []  # cost, depth, rank, parent
        while heap and len(tree.tokens) < min(most, budget):
            cost, depth, rank, parent = heapq.heappop(heap)
            node = tree.add(parent, tokens[depth][rank], probs[depth][rank])
            if rank + 1 < min(self.top_k, len(tokens[depth])):
                other = cost + _log(probs[depth][rank]) - _log(probs[depth][rank + 1])
                heapq.heappush(heap, (other, depth, rank + 1, parent))
            if depth + 1 < len(tokens):
                heapq.heappush(heap, (cost - _log(probs[depth + 1][0]), depth + 1, 0, node))
        return tree


SHAPES: dict[str, type[Beam] | type[PrefixRank] | type[UncertainSparse] | type[BestFirst]] = {
    "beam": Beam,
    "prefix-rank": PrefixRank,
    "uncertain-sparse": UncertainSparse,
    "best-first": BestFirst,
}


@dataclass(frozen=True, slots=True)
class Adaptive:
    """Another shape with few candidates after a cycle that kept much of its draft, many after one
    that kept little: `budgets` candidates at a share of at least `thresholds` kept, the last
    budget below. The first `warmup` cycles of a text and every `probe`-th take the last budget."""

    shape: Shape = field(default_factory=Beam)
    budgets: tuple[int, ...] = (1, 4, 8)
    thresholds: tuple[float, ...] = (0.85, 0.65)
    warmup: int = 4
    probe: int = 16

    def __post_init__(self) -> None:
        if len(self.budgets) != len(self.thresholds) + 1:
            raise ConfigError(
                "budgets must hold one entry more than thresholds, "
                f"got {self.budgets!r} and {self.thresholds!r}."
            )

    def effort(self, cycle: int, kept: float) -> int:
        """Candidates in cycle `cycle` (from 0) of a text, after a share `kept` of a draft."""
        if cycle < self.warmup or (self.probe and (cycle - self.warmup) % self.probe == 0):
            return self.budgets[-1]
        for budget, threshold in zip(self.budgets, self.thresholds, strict=False):
            if kept >= threshold:
                return budget
        return self.budgets[-1]


def _add_ranks(tree: Tree, tokens: Ranks, probs: Probs, ranks: dict[int, int], budget: int) -> None:
    """The candidate with the given ranks at some places and the likeliest token elsewhere."""
    chosen = [min(ranks.get(k, 0), len(t) - 1) for k, t in enumerate(tokens)]
    path = [t[r] for t, r in zip(tokens, chosen, strict=True)]
    tree.add_path(path, [p[r] for p, r in zip(probs, chosen, strict=True)], budget)


def _log(p: float) -> float:
    return math.log(max(p, 1e-30))


def _at_least(least: int, **given: int) -> None:
    for name, value in given.items():
        if value < least:
            raise ConfigError(f"{name} must be >= {least}, got {value!r}.")
