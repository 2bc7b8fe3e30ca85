"""The DFlash drafter: a small stack that fills a whole block of masked tokens in one pass.

Checkpoint-compatible with the published drafters (z-lab/dflash, format of 2026): a Qwen3-style
stack without embedding and head, which it borrows from its target. Every layer sees, besides the
block itself, the target's hidden states of the text so far as extra keys and values. Slot 0 of a
block holds the anchor (the last committed token), slots 1.. hold the mask token; slot k predicts
the token at anchor + k. The context of a block are the positions strictly before its anchor.

Shapes: B block slots, T tapped layers, H hidden size, N packed rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from floodstage.core.errors import ConfigError, PairingError
from floodstage.models.block_pass import run_block
from floodstage.models.cache import KVCache, Rows, plan_rows, upload
from floodstage.models.config import TransformerConfig
from floodstage.models.graphs import Graphs
from floodstage.models.layers import Attend, Layer, Linear, Norm, Rotary, fuse_all
from floodstage.models.transformer import Transformer, cached

ARCHITECTURE = "DFlashDraftModel"
_DFLASH_KEYS = {"mask_token_id", "target_layer_ids", "block_size"}
_QWEN3_KEYS = {
    *("architectures", "auto_map", "attention_bias", "attention_dropout", "block_size"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "dflash_config", "dtype", "torch_dtype"),
    *("head_dim", "hidden_act", "hidden_size", "initializer_range", "intermediate_size"),
    *("is_causal", "layer_types", "max_position_embeddings", "max_window_layers", "model_type"),
    *("num_attention_heads", "num_hidden_layers", "num_key_value_heads", "num_target_layers"),
    *("rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta", "sliding_window"),
    *("tie_word_embeddings", "transformers_version", "use_cache", "use_sliding_window"),
    *("vocab_size", "_name_or_path", "target_model_name_or_path"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDiffusionConfig:
    """The drafter's shape and how it hangs on its target."""

    body: TransformerConfig
    block_size: int  # B, the anchor counted
    mask_id: int
    taps: tuple[int, ...]  # 0-based target layers, after which the hidden state is taken
    target_layers: int
    causal_windows: bool  # whether sliding layers are causal inside the block

    @property
    def draft_len(self) -> int:
        return self.block_size - 1

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> BlockDiffusionConfig:
        """Read a published `config.json`. Raises PairingError for keys that would change the
        computation in a way this runtime does not know, ConfigError for values out of range."""
        given = raw.get("dflash_config") or {}
        if not isinstance(given, Mapping):
            raise ConfigError(f"dflash_config must be a JSON object, got {given!r}.")
        inner = dict(given)
        strange = sorted((set(raw) - _QWEN3_KEYS) | (set(inner) - _DFLASH_KEYS))
        if strange:
            raise PairingError(
                f"The drafter's config has keys this runtime does not know: {', '.join(strange)}. "
                "They may change what the weights mean, so it is not loaded."
            )
        body = TransformerConfig.from_dict({**raw, "model_type": "qwen3"})
        block = raw.get("block_size", inner.get("block_size"))
        if inner.get("mask_token_id") is None:
            raise ConfigError("The drafter's config lacks dflash_config.mask_token_id.")
        target_layers = _whole("num_target_layers", raw.get("num_target_layers") or 0)
        taps = inner.get("target_layer_ids")
        if taps is None:
            if not target_layers:
                raise ConfigError(
                    "The drafter's config has neither dflash_config.target_layer_ids nor "
                    "num_target_layers."
                )
            taps = default_taps(target_layers, body.layers)
        if not isinstance(taps, list | tuple):
            raise ConfigError(f"The drafter's target_layer_ids must be a list, got {taps!r}.")
        return cls(
            body=body,
            block_size=_whole("block_size", block, least=2),
            mask_id=_whole("mask_token_id", inner["mask_token_id"]),
            taps=tuple(_whole("target_layer_ids", t) for t in taps),
            target_layers=target_layers,
            causal_windows=bool(raw.get("is_causal", True)),
        )

    def to_dict(self) -> dict[str, Any]:
        """A `config.json` in the published format."""
        return self.body.to_dict() | {
            "architectures": [ARCHITECTURE],
            "block_size": self.block_size,
            "num_target_layers": self.target_layers,
            "dflash_config": {
                "mask_token_id": self.mask_id,
                "target_layer_ids": list(self.taps),
            },
        }


def _whole(name: str, value: Any, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"The drafter's {name} must be a whole number >= {least}, got {value!r}.")
    return value


