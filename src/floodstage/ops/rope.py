"""Rotary position embedding: frequencies for every published scaling, tables, rotation.

Knows no model; takes plain numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from floodstage.core.errors import ConfigError, unknown

KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "none")


def frequencies(head_dim: int, rope: Mapping[str, Any]) -> tuple[Tensor, float]:
    """[head_dim / 2] inverse frequencies and the factor on cos and sin.

    `rope` holds `rope_theta`, `rope_type` and what that type needs, as transformers writes it.
    "dynamic" stretches only texts longer than the model's context, which are refused here, so it is
    the default; "none" does not rotate at all. Sources: RoPE (Su et al. 2021), position
    interpolation (Chen et al. 2023), YaRN (Peng et al. 2023), Llama 3.1. Raises ConfigError for a
    type that is not in KINDS.
    """
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    if kind not in KINDS:
        raise unknown("rope_type", kind, KINDS)
    theta = _number(rope, "rope_theta")
    # Named, because a model may be built with another default device.
    share = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
    spread = theta**share
    if kind == "none":
        return torch.zeros_like(spread), 1.0
    if kind == "linear":
        return 1.0 / spread / _number(rope, "factor"), 1.0
    if kind == "llama3":
        return _llama3(1.0 / spread, rope), 1.0
    if kind == "yarn":
        return _yarn(spread, head_dim, theta, rope)
    return 1.0 / spread, 1.0


def _number(rope: Mapping[str, Any], name: str) -> float:
    try:
        return float(rope[name])
    except (KeyError, TypeError, ValueError):
        raise ConfigError(
            f"The rope settings {dict(rope)!r} lack {name!r}: a number was expected."
        ) from None


def _llama3(base: Tensor, rope: Mapping[str, Any]) -> Tensor:
    factor, old = _number(rope, "factor"), _number(rope, "original_max_position_embeddings")
    low, high = _number(rope, "low_freq_factor"), _number(rope, "high_freq_factor")
    wavelength = 2 * math.pi / base
    blend = ((old / wavelength - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - blend) * base / factor + blend * base


def _yarn(
    spread: Tensor, head_dim: int, theta: float, rope: Mapping[str, Any]
) -> tuple[Tensor, float]:
    factor, old = _number(rope, "factor"), _number(rope, "original_max_position_embeddings")

    def dimension(rotations: float) -> float:
        return head_dim * math.log(old / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = dimension(float(rope.get("beta_fast") or 32.0))
    high = dimension(float(rope.get("beta_slow") or 1.0))
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # the ramp below divides by the width
    at = torch.arange(head_dim // 2, dtype=torch.float32, device="cpu")
    keep = 1 - ((at - low) / (high - low)).clamp(0, 1)
    inverse = 1.0 / (factor * spread) * (1 - keep) + 1.0 / spread * keep
    return inverse, _yarn_scale(factor, rope)


def _yarn_scale(factor: float, rope: Mapping[str, Any]) -> float:
    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    given = rope.get("attention_factor")
    if given is not None:
        return float(given)
    mscale, mscale_all = rope.get("mscale"), rope.get("mscale_all_dim")
    if mscale and mscale_all:
        return scale(float(mscale)) / scale(float(mscale_all))
    return scale(1.0)


def table(inverse: Tensor, scale: float, length: int) -> tuple[Tensor, Tensor]:
    """cos and sin, each [length, head_dim]. The sign of the rotation is folded into sin."""
    angles = torch.arange(length, dtype=torch.float32)[:, None] * inverse[None]
    cos, sin = angles.cos() * scale, angles.sin() * scale
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate(x: Tensor, cos: Tensor | None, sin: Tensor | None) -> Tensor:
    """x [..., heads, head_dim] by tables [..., 1, head_dim] of `table`; without tables not at all:
    for models that know their places by other means."""
    if cos is None or sin is None:
        return x
    half = x.shape[-1] // 2
    return x * cos + torch.roll(x, half, -1) * sin
