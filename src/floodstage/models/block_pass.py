"""A block-diffusion drafter's cycle in few fixed shapes, for `graphs`: it reads what the target
wrote and fills a block, all in one pass.

The host says three numbers for each sequence; cells, positions and masks are made of them on the
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
    top: int


class BlockPass(Pass):
    """`BlockDiffusion.draft` for counts > 0."""

    def __init__(self, net: BlockDiffusion, shape: BlockShape) -> None:
        super().__init__(net.rotary)
        self.net, self.shape = net, shape
        n, like = shape.sequences, net.target.model.embed_tokens.weight
        self.taps = like.new_zeros(n * shape.rows, net.fc.in_features)
        self.plan = torch.zeros(3, n, dtype=torch.long, device=like.device)
        self.block = torch.zeros(n, shape.slots, dtype=torch.long, device=like.device)

    def load(
        self,
        taps: Sequence[Tensor],
        bases: Sequence[int],
        counts: Sequence[int],
        block: Tensor,
    ) -> None:
        """Fill the buffers: `counts[i]` rows of taps after `bases[i]` cells, and the blocks."""
        torch.cat(list(taps), out=self.taps[: sum(counts)])
        starts = [0, *accumulate(counts)][:-1]
        plan = torch.tensor([list(bases), list(counts), starts])
        self.plan.copy_(upload(plan, self.plan.device))
        self.block.copy_(block)

    def compute(self, cache: KVCache) -> tuple[Tensor, Tensor]:
        net, shape, device = self.net, self.shape, self.plan.device
        base, count, start = self.plan[:, :, None].unbind(0)  # [n, 1] each
        step = torch.arange(shape.rows, device=device).minimum(count - 1)  # [n, R]
        context = net.context(self.taps[(start + step).flatten()])
        net.remember(cache, context, fixed_rows(base + step, base + step, shape.width))

        slot = torch.arange(shape.slots, device=device)
        cells = base + count + slot  # [n, B]
        body = net.config.body
        masks: dict[int | None, Tensor | None] = {
            window: additive(self._seen(cells, window), body.heads // body.kv_heads, context.dtype)
            for window in set(body.windows)
        }
        return net.through(
            cache, self.block, fixed_rows(cells, cells, shape.width), masks, shape.top
        )

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
    block: Tensor,
    top: int,
) -> tuple[Tensor, Tensor]:
    """`BlockDiffusion.draft` in a fixed shape. Gives fresh tensors."""
    slots = block.shape[1]
    end = max(b + c for b, c in zip(bases, counts, strict=True)) + slots
    rows, width = rows_for(max(slots, *counts)), width_for(end, cache.capacity)
    shape = BlockShape(len(counts), rows, slots, width, top)
    one = graphs.known(cache, shape, lambda: BlockPass(net, shape))
    one.load(taps, bases, counts, block)
    tokens, confidence = graphs.play(one, cache)
    assert confidence is not None
    return tokens.clone(), confidence.clone()
