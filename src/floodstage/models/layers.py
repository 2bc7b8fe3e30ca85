"""The parts of a Llama-family transformer: norms, attention, MLP, rotary tables.

They serve inference and training alike; a layer is handed the function that attends. Parameter
names are Hugging Face's. Knows no cache and no text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from floodstage.models.config import TransformerConfig
from floodstage.ops.linear import linear, rms_norm
from floodstage.ops.rope import frequencies, rotate, table

Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q [..., H, d], k and v [..., h, d] -> [..., H * d]"""


class Linear(nn.Linear):
    """nn.Linear by the fastest product for the number of rows (see `ops.linear`)."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Norm(nn.Module):
    """RMSNorm with its weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Fused:
    """Linear layers over the same input, run as one.

    `fuse` lays their weights in one block of memory and makes each layer's weight a view of its
    part, so that the separate parameters stay what is saved, loaded and trained.
    """

    def __init__(self, *parts: Linear) -> None:
        self.parts = parts
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None

    def fuse(self) -> None:
        with torch.no_grad():
            sizes = [p.out_features for p in self.parts]
            self.weight = torch.cat(tuple(p.weight for p in self.parts))
            for part, view in zip(self.parts, self.weight.split_with_sizes(sizes), strict=True):
                part.weight.data = view
            if self.parts[0].bias is not None:
                self.bias = torch.cat(tuple(p.bias for p in self.parts))
                for part, view in zip(self.parts, self.bias.split_with_sizes(sizes), strict=True):
                    part.bias.data = view

    def __call__(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if torch.is_grad_enabled() or weight is None:  # gradients must reach the parts
            weight = torch.cat(tuple(p.weight for p in self.parts))
            biases = tuple(p.bias for p in self.parts if p.bias is not None)
            bias = torch.cat(biases) if biases else None
        return linear(x, weight, bias)


class Attention(nn.Module):
    """Grouped-query self-attention; where keys come from and go to is the caller's business."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        hidden, d = config.hidden_size, config.head_dim
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, d
        self.q_proj = Linear(hidden, config.heads * d, bias=config.qkv_bias)
        self.k_proj = Linear(hidden, config.kv_heads * d, bias=config.qkv_bias)
        self.v_proj = Linear(hidden, config.kv_heads * d, bias=config.qkv_bias)
        self.o_proj = Linear(config.heads * d, hidden, bias=config.out_bias)
        self.q_norm = Norm(d, config.norm_eps) if config.qk_norm else None
        self.k_norm = Norm(d, config.norm_eps) if config.qk_norm else None
        self.qkv = Fused(self.q_proj, self.k_proj, self.v_proj)
        self.qk_weight: Tensor | None = None  # set by `fuse`, for inference only

    def fuse(self) -> None:
        """Lay together what inference uses together."""
        self.qkv.fuse()
        self.qk_weight = self._qk_weight()

    def _qk_weight(self) -> Tensor | None:
        """[heads + kv_heads, d]: the weights of the norms of all queries and keys."""
        if self.q_norm is None or self.k_norm is None:
            return None
        q, k, d = self.q_norm.weight, self.k_norm.weight, self.head_dim
        return torch.cat([q.expand(self.heads, d), k.expand(self.kv_heads, d)])

    def forward(self, h: Tensor, cos: Tensor | None, sin: Tensor | None, attend: Attend) -> Tensor:
        """h [..., H]; cos, sin [..., 1, d] or None -> [..., H]"""
        heads, kv, d = self.heads, self.kv_heads, self.head_dim
        qkv = self.qkv(h).view(*h.shape[:-1], heads + 2 * kv, d)
        qk, v = qkv.split_with_sizes([heads + kv, kv], -2)
        if self.q_norm is not None:
            # In training the weights move on, so the laid-out copy would be stale.
            stale = self.training or self.qk_weight is None
            weight = self._qk_weight() if stale else self.qk_weight
            assert weight is not None
            qk = rms_norm(qk, weight, self.q_norm.eps)
        q, k = rotate(qk, cos, sin).split_with_sizes([heads, kv], -2)
        out: Tensor = self.o_proj(attend(q, k, v))
        return out

    def memory(self, h: Tensor, cos: Tensor | None, sin: Tensor | None) -> tuple[Tensor, Tensor]:
        """Only the keys and values of h: [..., h, d] each."""
        shape = (*h.shape[:-1], self.kv_heads, self.head_dim)
        k = self.k_proj(h).view(shape)
        if self.k_norm is not None:
            k = self.k_norm(k)
        return rotate(k, cos, sin), self.v_proj(h).view(shape)


class Mlp(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        hidden, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = Linear(hidden, inner, bias=bias)
        self.up_proj = Linear(hidden, inner, bias=bias)
        self.down_proj = Linear(inner, hidden, bias=bias)
        self.gate_up = Fused(self.gate_proj, self.up_proj)

    def forward(self, h: Tensor) -> Tensor:
        gate, up = self.gate_up(h).chunk(2, -1)
        out: Tensor = self.down_proj(F.silu(gate) * up)
        return out


class Layer(nn.Module):
    """One pre-norm block."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.input_layernorm = Norm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = Norm(config.hidden_size, config.norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, cos: Tensor | None, sin: Tensor | None, attend: Attend) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, attend)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Rotary(nn.Module):
    """cos and sin tables, grown on demand and kept in float32 until they are looked up. With the
    rope type "none" there are none."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.inverse, self.scale = frequencies(config.head_dim, config.rope)
        self.off = config.rope.get("rope_type") == "none"
        self.cos = torch.empty(0, config.head_dim)
        self.sin = self.cos

    def reserve(self, length: int, like: Tensor) -> None:
        """Have rows for `length` positions in the dtype and on the device of `like`."""
        cos = self.cos
        if self.off:
            return
        if cos.shape[0] < length or cos.dtype != like.dtype or cos.device != like.device:
            cos, sin = table(self.inverse, self.scale, max(length, 256))
            self.cos, self.sin = cos.to(like), sin.to(like)

    def forward(self, positions: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """positions [...] -> cos, sin [..., 1, d]"""
        if self.off:
            return None, None
        return self.cos[positions].unsqueeze(-2), self.sin[positions].unsqueeze(-2)


def fuse_all(layers: nn.ModuleList) -> None:
    for layer in layers:
        assert isinstance(layer, Layer)
        layer.self_attn.fuse()
        layer.mlp.gate_up.fuse()
