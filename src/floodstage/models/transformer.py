"""The lean runtime for the Llama family: Llama, Mistral, Qwen2, Qwen3 and what shares their shape.

One body serves inference (packed rows, a cache, trees) and training (whole texts, autograd): they
differ only in the `attend` function handed to each layer. Parameter names are Hugging Face's.
Knows nothing of files, tokens' meaning or drafting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from floodstage.core.errors import ContextError, PairingError
from floodstage.core.types import Forward
from floodstage.models.cache import KVCache, ParentLists, Rows, plan_rows, upload
from floodstage.models.config import TransformerConfig
from floodstage.models.graphs import Graphs
from floodstage.ops.rope import frequencies, rotate, table

Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q [..., H, d], k and v [..., h, d] -> [..., H * d]"""

PREFILL_CHUNK = 512
"""Rows of a prompt that go through at once: bounds the mask and the activations."""


class Norm(nn.Module):
    """RMSNorm (Zhang & Sennrich 2019), in float32 inside."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class Fused:
    """Linear layers over the same input, run as one.

    `fuse` lays their weights in one block of memory and makes each layer's weight a view of its
    part, so that the separate parameters stay what is saved, loaded and trained.
    """

    def __init__(self, *parts: nn.Linear) -> None:
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
        return F.linear(x, weight, bias)


class Attention(nn.Module):
    """Grouped-query self-attention; where keys come from and go to is the caller's business."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        hidden, d = config.hidden_size, config.head_dim
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, d
        self.q_proj = nn.Linear(hidden, config.heads * d, bias=config.qkv_bias)
        self.k_proj = nn.Linear(hidden, config.kv_heads * d, bias=config.qkv_bias)
        self.v_proj = nn.Linear(hidden, config.kv_heads * d, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.heads * d, hidden, bias=config.out_bias)
        self.q_norm = Norm(d, config.norm_eps) if config.qk_norm else None
        self.k_norm = Norm(d, config.norm_eps) if config.qk_norm else None
        self.qkv = Fused(self.q_proj, self.k_proj, self.v_proj)

    def forward(self, h: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """h [..., H]; cos, sin [..., 1, d] -> [..., H]"""
        heads, kv, d = self.heads, self.kv_heads, self.head_dim
        qkv = self.qkv(h).view(*h.shape[:-1], heads + 2 * kv, d)
        q, k, v = qkv.split_with_sizes([heads, kv, kv], -2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        out: Tensor = self.o_proj(attend(rotate(q, cos, sin), rotate(k, cos, sin), v))
        return out

    def memory(self, h: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
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
        self.gate_proj = nn.Linear(hidden, inner, bias=bias)
        self.up_proj = nn.Linear(hidden, inner, bias=bias)
        self.down_proj = nn.Linear(inner, hidden, bias=bias)
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

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, attend)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Rotary(nn.Module):
    """cos and sin tables, grown on demand and kept in float32 until they are looked up."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.inverse, self.scale = frequencies(config.head_dim, config.rope)
        self.cos = torch.empty(0, config.head_dim)
        self.sin = self.cos

    def reserve(self, length: int, like: Tensor) -> None:
        """Have rows for `length` positions in the dtype and on the device of `like`."""
        cos = self.cos
        if cos.shape[0] < length or cos.dtype != like.dtype or cos.device != like.device:
            cos, sin = table(self.inverse, self.scale, max(length, 256))
            self.cos, self.sin = cos.to(like), sin.to(like)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions [...] -> cos, sin [..., 1, d]"""
        return self.cos[positions].unsqueeze(-2), self.sin[positions].unsqueeze(-2)


class Body(nn.Module):
    """Embedding, layers, final norm: what checkpoints call `model`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = Norm(config.hidden_size, config.norm_eps)


class Transformer(nn.Module):
    """A causal language model that satisfies `core.protocols.Target`."""

    trees = True
    captures = True
    """Whether passes are replayed as CUDA graphs where there is CUDA; may be set to False."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.rotary = Rotary(config)
        self.graphs: Graphs | None = None  # made on CUDA by `begin`
        self.tie()

    def tie(self) -> None:
        if self.config.tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def fuse(self) -> Transformer:
        """Lay fused weights together; call once, after loading or moving. Gives itself."""
        fuse_all(self.model.layers)
        self.graphs = None  # they hold the addresses of the weights
        return self

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def context(self) -> int:
        return self.config.context

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.embed_tokens.weight.dtype

    # -- inference ----------------------------------------------------------------------------

    def begin(self, slots: int, capacity: int, *, taps: tuple[int, ...] = ()) -> State:
        """An empty state. Raises ContextError if `capacity` is more than the model addresses,
        PairingError if a tapped layer does not exist."""
        if capacity > self.context:
            raise ContextError(
                f"The text may grow to {capacity} tokens, but the model's context is "
                f"{self.context}: shorten the prompt or lower max_new_tokens."
            )
        if not all(0 <= tap < self.config.layers for tap in taps):
            raise PairingError(
                f"The layers {list(taps)} are tapped; the model has layers 0 to "
                f"{self.config.layers - 1}."
            )
        if self.captures and self.graphs is None and self.device.type == "cuda":
            self.graphs = Graphs(self)
        make = self.room if self.graphs is None else self.graphs.lend
        cache = make(slots, capacity)
        self.rotary.reserve(cache.capacity, self.model.embed_tokens.weight)
        state = State(cache, taps)
        if self.graphs is not None:
            self.graphs.expect_back(state, cache)
        return state

    def room(self, slots: int, capacity: int) -> KVCache:
        """A new cache."""
        c = self.config
        return KVCache.empty(
            c.layers,
            slots,
            c.kv_heads,
            capacity,
            c.head_dim,
            dtype=self.dtype,
            device=self.device,
        )

    @torch.inference_mode()
    def forward(
        self,
        state: State,
        tokens: Sequence[Tensor],
        *,
        first: int = 0,
        parents: ParentLists | None = None,
        last_only: bool = False,
    ) -> Forward:
        """See `core.protocols.Target`. Raises ContextError if the rows do not fit."""
        counts = [t.shape[0] for t in tokens]
        chain = parents is None or all(p is None for p in parents)
        if max(counts) > PREFILL_CHUNK and len(counts) == 1 and chain:
            return self._chunked(state, tokens[0], first, last_only)
        bases = state.cache.extend(first, counts)
        ids = tokens[0] if len(tokens) == 1 else torch.cat(list(tokens))
        parents = None if chain else parents
        if self.graphs is not None and self.graphs.fits(first, counts):
            hidden, taps = self.graphs.run(state.cache, ids, bases, counts, parents, state.taps)
        else:
            rows = plan_rows(bases, counts, first=first, parents=parents, device=self.device)
            hidden, taps = self.run(state.cache, ids, rows, state.taps)
        if last_only:
            hidden = hidden[upload(torch.tensor([*accumulate(counts)]) - 1, self.device)]
        return Forward(self.lm_head(self.model.norm(hidden)), taps)

    def _chunked(self, state: State, ids: Tensor, first: int, last_only: bool) -> Forward:
        # All of it must fit before any of it is read.
        (base,) = state.cache.extend(first, [ids.shape[0]])
        state.cache.rollback(first, base)
        parts = [
            self.forward(state, [part], first=first, last_only=last_only)
            for part in torch.split(ids, PREFILL_CHUNK)
        ]
        taps = [p.taps for p in parts if p.taps is not None]
        logits = parts[-1].logits if last_only else torch.cat([p.logits for p in parts])
        return Forward(logits, torch.cat(taps) if taps else None)

    def run(
        self, cache: KVCache, ids: Tensor, rows: Rows, taps: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        """The layers over packed rows: hidden [N, H] before the final norm, taps [N, D]."""
        c = self.config
        group = c.heads // c.kv_heads
        masks = {w: cache.stacked(rows, group, self.dtype, w) for w in set(c.windows)}
        return self.through(cache, ids, rows, masks, taps)

    def through(
        self,
        cache: KVCache,
        ids: Tensor,
        rows: Rows,
        masks: Mapping[int | None, Tensor | None],
        taps: Sequence[int],
    ) -> tuple[Tensor, Tensor | None]:
        """`run` with ready masks, one per kind of window (see `KVCache.stacked`)."""
        x = self.model.embed_tokens(ids)
        cos, sin = self.rotary(rows.positions)
        kept: dict[int, Tensor] = {}
        for i, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, cached(cache, i, rows, masks[self.config.windows[i]]))
            if i in taps:
                kept[i] = x
        return x, torch.cat([kept[i] for i in taps], -1) if taps else None

    # -- training -----------------------------------------------------------------------------

    def read(self, ids: Tensor, taps: Sequence[int] = ()) -> tuple[Tensor, Tensor | None]:
        """Whole texts at once, with gradients: ids [B, T] -> hidden [B, T, H] after the final
        norm, and taps [B, T, D]. Padding on the right needs no mask: attention is causal."""
        self.rotary.reserve(ids.shape[1], self.model.embed_tokens.weight)
        x = self.model.embed_tokens(ids)
        cos, sin = self.rotary(torch.arange(ids.shape[1], device=ids.device))
        kept: dict[int, Tensor] = {}
        for i, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, whole_texts(self.config.windows[i]))
            if i in taps:
                kept[i] = x
        return self.model.norm(x), torch.cat([kept[i] for i in taps], -1) if taps else None


class State:
    """A target's memory: the cache, and which layers are tapped."""

    def __init__(self, cache: KVCache, taps: tuple[int, ...]) -> None:
        self.cache, self.taps = cache, taps
        self.rollback, self.keep, self.leave = cache.rollback, cache.keep, cache.leave

    @property
    def lengths(self) -> Sequence[int]:
        return self.cache.lengths


def cached(cache: KVCache, layer: int, rows: Rows, mask: Tensor | None) -> Attend:
    """Attention of packed rows through the cache."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        cache.write(layer, rows, k, v)
        return cache.attend(layer, rows, q, mask)

    return attend


def whole_texts(window: int | None) -> Attend:
    """Causal attention inside each text of a batch [B, T, heads, d]."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        length = q.shape[1]
        mask = None
        if window is not None and length > window:
            at = torch.arange(length, device=q.device)
            mask = (at <= at[:, None]) & (at > at[:, None] - window)
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=q.shape[2] != k.shape[2],
        )
        return out.transpose(1, 2).flatten(2)

    return attend


def fuse_all(layers: nn.ModuleList) -> None:
    for layer in layers:
        assert isinstance(layer, Layer)
        layer.self_attn.qkv.fuse()
        layer.mlp.gate_up.fuse()