def default_taps(target_layers: int, draft_layers: int) -> tuple[int, ...]:
    """The published rule for configs that name no layers: evenly from 1 to the fourth-last."""
    if draft_layers == 1:
        return (target_layers // 2,)
    width = target_layers - 4
    return tuple(round(1 + i * width / (draft_layers - 1)) for i in range(draft_layers))


class BlockDiffusion(nn.Module):
    """The weights, and the pass over a block. `bind` lends it its target's embedding and head."""

    def __init__(self, config: BlockDiffusionConfig) -> None:
        super().__init__()
        self.config = config
        body = config.body
        self.fc = Linear(len(config.taps) * body.hidden_size, body.hidden_size, bias=False)
        self.hidden_norm = Norm(body.hidden_size, body.norm_eps)
        self.layers = nn.ModuleList(Layer(body) for _ in range(body.layers))
        self.norm = Norm(body.hidden_size, body.norm_eps)
        self.rotary = Rotary(body)
        self.graphs: Graphs | None = None  # made on CUDA by `begin`
        self._target: tuple[Transformer, ...] = ()  # in a tuple: not a submodule

    def bind(self, target: Transformer) -> BlockDiffusion:
        """Borrow the target's embedding and head. Raises PairingError if they do not fit."""
        check_pairing(self.config, target.config)
        self._target = (target,)
        self.graphs = None  # they hold the addresses of the weights
        return self

    def fuse(self) -> BlockDiffusion:
        fuse_all(self.layers)
        self.graphs = None
        return self

    @property
    def target(self) -> Transformer:
        return self._target[0]

    def begin(self, session: object, slots: int, capacity: int) -> KVCache:
        """An empty cache; it may be lent again when nobody holds `session` any more."""
        target = self.target
        if target.captures and self.graphs is None and target.device.type == "cuda":
            self.graphs = Graphs(self)
        make = self.room if self.graphs is None else self.graphs.lend
        cache = make(slots, capacity)
        self.rotary.reserve(cache.capacity, target.model.embed_tokens.weight)
        if self.graphs is not None:
            self.graphs.expect_back(session, cache)
        return cache

    def room(self, slots: int, capacity: int) -> KVCache:
        """A new cache."""
        body, target = self.config.body, self.target
        return KVCache.empty(
            body.layers,
            slots,
            body.kv_heads,
            capacity,
            body.head_dim,
            dtype=target.dtype,
            device=target.device,
        )

    @torch.inference_mode()
    def draft(
        self,
        cache: KVCache,
        taps: Sequence[Tensor],
        counts: Sequence[int],
        block: Tensor,
        top: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """Read new taps, `counts[i]` rows of sequence i, in parts that make [N, T * H] together;
        then fill the blocks [n, slots]: see `through`."""
        bases, slots = cache.extend(0, counts), block.shape[1]
        ends = cache.extend(0, [slots] * len(counts))  # the block is written, then forgotten
        for slot, end in enumerate(ends):
            cache.rollback(slot, end)
        if self.graphs is not None and self.graphs.fits([*counts, slots]):
            return run_block(self.graphs, self, cache, taps, bases, counts, block, top)
        if taps:
            context = self.context(taps[0] if len(taps) == 1 else torch.cat(list(taps)))
            rows = plan_rows(bases, counts, causal=False, device=context.device)
            self.remember(cache, context, rows)
        return self.fill(cache, ends, block, top)

    def blank(self, anchors: Sequence[int], slots: int) -> Tensor:
        """Blocks [n, slots] of masks, each after its anchor."""
        device = self.target.device
        block = torch.full((len(anchors), slots), self.config.mask_id, device=device)
        block[:, 0] = upload(torch.tensor(list(anchors)), device)
        return block

    def context(self, taps: Tensor) -> Tensor:
        """Tapped features [..., T * H] -> what every layer sees of the text, [..., H]."""
        fused: Tensor = self.hidden_norm(self.fc(taps))
        return fused

    def remember(self, cache: KVCache, context: Tensor, rows: Rows) -> None:
        """Write the keys and values of new context rows [N, H] of every layer."""
        cos, sin = self.rotary(rows.positions)
        for i, layer in enumerate(self.layers):
            k, v = layer.self_attn.memory(context, cos, sin)  # type: ignore[union-attr, operator]
            cache.write(i, rows, k, v)

    def fill(
        self, cache: KVCache, bases: Sequence[int], block: Tensor, top: int = 1
    ) -> tuple[Tensor, Tensor]:
        """`through` for blocks [n, slots] that follow `bases[i]` context rows each. The cells of
        the block are not counted."""
        config, (n, slots) = self.config.body, block.shape
        device = self.target.device
        rows = plan_rows(bases, [slots] * n, causal=False, device=device)
        group = config.heads // config.kv_heads
        dtype = self.target.dtype
        masks = {w: self._mask(cache, rows, group, dtype, w) for w in set(config.windows)}
        return self.through(cache, block, rows, masks, top)

    def through(
        self,
        cache: KVCache,
        block: Tensor,
        rows: Rows,
        masks: Mapping[int | None, Tensor | None],
        top: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """The `top` likeliest tokens of every slot but the anchor's, likeliest first, and their
        probabilities, each [n, slots - 1, top]. `masks`: see `KVCache.stacked`."""
        x = self.target.model.embed_tokens(block.flatten())
        cos, sin = self.rotary(rows.positions)
        for i, layer in enumerate(self.layers):
            x = layer(x, cos, sin, cached(cache, i, rows, masks[self.config.body.windows[i]]))
        hidden = x.view(*block.shape, -1)[:, 1:]
        logits = self.target.lm_head(self.norm(hidden)).float()
        best, tokens = logits.max(-1, keepdim=True) if top == 1 else logits.topk(top)
        return tokens, (best - logits.logsumexp(-1, keepdim=True)).exp()

    def _mask(
        self, cache: KVCache, rows: Rows, group: int, dtype: torch.dtype, window: int | None
    ) -> Tensor | None:
        if window is not None and self.config.causal_windows:
            rows = plan_rows(
                rows.bases, rows.counts, first=rows.first, device=rows.positions.device
            )
        return cache.stacked(rows, group, dtype, window)

    def denoise(self, context: Tensor, tokens: Tensor, places: Tensor, slots: int) -> Tensor:
        """Many blocks over known texts, for training: hidden states after the final norm.

        context [b, t, H] of the whole texts (`context()` of their taps), tokens and places
        [b, a * slots] of the blocks' slots, each block beginning with its anchor -> like tokens,
        [..., H]. A block sees the text strictly before its anchor, and all of itself.
        """
        x = self.target.model.embed_tokens(tokens)
        length = context.shape[1]
        self.rotary.reserve(length + slots, x)
        at = torch.arange(length, device=x.device)
        anchor = places[:, ::slots].repeat_interleave(slots, 1)  # [b, a * slots]
        block = torch.arange(tokens.shape[1], device=x.device) // slots
        mask = torch.cat(
            [
                at < anchor[:, :, None],
                (block == block[:, None]).expand(x.shape[0], -1, -1),
            ],
            -1,
        )[:, None]
        cos, sin = self.rotary(places)
        text = self.rotary(at)
        for layer in self.layers:
            attend = over_context(layer, context, text, mask)  # type: ignore[arg-type]
            x = layer(x, cos, sin, attend)
        hidden: Tensor = self.norm(x)
        return hidden


def over_context(
    layer: Layer, context: Tensor, text: tuple[Tensor, Tensor], mask: Tensor
) -> Attend:
    """Attention of block rows over context keys and their own."""
    keys, values = layer.self_attn.memory(context, *text)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            torch.cat([keys, k], 1).transpose(1, 2),
            torch.cat([values, v], 1).transpose(1, 2),
            attn_mask=mask,
            enable_gqa=q.shape[2] != k.shape[2],
        )
        return out.transpose(1, 2).flatten(2)

    return attend


def check_pairing(draft: BlockDiffusionConfig, target: TransformerConfig) -> None:
    """Whether a drafter belongs to a target. Raises PairingError with the reason."""
    if draft.body.hidden_size != target.hidden_size:
        raise PairingError(
            f"The drafter reads hidden states of size {draft.body.hidden_size}, "
            f"the target's are of size {target.hidden_size}: they are not a pair."
        )
    if draft.body.vocab_size != target.vocab_size:
        raise PairingError(
            f"The drafter knows {draft.body.vocab_size} tokens, the target "
            f"{target.vocab_size}: they are not a pair."
        )
    if not 0 <= draft.mask_id < target.vocab_size:
        raise PairingError(
            f"The drafter's mask id {draft.mask_id} is outside the target's vocabulary of "
            f"{target.vocab_size}."
        )
    if draft.target_layers and draft.target_layers != target.layers:
        raise PairingError(
            f"The drafter was made for a target of {draft.target_layers} layers; "
            f"this one has {target.layers}."
        )
    if not draft.taps or not all(0 <= t < target.layers for t in draft.taps):
        raise PairingError(
            f"The drafter taps the layers {list(draft.taps)}; the target has layers 0 to "
            f"{target.layers - 1}."
        )
