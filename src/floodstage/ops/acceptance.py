"""Pure acceptance rules: how much of a draft the target keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def walk(
    tokens: Sequence[int], own: Sequence[int], parents: Sequence[int] | None = None
) -> tuple[int, ...]:
    """The path through a draft that the target itself would write.

    `own[0]` is the target's token after the root, `own[i + 1]` the one after node i. Descend while
    a child holds the target's own token; for a chain this is the longest equal prefix.
    """
    path: list[int] = []
    if parents is None:
        for i, token in enumerate(tokens):
            if token != own[i]:
                break
            path.append(i)
        return tuple(path)
    children: dict[tuple[int, int], int] = {}
    for node, parent in enumerate(parents):
        children.setdefault((parent, tokens[node]), node)
    at = -1
    while (node := children.get((at, own[at + 1]), -2)) != -2:
        path.append(node)
        at = node
    return tuple(path)


def reject(
    tokens: Tensor, draft_p: Tensor | None, target_p: Tensor, uniform: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Speculative sampling (Leviathan et al. 2023; Chen et al. 2023) of a chain, on the device.

    tokens [k] were drawn from draft_p [k, V] (None: surely), target_p is [k + 1, V]. Token i is
    kept with probability min(1, p/q). Gives `kept` [k] bool and `instead` [k + 1]: what to emit if
    token i is the first not kept, drawn from (p - q)+; the last entry is the bonus, drawn from p.
    `uniform` [k] in [0, 1) and Gumbel `noise` [k + 1, V] are the random numbers.
    """
    k = tokens.shape[0]
    index = tokens[:, None]
    if draft_p is None:
        draft_p = torch.zeros_like(target_p[:k]).scatter_(-1, index, 1.0)
    p, q = target_p[:k].gather(-1, index)[:, 0], draft_p.gather(-1, index)[:, 0]
    kept = uniform * q < p
    residual = (target_p[:k] - draft_p).clamp_min(0.0)
    # Where p and q differ by rounding only, nothing may be left and still a token is rejected.
    residual = torch.where(residual.sum(-1, keepdim=True) > 0.0, residual, target_p[:k])
    law = torch.cat([residual, target_p[k:]])
    return kept, (law.log() + noise).argmax(-1)
