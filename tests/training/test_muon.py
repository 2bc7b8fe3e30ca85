"""Muon against its definition, and against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from floodstage.training.muon import Muon, orthogonalize


def matrices(*shape: int, seed: int = 0) -> Tensor:
    """Matrices with singular values between 0.2 and 1."""
    g = torch.Generator().manual_seed(seed)
    u, s, v = torch.linalg.svd(torch.randn(shape, generator=g), full_matrices=False)
    return (u * (0.2 + 0.8 * torch.rand(s.shape, generator=g))[:, None, :]) @ v


@pytest.mark.parametrize("shape", [(1, 8, 32), (3, 32, 8), (2, 16, 16)], ids=str)
def test_what_is_orthogonalized_is_nearly_orthogonal(shape: tuple[int, ...]) -> None:
    given = matrices(*shape)
    out = orthogonalize(given)
    assert out.shape == given.shape
    sizes = torch.linalg.svdvals(out)
    assert float(sizes.min()) > 0.6
    assert float(sizes.max()) < 1.3
    # It keeps the directions: the nearest orthogonal matrix is u @ v.
    u, _, v = torch.linalg.svd(given, full_matrices=False)
    nearest = u @ v
    alike = torch.cosine_similarity(out.flatten(1), nearest.flatten(1))
    assert float(alike.min()) > 0.95


def test_the_size_of_a_gradient_does_not_matter() -> None:
    given = matrices(2, 8, 12)
    torch.testing.assert_close(orthogonalize(given * 1e-3), orthogonalize(given), atol=1e-3, rtol=0)
    assert torch.isfinite(orthogonalize(torch.zeros(1, 4, 4))).all()


def test_steps_are_those_of_torch() -> None:
    ours = [matrices(1, *s, seed=i)[0] for i, s in enumerate([(12, 6), (6, 12), (12, 6)])]
    ours = [p.requires_grad_() for p in ours]
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    mine = Muon(ours, **settings)
    other = torch.optim.Muon(theirs, nesterov=True, adjust_lr_fn="original", **settings)
    for step in range(4):
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            grad = matrices(1, *p.shape, seed=10 * step + i)[0]
            p.grad, q.grad = grad, grad.clone()
        mine.step()
        other.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, atol=0.03, rtol=0)  # theirs iterates in bfloat16


def test_it_lowers_a_quadratic() -> None:
    goal = torch.randn(10, 6, generator=torch.Generator().manual_seed(1))
    p = torch.zeros(10, 6, requires_grad=True)
    optimizer = Muon([p], lr=0.2)
    losses = []
    for step in range(120):
        loss = ((p - goal) ** 2).mean()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 120)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.01 * losses[0]


def test_what_has_no_gradient_stays() -> None:
    still, moved = torch.ones(3, 3, requires_grad=True), torch.ones(3, 3, requires_grad=True)
    moved.grad = torch.eye(3)
    Muon([still, moved], weight_decay=0.1).step()
    assert torch.equal(still, torch.ones(3, 3))
    assert not torch.equal(moved, torch.ones(3, 3))
