"""The flood's reference: the same draws, one at a time.

One root after another, one chunk after another, one draw after another; nothing is shared but the
sampler. Because every random number belongs to a place (see `flood`), the text is the flood's, byte
for byte: what the flood gains is time alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from floodstage.decoding.draws import Expansion, Memory
from floodstage.decoding.flood import FloodDecoder, Rendering, pieces_of


@dataclass(slots=True)
class _Best:
    children: Tensor
    lengths: Tensor
    energies: Tensor
    draws: int = 1


@torch.inference_mode()
def render_sequentially(
    decoder: FloodDecoder, roots: Sequence[int], memory: Memory | None = None
) -> Rendering:
    """What `decoder.render(roots)` gives, slowly. With a `memory` a parent that came up before is
    looked up: the tuned form of the same loop."""
    device = decoder.renderer.device
    planned = torch.tensor(list(roots), dtype=torch.int64).to(device)
    chunks = _expand(decoder, planned, 0, memory)
    chars = _expand(decoder, chunks.flat, 1, memory)
    return Rendering(
        tuple(roots), chunks, chars, decoder.hierarchy, pieces_of(chunks.lengths, chars)
    )


def _expand(decoder: FloodDecoder, parents: Tensor, level: int, memory: Memory | None) -> Expansion:
    if not len(parents):
        return decoder.expand(parents, level)
    found: list[Expansion] = []
    for parent in torch.split(parents, 1):
        if memory is not None and not len(memory.missing(parent, level)):
            found.append(memory.read(parent, level))
            continue
        found.append(_search(decoder, parent, level))
        if memory is not None:
            memory.keep(parent, level, found[-1])
    return Expansion(
        torch.cat([f.children for f in found]),
        torch.cat([f.lengths for f in found]),
        torch.cat([f.energies for f in found]),
        torch.cat([f.draws for f in found]),
    )


def _search(decoder: FloodDecoder, parent: Tensor, level: int) -> Expansion:
    """One parent [1]: draw after draw, until an attempt is good enough."""
    drawing = decoder.drawing
    best: _Best | None = None
    attempts = 1 if drawing.threshold is None else 1 + drawing.retries
    for number in range(attempts * drawing.k):
        decoder.drawn += 1
        one = torch.tensor([number], device=parent.device)
        draws = decoder.drawer.draw(parent, level, one, drawing)
        energies = decoder.critic(parent, level, draws)[:, 0]
        if best is None:
            best = _Best(draws.children[:, 0], draws.lengths[:, 0], energies)
        else:
            best.draws += 1
            if energies < best.energies:
                best.children, best.lengths = draws.children[:, 0], draws.lengths[:, 0]
                best.energies = energies
        whole = (number + 1) % drawing.k == 0  # the flood judges an attempt as a whole
        if whole and drawing.threshold is not None and best.energies < drawing.threshold:
            break
    assert best is not None
    return Expansion(
        best.children, best.lengths, best.energies, torch.full_like(best.lengths, best.draws)
    )
