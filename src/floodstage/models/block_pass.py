"""A block-diffusion drafter's cycle in few fixed shapes, for `graphs`: it reads what the target
wrote and fills a block, all in one pass.

The host says four numbers for each sequence; cells, positions and masks are made of them on the
device. There are always as many context rows as a whole accepted block brings, so that one shape
serves every cycle; most rows repeat the last one and write its cell again with the same values.

Shapes: n sequences, R context rows and B block slots each, K cells seen, N packed rows given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from floodstage.models.cache import KVCache, additive, upload
from floodstage.models.graphs import Graphs, Pass, fixed_rows, rows_for, width_for

if TYPE_CHECKING:
    from floodstage.models.block_diffusion import BlockDiffusion


@dataclass(frozen=True, slots=True)
class BlockShape:
    """What one graph of a drafter is good for."""

    sequences: int
    rows: int
    slots: int
    width: int


class BlockPass(Pass):
    """`BlockDiffusion.draft` for counts > 0: tokens and confidence, each [n, B - 1]."""

    def __init__(self, net: BlockDiffusion, shape: BlockShape) -> None:
        super().__init__(net.rotary)
        self.net, self.shape = net, shape
        n, like = shape.sequences, net.target.model.embed_tokens.weight
        self.taps = like.new_zeros(n * shape.rows, net.fc.in_features)
        self.plan = torch.zeros(4, n, dtype=torch.long, device=like.device)

    def load(
        self,
        taps: Sequence[Tensor],
        bases: Sequence[int],
        counts: Sequence[int],
        anchors: Sequence[int],
    ) -> None:
        """Fill the buffers: `counts[i]` rows of taps after `bases[i]` cells, and the anchors."""
        torch.cat(list(taps), out=self.taps[: sum(counts)])
        starts = [0, *accumulate(counts)][:-1]
        plan = torch.tensor([list(bases), list(counts), starts, list(anchors)])
        self.plan.copy_(upload(plan, self.plan.device))

    def compute(self, cache: KVCache) -> tuple[Tensor, Tensor]:
        net, shape, device = self.net, self.shape, self.plan.device
        base, count, start, anchor = self.plan[:, :, None].unbind(0)  # [n, 1] each
        step = torch.arange(shape.rows, device=device).minimum(count - 1)  # [n, R]
        context = net.context(self.taps[(start + step).flatten()])
        net.remember(cache, context, fixed_rows(base + step, base + step, shape.width))

        slot = torch.arange(shape.slots, device=device)
        cells = base + count + slot  # [n, B]
        block = anchor.expand_as(cells).masked_fill(slot > 0, net.config.mask_id)
        body = net.config.body
        masks: dict[int | None, Tensor | None] = {
            window: additive(self._seen(cells, window), body.heads // body.kv_heads, context.dtype)
            for window in set(body.windows)
        }
        return net.through(cache, block, fixed_rows(cells, cells, shape.width), masks)

    def _seen(self, cells: Tensor, window: int | None) -> Tensor:
        """Which cells each slot sees, [n, B, K]."""
        key = torch.arange(self.shape.width, device=cells.device)
        causal = window is not None and self.net.config.causal_windows
        last = cells if causal else cells[:, -1:].expand_as(cells)
        seen = key <= last[:, :, None]
        return seen if window is None else seen & (key > cells[:, :, None] - window)


def run_block(
    graphs: Graphs,
    net: BlockDiffusion,
    cache: KVCache,
    taps: Sequence[Tensor],
    bases: Sequence[int],
    counts: Sequence[int],
    anchors: Sequence[int],
    slots: int,
) -> tuple[Tensor, Tensor]:
    """`BlockDiffusion.draft` in a fixed shape. Gives fresh tensors."""
    end = max(b + c for b, c in zip(bases, counts, strict=True)) + slots
    rows, width = rows_for(max(slots, *counts)), width_for(end, cache.capacity)
    shape = BlockShape(len(counts), rows, slots, width)
    one = graphs.known(cache, shape, lambda: BlockPass(net, shape))
    one.load(taps, bases, counts, anchors)
    tokens, confidence = graphs.play(one, cache)
    assert confidence is not None
    return tokens.clone(), confidence.clone()
