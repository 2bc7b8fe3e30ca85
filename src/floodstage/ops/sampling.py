"""From logits to tokens: pure functions over rows.

Shapes: rows [R, V]. Sampling is by Gumbel-max: argmax(log p + g) with g standard Gumbel noise
follows p exactly (Gumbel 1954; Maddison et al. 2014), and the noise can be fixed in advance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from floodstage.core.types import Sampling


def adjust(logits: Tensor, sampling: Sampling, seen: Tensor | None = None) -> Tensor:
    """Logits whose softmax is the law to sample from; excluded tokens are -inf.

    `seen` [R, V] bool marks the tokens before each row (for the repetition penalty). In the order
    of transformers: penalty, temperature, top-k, top-p, min-p. At temperature 0 only the penalty
    applies: the others never change an argmax.
    """
    if sampling.repetition_penalty != 1.0 and seen is not None:
        penalty = sampling.repetition_penalty  # Keskar et al. 2019
        logits = torch.where(
            seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits
        )
    if sampling.greedy:
        return logits
    logits = logits.float() / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k, -1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1.0:
        logits = _nucleus(logits, sampling.top_p)
    if sampling.min_p > 0.0:
        probs = logits.softmax(-1)
        least = probs.amax(-1, keepdim=True) * sampling.min_p
        logits = logits.masked_fill(probs < least, -torch.inf)
    return logits


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Keep the fewest most likely tokens that hold `top_p` together (Holtzman et al. 2020)."""
    ordered, order = logits.sort(descending=True, stable=True)
    probs = ordered.softmax(-1)
    drop = probs.cumsum(-1) - probs >= top_p  # the mass before a token already suffices
    return logits.masked_fill(torch.empty_like(drop).scatter_(-1, order, drop), -torch.inf)


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Softmax of adjusted logits; one-hot on the argmax at temperature 0."""
    if sampling.greedy:
        hot = torch.zeros_like(logits, dtype=torch.float32)
        return hot.scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    return logits.float().softmax(-1)


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise from uniform numbers in [0, 1)."""
    return -torch.log(-torch.log(uniform.clamp_min(torch.finfo(uniform.dtype).tiny)))
