"""A real hierarchy and a real renderer, small, untrained and in float64.

Float64, because a pass of one row and a pass of many differ in their last bits: here no two
choices are that close, so equal text is asked for and not nearly equal text.
"""

from __future__ import annotations

from functools import cache
from itertools import islice

import torch

from floodstage.models.fractal import Renderer, RendererConfig
from floodstage.text.hierarchy import Hierarchy, HierarchyShape, fit_hierarchy
from floodstage.text.mathematics import problems

SHAPE = HierarchyShape(chunks=420, roots=560, chars_per_chunk=6, chunks_per_root=3)


@cache
def texts() -> tuple[str, ...]:
    return tuple(f"{p.prompt}\n{p.solution}" for p in islice(problems("train", seed=3), 120))


@cache
def tiny_hierarchy() -> Hierarchy:
    return fit_hierarchy(texts(), SHAPE)


@cache
def tiny_renderer(seed: int = 0) -> Renderer:
    """Weights wide enough for every slot to matter to every other, and for draws to differ."""
    hierarchy = tiny_hierarchy()
    config = RendererConfig(
        roots=hierarchy.roots,
        chunks=hierarchy.chunks,
        chars=hierarchy.chars,
        chunks_per_root=SHAPE.chunks_per_root,
        chars_per_chunk=SHAPE.chars_per_chunk,
        hidden=32,
        layers=2,
        heads=2,
        inner=48,
    )
    model = Renderer(config).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                scale = 2.0 * p.shape[1] ** -0.5 if p.shape[0] < 500 else 1.0
                p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model.requires_grad_(False).fuse()


def roots(count: int, seed: int = 0) -> list[int]:
    """Roots of a real text, some of them more than once."""
    ids = [r for text in texts() for r in tiny_hierarchy().encode(text)]
    start = seed * 97 % (len(ids) - count)
    return ids[start : start + count]
