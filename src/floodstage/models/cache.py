"""A preallocated key/value cache for a batch of sequences, and the plan of one packed pass.

Sequence i sits in slot i. Rolling back changes one number. Knows no weights.

Shapes: S slots, C cells per slot, h key/value heads, d head dimension; N packed rows of n
sequences, R = the most rows of one of them, K = cells that the pass looks at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from floodstage.core.errors import ContextError, ModelError, RollbackError

ParentLists = Sequence["tuple[int, ...] | None"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the packed rows of one pass go and what they see."""

    first: int  # slot of the first sequence
    counts: tuple[int, ...]  # rows per sequence
    bases: tuple[int, ...]  # cells held before, per sequence; empty if only `cells` may say
    slots: Tensor  # [N] slot of each row
    cells: Tensor  # [N] cell of each row
    positions: Tensor  # [N] position of each row: its depth in a tree
    padded: Tensor | None  # [N] place of each row in [n * R]; None if all counts are equal
    mask: Tensor | None  # [n, R, K] bool, True = visible; None = all visible
    width: int  # K

    @property
    def longest(self) -> int:
        return max(self.counts)


def plan_rows(
    bases: Sequence[int],
    counts: Sequence[int],
    *,
    first: int = 0,
    parents: ParentLists | None = None,
    causal: bool = True,
    device: torch.device,
) -> Rows:
    """Plan a pass of `counts[i]` new rows after `bases[i]` cells for every sequence.

    `parents` make a sequence's rows a tree under its first row. Without `causal` every row sees
    its whole sequence, the new rows included (a block-diffusion drafter).
    """
    n, longest = len(counts), max(counts)
    ends = [b + c for b, c in zip(bases, counts, strict=True)]
    width = max(ends)
    cells = torch.tensor(bases)[:, None] + torch.arange(longest)  # [n, R]
    depth = cells
    mask: Tensor | None = None
    if causal and (longest > 1 or min(bases) != max(bases)):
        mask = torch.arange(width, device=device) <= upload(cells, device)[:, :, None]
    elif not causal and min(ends) != width:
        end = upload(torch.tensor(ends), device)[:, None, None]
        mask = (torch.arange(width, device=device) < end).expand(n, longest, width)
    if parents is not None and mask is not None:
        depth = cells.clone()
        for i, parent in enumerate(parents):
            if parent is not None:
                depths, sees = ancestry(parent, counts[i])
                depth[i, : counts[i]] = bases[i] + depths
                mask[i, : counts[i], bases[i] : ends[i]] = upload(sees, device)
    slots = torch.arange(first, first + n)[:, None].expand(n, longest)
    padded = None
    if min(counts) != longest:
        there = torch.arange(longest) < torch.tensor(counts)[:, None]
        padded = upload(there.flatten().nonzero()[:, 0], device)
        cells, depth, slots = cells[there], depth[there], slots[there]
    return Rows(
        first,
        tuple(counts),
        tuple(bases),
        upload(slots.flatten(), device),
        upload(cells.flatten(), device),
        upload(depth.flatten(), device),
        padded,
        mask,
        width,
    )


