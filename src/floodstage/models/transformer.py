"""The lean runtime for the Llama family: Llama, Mistral, Qwen2, Qwen3 and what shares their shape.

One body serves inference (packed rows, a cache, trees) and training (whole texts, autograd): they
differ only in the `attend` function handed to each layer. Parameter names are Hugging Face's.
Knows nothing of files, tokens' meaning or drafting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from floodstage.core.errors import ContextError, PairingError
from floodstage.core.types import Forward
from floodstage.models.cache import KVCache, ParentLists, Rows, plan_rows, upload
from floodstage.models.config import TransformerConfig
from floodstage.models.graphs import Graphs, run_target
from floodstage.models.layers import Attend, Layer, Linear, Norm, Rotary, fuse_all

PREFILL_CHUNK = 512
"""Rows of a prompt that go through at once: bounds the mask and the activations."""


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
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
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
        return self.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.lm_head.weight.dtype

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """ids [...] at `positions` of their texts -> [..., H]. For a model whose tokens mean more
        in some places than in others to override."""
        out: Tensor = self.model.embed_tokens(ids)
        return out

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
        self.rotary.reserve(cache.capacity, self.lm_head.weight)
        state = State(cache, taps)
        if self.graphs is not None:
            self.graphs.expect_back(state, cache)
        return state

    def room(self, slots: int, capacity: int) -> KVCache:
        """A new cache; its cells are no more than the model addresses."""
        c = self.config
        return KVCache.empty(
            c.layers,
            slots,
            c.kv_heads,
            min(capacity, self.context),
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
        if self.graphs is not None and first == 0 and self.graphs.fits(counts):
            hidden, taps = run_target(
                self.graphs, self, state.cache, ids, bases, counts, parents, state.taps
            )
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
        x = self.embed(ids, rows.positions)
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
        self.rotary.reserve(ids.shape[1], self.lm_head.weight)
        at = torch.arange(ids.shape[1], device=ids.device)
        x = self.embed(ids, at)
        cos, sin = self.rotary(at)
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

    @property
    def nbytes(self) -> int:
        """Bytes that the cache takes, used or not."""
        return sum(t.nbytes for t in (*self.cache.keys, *self.cache.values))


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
