"""Token trees: what is in them, in which order, and never more than asked for."""

from __future__ import annotations

import itertools
import random

import pytest

from floodstage.core.errors import ConfigError
from floodstage.drafting.candidates import (
    Adaptive,
    Beam,
    BestFirst,
    PrefixRank,
    Shape,
    Tree,
    UncertainSparse,
)

SHAPES: list[Shape] = [
    Beam(),
    Beam(branch_depth=2, top_k=3, max_candidates=7),
    Beam(margin_threshold=0.2),
    PrefixRank(),
    PrefixRank(prefix=0, top_k=2),
    UncertainSparse(),
    UncertainSparse(prefix=2, top_k=4, max_candidates=9),
    BestFirst(),
    BestFirst(nodes=40, top_k=3),
]


def marginals(
    seed: int, depth: int = 7, ranks: int = 4
) -> tuple[list[list[int]], list[list[float]]]:
    """Distinct tokens per place and falling probabilities."""
    rng = random.Random(seed)
    tokens = [rng.sample(range(50), ranks) for _ in range(depth)]
    weights = [sorted((rng.random() ** 3 + 1e-3 for _ in range(ranks)), reverse=True)
               for _ in range(depth)]  # fmt: skip
    return tokens, [[w / (sum(row) * 1.1) for w in row] for row in weights]


def paths(tree: Tree) -> list[tuple[int, ...]]:
    """Per node the tokens from the root to it."""
    out: list[tuple[int, ...]] = []
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        out.append((*(out[parent] if parent >= 0 else ()), token))
    return out


@pytest.mark.parametrize("budget", [0, 1, 5, 7, 8, 20, 100])
@pytest.mark.parametrize("shape", SHAPES, ids=repr)
@pytest.mark.parametrize("seed", range(5))
def test_the_greedy_chain_is_inside_and_the_budget_is_kept(
    shape: Shape, budget: int, seed: int
) -> None:
    tokens, probs = marginals(seed)
    tree = shape.grow(tokens[:budget], probs[:budget], budget, None)
    assert len(tree.tokens) <= budget
    assert len(tree.tokens) <= 7 + shape.extra(7)
    known = paths(tree)
    assert len(set(known)) == len(known), "two nodes are one"
    greedy = tuple(t[0] for t in tokens)
    for k in range(1, min(budget, 7) + 1):
        assert greedy[:k] in known


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_likeliest_first_is_the_same_tree_and_every_head_of_it_is_one(shape: Shape) -> None:
    tokens, probs = marginals(3)
    tree = shape.grow(tokens, probs, 100, None)
    ordered = tree.likeliest_first()
    assert sorted(paths(ordered)) == sorted(paths(tree))
    assert all(parent < node for node, parent in enumerate(ordered.parents))
    chance: list[float] = []
    for parent, own in zip(ordered.parents, ordered.chances, strict=True):
        chance.append(own * (chance[parent] if parent >= 0 else 1.0))
    assert chance == sorted(chance, reverse=True)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("nodes", [0, 1, 5, 17])
def test_best_first_takes_the_likeliest_paths(seed: int, nodes: int) -> None:
    depth, ranks = 4, 3
    tokens, probs = marginals(seed, depth, ranks)
    tree = BestFirst(nodes=nodes, top_k=ranks).grow(tokens, probs, 100, None)
    greedy = {tuple(t[0] for t in tokens[:k]) for k in range(1, depth + 1)}
    every: list[tuple[float, tuple[int, ...]]] = []
    for k in range(1, depth + 1):
        for chosen in itertools.product(range(ranks), repeat=k):
            chance = 1.0
            for place, rank in enumerate(chosen):
                chance *= probs[place][rank]
            every.append((chance, tuple(tokens[i][r] for i, r in enumerate(chosen))))
    rest = [path for _, path in sorted(every, reverse=True) if path not in greedy]
    assert set(paths(tree)) == greedy | set(rest[:nodes])


def test_prefix_rank_takes_one_rank_everywhere_behind_the_prefix() -> None:
    tokens = [[10, 11, 12], [20, 21, 22], [30, 31, 32]]
    probs = [[0.5, 0.3, 0.2]] * 3
    tree = PrefixRank(prefix=1, top_k=3, max_candidates=3).grow(tokens, probs, 100, None)
    leaves = {path for path in paths(tree) if len(path) == 3}
    assert leaves == {(10, 20, 30), (10, 21, 31), (10, 22, 32)}
    few = PrefixRank(prefix=1, top_k=3, max_candidates=3).grow(tokens, probs, 100, 2)
    assert {path for path in paths(few) if len(path) == 3} == {(10, 20, 30), (10, 21, 31)}


def test_uncertain_sparse_changes_one_place_of_least_margin() -> None:
    tokens = [[10, 11], [20, 21], [30, 31]]
    probs = [[0.9, 0.1], [0.5, 0.45], [0.6, 0.3]]
    tree = UncertainSparse(max_positions=2).grow(tokens, probs, 100, None)
    leaves = {path for path in paths(tree) if len(path) == 3}
    assert leaves == {(10, 20, 30), (10, 21, 30), (10, 20, 31)}


def test_beam_branches_early_and_only_where_the_margin_is_small() -> None:
    tokens = [[10, 11], [20, 21], [30, 31]]
    probs = [[0.9, 0.1], [0.5, 0.45], [0.5, 0.45]]
    beam = Beam(branch_depth=2, margin_threshold=0.1)
    leaves = {path for path in paths(beam.grow(tokens, probs, 100, None)) if len(path) == 3}
    assert leaves == {(10, 20, 30), (10, 21, 30)}
    free = {path for path in paths(Beam(branch_depth=2).grow(tokens, probs, 100, None))
            if len(path) == 3}  # fmt: skip
    assert free == {(10, 20, 30), (10, 21, 30), (11, 20, 30), (11, 21, 30)}


def test_the_effort_follows_what_was_kept() -> None:
    adaptive = Adaptive(warmup=2, probe=5)
    assert [adaptive.effort(c, 0.9) for c in range(8)] == [8, 8, 8, 1, 1, 1, 1, 8]
    assert [adaptive.effort(3, kept) for kept in (0.85, 0.84, 0.65, 0.64)] == [1, 4, 4, 8]
    assert Adaptive(warmup=0, probe=0).effort(0, 1.0) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Beam(branch_depth=0),
        lambda: Beam(top_k=1),
        lambda: PrefixRank(prefix=-1),
        lambda: UncertainSparse(max_positions=0),
        lambda: BestFirst(nodes=-1),
        lambda: Adaptive(budgets=(1, 2)),
    ],
)
def test_settings_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(ConfigError, match="got"):
        make()  # type: ignore[operator]
