"""Random numbers that are a function of what they are for, not of when they are drawn.

A counter-based generator (Salmon et al. 2011): the same seed and counters give the same number,
alone or in a batch, in any order. The mixing is SplitMix64's (Steele et al. 2014).
"""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def uniform(seed: int, *counters: Tensor | int) -> Tensor:
    """Numbers in [0, 1) of the counters' shape after broadcasting: float64 of 53 bits, or float32
    of 24 on Apple's GPU, which has nothing wider."""
    state = torch.tensor(seed, dtype=torch.int64)
    for counter in counters:
        state = _mix(state.to(counter.device) if isinstance(counter, Tensor) else state) + counter
    bits = _mix(state)
    if bits.device.type == "mps":
        return _shift(bits, 40).float() * 2.0**-24
    return _shift(bits, 11).double() * 2.0**-53


def _mix(x: Tensor) -> Tensor:
    x = x + _GOLDEN
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right, filling with zeros (torch fills with the sign)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
