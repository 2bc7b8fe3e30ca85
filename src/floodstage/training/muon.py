"""Muon (Jordan et al. 2024): momentum, made orthogonal, for the matrices of a network.

torch.optim.Muon does the same, but always in bfloat16, which CPUs without bfloat16 units emulate:
there it took about three times what this takes (docs/decisions). Here the iteration runs in the
precision the device is fast in, over all matrices of one shape at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_A, _B, _C = 3.4445, -4.7750, 2.0315  # the published quintic: steep at 0, about 1 on (0, 1]


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """[n, r, c] -> the nearest semi-orthogonal matrices, roughly (Newton-Schulz iteration)."""
    x = matrices.bfloat16() if matrices.device.type == "cuda" else matrices.float()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    out: Tensor = (x.mT if tall else x).to(matrices.dtype)
    return out


class Muon(torch.optim.Optimizer):
    """Only for 2-D parameters. `lr` is the size of a step in units of an orthogonal matrix, scaled
    by sqrt(max(1, rows / columns))."""

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: defaultdict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[tuple(p.shape)].append(p)
            for some in alike.values():
                self._update(some, group)

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        pushes = []
        for p in params:
            assert p.grad is not None
            state = self.state[p]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(p.grad)
            state["momentum"].lerp_(p.grad, 1 - group["momentum"])
            pushes.append(p.grad.lerp(state["momentum"], group["momentum"]))  # Nesterov
        steps = orthogonalize(torch.stack(pushes))
        rows, columns = params[0].shape
        scale = group["lr"] * max(1.0, rows / columns) ** 0.5
        for p, step in zip(params, steps, strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(step, alpha=-scale)
