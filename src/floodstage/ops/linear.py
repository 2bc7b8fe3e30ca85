"""Matrix products and norms, each by the fastest of equal ways for a few rows on a CPU."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

_FEW, _MANY = 12, 48
"""Above _FEW and up to _MANY rows, MKL's threads share x @ W.T badly (2 cores, 16 rows: 5.7 ms for
the products of a 5.8 M parameter model) and W @ x.T well (2.1 ms). Above, its transposed results
make what follows slower: whole passes of 48 rows take 13.9 against 11.6 ms, of 64 rows 12.5
against 15.0 ms (medians of 50, in turns)."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in] by weight [out, in] -> [..., out]; the result may be laid out transposed."""
    few = x.ndim == 2 and _FEW < x.shape[0] <= _MANY
    if few and x.dtype == torch.float32 and not x.is_cuda and not torch.is_grad_enabled():
        out = torch.mm(weight, x.t()).t()
        return out if bias is None else out + bias
    return F.linear(x, weight, bias)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm (Zhang & Sennrich 2019) over the last dimension, in float32 inside.

    `weight` is that of the last dimension, or of the last two (a norm per head).
    """
    if x.dtype == torch.float32 and not torch.is_grad_enabled():
        # Fewer and shorter kernels than F.rms_norm takes on a CPU.
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        mean = torch.addcmul(_constant(eps, x.device), size, size, value=1.0 / x.shape[-1])
        return x.mul(mean.rsqrt_()).mul_(weight)
    if weight.ndim == 1:
        return F.rms_norm(x, x.shape[-1:], weight, eps)
    return F.rms_norm(x, x.shape[-1:], None, eps) * weight


@lru_cache
def _constant(value: float, device: torch.device) -> Tensor:
    """A tensor that is made once: a Python number would be made into one at every use."""
    return torch.tensor(value, device=device)