def upload(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on `device`, without waiting for what the device is doing."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def ancestry(parents: Sequence[int], rows: int) -> tuple[Tensor, Tensor]:
    """For a root and the nodes under it, `rows` in all: depths [rows] and who sees whom
    [rows, rows] bool. Raises ModelError if there are not as many parents as nodes."""
    if len(parents) != rows - 1:
        raise ModelError(f"{rows - 1} drafted tokens need as many parents, got {len(parents)}.")
    depths = [0] * rows
    sees = bytearray(rows * rows)  # filled here, not as a tensor: this runs in every cycle
    sees[0] = 1
    for node, parent in enumerate(parents, start=1):
        above = (parent + 1) * rows
        depths[node] = depths[parent + 1] + 1
        sees[node * rows : (node + 1) * rows] = sees[above : above + rows]
        sees[node * rows + node] = 1
    return torch.tensor(depths), torch.frombuffer(sees, dtype=torch.bool).view(rows, rows)


@dataclass(slots=True, eq=False, weakref_slot=True)
class KVCache:
    """Keys and values of every layer, and how many cells of each slot hold true tokens."""

    keys: list[Tensor]  # per layer [S, h, C, d]
    values: list[Tensor]
    lengths: list[int] = field(default_factory=list)

    @classmethod
    def empty(
        cls,
        layers: int,
        slots: int,
        heads: int,
        capacity: int,
        head_dim: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> KVCache:
        shape = (slots, heads, capacity, head_dim)

        def room() -> list[Tensor]:
            return [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]

        return cls(room(), room())

    @property
    def slots(self) -> int:
        return self.keys[0].shape[0]

    @property
    def capacity(self) -> int:
        return self.keys[0].shape[2]

    def extend(self, first: int, counts: Sequence[int]) -> list[int]:
        """Count `counts[i]` new cells in slot `first + i`; give the lengths before.

        Raises ContextError if a slot or its cells do not exist; then nothing has changed.
        """
        if first + len(counts) > self.slots:
            raise ContextError(
                f"The batch has {self.slots} slots; {first + len(counts)} were asked for."
            )
        held = self.lengths + [0] * (first + len(counts) - len(self.lengths))
        bases = held[first : first + len(counts)]
        for base, count in zip(bases, counts, strict=True):
            if base + count > self.capacity:
                raise ContextError(
                    f"{base + count} tokens do not fit: there is room for {self.capacity}."
                )
        self.lengths = held
        for i, count in enumerate(counts):
            self.lengths[first + i] += count
        return bases

    def write(self, layer: int, rows: Rows, k: Tensor, v: Tensor) -> None:
        """Put k, v [N, h, d] where the plan says."""
        keys, values = self.keys[layer], self.values[layer]
        if len(rows.bases) == 1:
            slot, start = rows.first, rows.bases[0]
            keys[slot, :, start : start + k.shape[0]] = k.transpose(0, 1)
            values[slot, :, start : start + k.shape[0]] = v.transpose(0, 1)
        else:
            keys[rows.slots, :, rows.cells] = k
            values[rows.slots, :, rows.cells] = v

    def attend(self, layer: int, rows: Rows, q: Tensor, mask: Tensor | None) -> Tensor:
        """q [N, H, d] over the cells of its own sequence -> [N, H * d].

        The H / h query heads of one key head are stacked along the rows, so keys are never copied.
        `mask` is that of `stacked`.
        """
        n, longest = len(rows.counts), rows.longest
        heads, d = q.shape[1:]
        kv_heads = self.keys[layer].shape[1]
        group = heads // kv_heads
        if rows.padded is not None:
            full = q.new_zeros(n * longest, heads, d)
            full[rows.padded] = q
            q = full
        q = q.view(n, longest, kv_heads, group, d).permute(0, 2, 3, 1, 4)
        last = rows.first + n
        out = F.scaled_dot_product_attention(
            q.reshape(n, kv_heads, group * longest, d),
            self.keys[layer][rows.first : last, :, : rows.width],
            self.values[layer][rows.first : last, :, : rows.width],
            attn_mask=mask,
        )
        out = out.view(n, kv_heads, group, longest, d).permute(0, 3, 1, 2, 4)
        out = out.reshape(n * longest, heads * d)
        return out if rows.padded is None else out[rows.padded]

    def stacked(
        self, rows: Rows, group: int, dtype: torch.dtype, window: int | None = None
    ) -> Tensor | None:
        """The plan's mask as `attend` wants it: additive, [n, 1, group * R, K]."""
        mask = rows.mask
        if window is not None and rows.width > window:
            mask = _windowed(rows, window)
        if mask is None:
            return None
        return additive(mask, group, dtype)

    def rollback(self, slot: int, length: int) -> None:
        """Forget everything past `length` tokens of one sequence."""
        if not 0 <= length <= self.lengths[slot]:
            raise RollbackError(
                f"Cannot roll back to {length}: slot {slot} holds {self.lengths[slot]} tokens."
            )
        self.lengths[slot] = length

    def keep(self, slot: int, base: int, path: Sequence[int]) -> None:
        """Keep the row at `base` and the tree nodes `path` after it; move them together."""
        wanted = [base + 1 + node for node in path]
        if wanted != list(range(base + 1, base + 1 + len(path))):
            source = upload(torch.tensor(wanted), self.keys[0].device)
            for store in (*self.keys, *self.values):
                store[slot, :, base + 1 : base + 1 + len(path)] = store[slot].index_select(
                    1, source
                )
        self.rollback(slot, base + 1 + len(path))

    def leave(self, slot: int) -> None:
        """Forget the sequence in `slot`; the last sequence moves there."""
        last = len(self.lengths) - 1
        if slot != last:
            held = self.lengths[last]
            for store in (*self.keys, *self.values):
                store[slot, :, :held] = store[last, :, :held]
            self.lengths[slot] = held
        self.lengths.pop()


def additive(mask: Tensor, group: int, dtype: torch.dtype) -> Tensor:
    """[n, R, K] bool, True = visible -> what is added to scores, [n, 1, group * R, K]."""
    n, longest, width = mask.shape
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    bias.masked_fill_(~mask, torch.finfo(dtype).min)
    return bias[:, None, None].expand(n, 1, group, longest, width).reshape(n, 1, -1, width)


def _windowed(rows: Rows, window: int) -> Tensor:
    """The plan's mask, less the cells that lie `window` or more positions back.

    Cells before the new rows are at their own positions; those of new rows are in the plan.
    """
    n, longest = len(rows.counts), rows.longest
    device = rows.cells.device
    here = torch.zeros(n * longest, dtype=torch.long, device=device)
    where = slice(None) if rows.padded is None else rows.padded
    here[where] = rows.positions
    here = here.view(n, longest)
    at = torch.arange(rows.width, device=device).repeat(n, 1)  # [n, K]
    for i, (base, count) in enumerate(zip(rows.bases, rows.counts, strict=True)):
        at[i, base : base + count] = here[i, :count]
    near = at[:, None, :] > here[:, :, None] - window
    return near if rows.mask is None else near & rows.mask
