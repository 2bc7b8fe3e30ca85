"""How exact a flood is: what a decoder makes of every parent, against the hierarchy's own table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from floodstage.decoding.flood import FloodDecoder

STAGES = ("root_chunks", "chunk_chars", "root_text")


@dataclass(frozen=True, slots=True)
class Exactness:
    """Of the three `STAGES`: which types come out exactly (children, their order and their number),
    and how often a text holds each type."""

    right: tuple[Tensor, Tensor, Tensor]  # [types] bool each
    weights: tuple[Tensor, Tensor, Tensor]

    def over_types(self) -> dict[str, float]:
        return {s: float(r.double().mean()) for s, r in zip(STAGES, self.right, strict=True)}

    def weighted(self) -> dict[str, float]:
        """By how often the text holds them."""
        parts = zip(STAGES, self.right, self.weights, strict=True)
        return {s: float((r * w).sum() / w.sum()) for s, r, w in parts}


def exactness(decoder: FloodDecoder, roots: Tensor) -> Exactness:
    """Render every type of both levels; `roots` [n] are those of a text, for the weights."""
    hierarchy = decoder.hierarchy
    chunks = right_children(decoder, 0, hierarchy.root_chunks)
    chars = right_children(decoder, 1, hierarchy.chunk_chars)
    # A root's text is right if its chunks are, and theirs are; wrong chunks may spell it, too.
    rendering = decoder.render(range(hierarchy.roots))
    spelt = [hierarchy.spell([r]) for r in range(hierarchy.roots)]
    text = torch.tensor([a == b for a, b in zip(rendering.pieces, spelt, strict=True)])
    seen = torch.bincount(roots, minlength=hierarchy.roots).double()
    below = torch.zeros(hierarchy.chunks, dtype=torch.float64)
    for root, count in enumerate(seen.tolist()):
        for chunk in hierarchy.root_chunks[root]:
            below[chunk] += count
    return Exactness((chunks, chars, text), (seen, below, seen))


def right_children(decoder: FloodDecoder, level: int, table: Sequence[tuple[int, ...]]) -> Tensor:
    """[types] bool: which parents of a level become exactly what `table` says."""
    parents = torch.arange(len(table)).to(decoder.renderer.device)
    found = decoder.expand(parents, level)
    return matches(found.children, found.lengths, table)


def matches(children: Tensor, lengths: Tensor, table: Sequence[tuple[int, ...]]) -> Tensor:
    """[P] bool: whether row i of children [P, S], up to its length, is exactly `table[i]`."""
    rows = zip(children.tolist(), lengths.tolist(), table, strict=True)
    return torch.tensor([tuple(row[:n]) == tuple(wanted) for row, n, wanted in rows])
