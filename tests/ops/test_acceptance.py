"""The acceptance rules: a kept path of a tree, and speculative sampling in closed form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from floodstage.ops.acceptance import reject, walk

# --- walk ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "own", "parents", "path"),
    [
        ([], [4], None, ()),
        ([4, 5], [4, 5, 6], None, (0, 1)),
        ([4, 7], [4, 5, 6], None, (0,)),
        ([9, 5], [4, 5, 6], None, ()),
        ([], [4], (), ()),
        ([9, 4, 8, 5], [4, 0, 5, 0, 6], (-1, -1, 1, 1), (1, 3)),
        ([9, 4, 8, 5], [1, 0, 5, 0, 6], (-1, -1, 1, 1), ()),
        ([9, 5, 4], [4, 5, 0, 5], (-1, 0, -1), (2,)),
    ],
    ids=[
        *("nothing drafted", "all kept", "kept until it differs", "first one differs"),
        *("an empty tree", "a branch", "no branch", "a right token under a wrong one"),
    ],
)
def test_walk_follows_the_targets_own_tokens(
    tokens: list[int], own: list[int], parents: tuple[int, ...] | None, path: tuple[int, ...]
) -> None:
    assert walk(tokens, own, parents) == path


def test_of_twins_the_first_is_kept() -> None:
    assert walk([4, 4, 5], [4, 0, 5, 0], (-1, -1, 1)) == (0,)


@given(st.data())
def test_walk_takes_a_chain_and_its_parents_for_the_same(data: st.DataObject) -> None:
    tokens = data.draw(st.lists(st.integers(0, 2), max_size=6))
    own = data.draw(st.lists(st.integers(0, 2), min_size=len(tokens) + 1, max_size=len(tokens) + 1))
    assert walk(tokens, own) == walk(tokens, own, tuple(range(-1, len(tokens) - 1)))


# --- reject, in float64 and without sampling -----------------------------------------------------


@st.composite
def laws(draw: st.DrawFn, size: int) -> Tensor:
    """A law over `size` tokens, zeros and certainty among them."""
    weight = st.sampled_from([0.0, 0.0, 1.0]) | st.floats(1e-3, 1.0)
    weights = draw(st.lists(weight, min_size=size, max_size=size))
    if not any(weights):
        weights[draw(st.integers(0, size - 1))] = 1.0
    law = torch.tensor(weights, dtype=torch.float64)
    return law / law.sum()


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """p and q: unrelated, equal, disjoint or the same up to a little."""
    size = draw(st.integers(2, 5))
    p = draw(laws(size))
    kind = draw(st.sampled_from(["unrelated", "equal", "disjoint", "near"]))
    if kind == "equal":
        return p, p.clone()
    if kind == "disjoint" and (p == 0.0).any():
        q = (p == 0.0).double()
        return p, q / q.sum()
    q = draw(laws(size))
    if kind == "near":
        q = p + 1e-3 * q
    return p, q / q.sum()


def kept_at(p: Tensor, q: Tensor, uniform: Tensor, *, certain: bool = False) -> Tensor:
    """[V] for every token whether it is kept at these uniform numbers."""
    size = p.shape[0]
    rows, draft = p.expand(size + 1, size), None if certain else q.expand(size, size)
    return reject(torch.arange(size), draft, rows, uniform, torch.zeros(size + 1, size).double())[0]


def keep_chance(p: Tensor, q: Tensor, *, certain: bool = False) -> Tensor:
    """[V] the length of the interval of uniform numbers that keep a token, by bisection."""
    low, high = torch.zeros_like(p), torch.ones_like(p)
    for _ in range(60):
        middle = (low + high) / 2
        kept = kept_at(p, q, middle, certain=certain)
        low, high = torch.where(kept, middle, low), torch.where(kept, high, middle)
    return (low + high) / 2


def instead(p: Tensor, q: Tensor, token: int, noise: Tensor) -> int:
    """What is emitted if `token` is not kept, under this Gumbel noise."""
    rows, noises = p.expand(2, -1), noise.expand(2, -1)
    uniform = torch.zeros(1, dtype=torch.float64)
    return int(reject(torch.tensor([token]), q[None], rows, uniform, noises)[1][0])


def law_of_argmax(choose: object, law: Tensor) -> None:
    """That argmax(log law + noise) is what `choose` gives: between any two tokens with a chance
    it flips where the noise outweighs the ratio, and a token without one never comes."""
    size = law.shape[0]
    for a in range(size):
        alone = torch.full((size,), -1e30, dtype=torch.float64)
        alone[a] = 0.0
        assert (choose(alone) == a) == (law[a] > 0), (a, law)
        for b in range(a) if law[a] > 0 else ():
            if law[b] > 0:
                tie = float(law[a].log() - law[b].log())
                for nudge, winner in ((1e-10, b), (-1e-10, a)):
                    noise = torch.full((size,), -torch.inf, dtype=torch.float64)
                    noise[a], noise[b] = 0.0, tie + nudge
                    assert choose(noise) == winner, (a, b, law)


@settings(deadline=None, max_examples=60)
@given(pairs())
def test_what_reject_emits_follows_the_targets_law_exactly(pair: tuple[Tensor, Tensor]) -> None:
    p, q = pair
    keep = keep_chance(p, q)
    residual = (p - q).clamp_min(0)
    rejected = float((q * (1 - keep)).sum())
    emitted = q * keep
    if residual.sum() > 1e-9:
        emitted = emitted + rejected * residual / residual.sum()
        for token in range(p.shape[0]):
            law_of_argmax(lambda noise, t=token: instead(p, q, t, noise), residual)
    torch.testing.assert_close(emitted, p, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(pairs())
def test_a_certain_draft_is_one_hot(pair: tuple[Tensor, Tensor]) -> None:
    p, _ = pair
    torch.testing.assert_close(keep_chance(p, p, certain=True), p, rtol=0, atol=1e-12)
    for token in range(p.shape[0]):
        hot = torch.zeros_like(p)
        hot[token] = 1.0
        rest = (p - hot).clamp_min(0)
        if rest.sum() > 0:
            law_of_argmax(lambda noise, h=hot, t=token: instead(p, h, t, noise), rest)


@settings(deadline=None, max_examples=30)
@given(laws(4), laws(4))
def test_the_bonus_is_drawn_from_the_targets_law(p: Tensor, other: Tensor) -> None:
    def bonus(noise: Tensor) -> int:
        rows = torch.stack([other, p])
        uniform = torch.zeros(1, dtype=torch.float64)
        return int(reject(torch.tensor([0]), None, rows, uniform, noise.expand(2, -1))[1][1])

    law_of_argmax(bonus, p)


@given(laws(5))
def test_a_draft_from_the_targets_own_law_is_always_kept(p: Tensor) -> None:
    most = torch.full((5,), 1.0 - 2.0**-53, dtype=torch.float64)
    assert bool(kept_at(p, p, most)[p > 0].all())


def test_every_place_of_a_chain_has_its_own_laws_and_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(5, 6, generator=generator, dtype=torch.float64).softmax(-1)
    q = torch.rand(4, 6, generator=generator, dtype=torch.float64).softmax(-1)
    tokens = torch.tensor([3, 0, 5, 2])
    uniform = torch.rand(4, generator=generator, dtype=torch.float64)
    noise = torch.rand(5, 6, generator=generator, dtype=torch.float64)
    kept, out = reject(tokens, q, p, uniform, noise)
    for i in range(4):
        one, instead_of = reject(
            tokens[i : i + 1], q[i : i + 1], p[i : i + 2], uniform[i : i + 1], noise[i : i + 2]
        )
        assert (bool(one[0]), int(instead_of[0])) == (bool(kept[i]), int(out[i]))
    assert out.shape == (5,)


def test_laws_that_differ_by_rounding_give_only_possible_tokens() -> None:
    """p <= q everywhere: nothing is left of p - q, and a token may still be rejected."""
    p = torch.tensor([0.0, 0.5, 0.5 - 2**-25])
    q = torch.tensor([0.0, 0.5, 0.5])
    uniform = torch.tensor([1 - 2**-24])
    kept, out = reject(torch.tensor([2]), q[None], p.expand(2, 3), uniform, torch.zeros(2, 3))
    assert not kept[0]
    assert int(out[0]) in (1, 2)
