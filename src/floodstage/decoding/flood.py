"""Flash flood: all roots -> all chunks -> all characters, a constant number of passes.

A parent's children are drawn several times; a critic judges the draws and one is kept. Every
random number belongs to (seed, level, parent, draw, step, slot), so what a parent becomes does not
depend on what is drawn beside it: equal parents are rendered once, only rejected ones are drawn
again, and `sequential` writes the same bytes. Knows neither who planned the roots nor words.

Shapes: P parents, U different ones of them, D draws, S slots of the level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from time import perf_counter

import torch
from torch import Tensor

from floodstage.core.errors import ConfigError, PairingError
from floodstage.core.protocols import Clock
from floodstage.core.spans import SpanRow, Spans
from floodstage.decoding.drawer import Drawer, untimed
from floodstage.decoding.draws import Critic, Drawing, Expansion, Memory
from floodstage.models.fractal import Renderer
from floodstage.text.hierarchy import Hierarchy


@dataclass(frozen=True)
class Rendering:
    """Roots and all that was made of them."""

    roots: tuple[int, ...]
    chunks: Expansion  # of the R roots
    chars: Expansion  # of the chunks in order, `chunks.flat`
    hierarchy: Hierarchy
    pieces: list[list[int]] = field(default_factory=list)  # character ids of each root
    spans: tuple[SpanRow, ...] = ()  # stage times, if the decoder was given nothing to time into

    @property
    def text(self) -> str:
        return self.hierarchy.text([c for piece in self.pieces for c in piece])

    @property
    def energies(self) -> tuple[Tensor, Tensor]:
        """Of the kept draws: [R] roots, [chunks] chunks."""
        return self.chunks.energies, self.chars.energies


class FloodDecoder:
    """Draws, judges and keeps, many parents at once.

    `critic` judges; None is the renderer's own energy. `once` renders equal parents once. `places`:
    see `Drawer`. Stage times go into `spans`, or else into each rendering, by `clock`. `drawn`
    counts the draws made.
    """

    def __init__(
        self,
        renderer: Renderer,
        hierarchy: Hierarchy,
        drawing: Drawing | None = None,
        *,
        critic: Critic | None = None,
        places: int = 4096,
        once: bool = True,
        spans: Spans | None = None,
        clock: Clock = perf_counter,
    ) -> None:
        check_pair(renderer, hierarchy)
        self.renderer, self.hierarchy = renderer, hierarchy
        self.drawing = drawing or Drawing()
        self.drawer = Drawer(renderer, places=places, once=once)
        self.critic = critic or self.drawer.energies
        self.once, self.spans, self.clock = once, spans, clock
        self.drawn = 0

    @torch.inference_mode()
    def render(
        self, roots: Sequence[int], k: int | None = None, *, memory: Memory | None = None
    ) -> Rendering:
        """Text of `roots`; `k` overrides the drawing's own. With a `memory`, what it holds is not
        drawn again, and it learns the rest. Raises ConfigError for an id that is no root."""
        known = self.hierarchy.roots
        if wrong := [r for r in roots if not 0 <= r < known]:
            raise ConfigError(f"{wrong[0]!r} is no root: there are {known}, from 0 on.")
        if memory is None and self.once:
            memory = Memory.of(self.renderer)
        spans = self.spans or Spans(self.clock)
        self.drawer.timed = spans
        with spans("chunks"):
            planned = torch.tensor(list(roots), dtype=torch.int64).to(self.renderer.device)
            chunks = self.expand(planned, 0, k, memory=memory)
        with spans("chars"):
            chars = self.expand(chunks.flat, 1, k, memory=memory)
        with spans("detokenise"):
            pieces = pieces_of(chunks.lengths, chars)
        self.drawer.timed = untimed
        stages = tuple(spans.rows()) if self.spans is None else ()
        return Rendering(tuple(roots), chunks, chars, self.hierarchy, pieces, stages)

    def edit(self, rendering: Rendering, i: int, root: int) -> Rendering:
        """`rendering` with root `i` replaced: only that root is rendered, the characters before and
        after it are the same objects. Raises ConfigError for a place or an id there is not."""
        count = len(rendering.roots)
        if not 0 <= i < count:
            raise ConfigError(f"There is no root {i!r}: the text has {count}, from 0 on.")
        new = self.render([root])
        start = int(rendering.chunks.lengths[:i].sum())
        stop = start + int(rendering.chunks.lengths[i])
        return replace(
            rendering,
            roots=(*rendering.roots[:i], root, *rendering.roots[i + 1 :]),
            chunks=_spliced(rendering.chunks, new.chunks, i, i + 1),
            chars=_spliced(rendering.chars, new.chars, start, stop),
            pieces=[*rendering.pieces[:i], *new.pieces, *rendering.pieces[i + 1 :]],
        )

    @torch.inference_mode()
    def expand(
        self, parents: Tensor, level: int, k: int | None = None, *, memory: Memory | None = None
    ) -> Expansion:
        """The kept children of `parents` [P]; level 0 is root -> chunks, 1 chunk -> characters.

        `k` overrides the drawing's own.
        """
        drawing = self.drawing if k is None else replace(self.drawing, k=k)
        if not self.once and memory is None and len(parents):
            return self._search(parents, level, drawing)
        memory = memory or Memory.of(self.renderer)
        new = memory.missing(parents, level)
        if len(new):
            memory.keep(new, level, self._search(new, level, drawing))
        return memory.read(parents, level)

    def _search(self, ids: Tensor, level: int, drawing: Drawing) -> Expansion:
        """Draw, judge, keep; draw again what is rejected."""
        best = self._attempt(ids, level, drawing, 0)
        if drawing.threshold is None:
            return best
        for attempt in range(1, drawing.retries + 1):
            rejected = (best.energies >= drawing.threshold).nonzero()[:, 0]
            if not len(rejected):
                break
            again = self._attempt(ids[rejected], level, drawing, attempt)
            best.draws[rejected] += again.draws
            better = again.energies < best.energies[rejected]
            rows = rejected[better]
            best.children[rows] = again.children[better]
            best.lengths[rows] = again.lengths[better]
            best.energies[rows] = again.energies[better]
        return best

    def _attempt(self, ids: Tensor, level: int, drawing: Drawing, attempt: int) -> Expansion:
        """The best of the `k` draws of one attempt."""
        numbers = torch.arange(drawing.k, device=ids.device) + attempt * drawing.k
        draws = self.drawer.draw(ids, level, numbers, drawing)
        self.drawn += len(ids) * drawing.k
        with self.drawer.timed("judge"):
            energies = self.critic(ids, level, draws)
        lowest, best = energies.min(1)
        children, lengths = draws.at(best)
        return Expansion(children, lengths, lowest, torch.full_like(lengths, drawing.k))


def check_pair(renderer: Renderer, hierarchy: Hierarchy) -> None:
    """Raises PairingError if the two do not belong together."""
    config, shape = renderer.config, hierarchy.shape
    ours = (hierarchy.roots, hierarchy.chunks, hierarchy.chars)
    theirs = (config.roots, config.chunks, config.chars)
    slots = (shape.chunks_per_root, shape.chars_per_chunk)
    if ours != theirs or slots != config.slots:
        raise PairingError(
            f"The renderer knows {theirs} roots, chunks and characters in {config.slots} slots, "
            f"the hierarchy {ours} in {slots}: they do not belong together."
        )


def pieces_of(lengths: Tensor, chars: Expansion) -> list[list[int]]:
    """Character ids of each root, from its number of chunks and what those became."""
    flat = chars.flat.tolist()
    ends = [0, *accumulate(chars.lengths.tolist())]
    cuts = [ends[i] for i in (0, *accumulate(lengths.tolist()))]
    return [flat[a:b] for a, b in pairwise(cuts)]


def _spliced(old: Expansion, new: Expansion, start: int, stop: int) -> Expansion:
    """Rows start .. stop of `old` replaced by `new`."""

    def put(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a[:start], b, a[stop:]])

    return Expansion(
        put(old.children, new.children),
        put(old.lengths, new.lengths),
        put(old.energies, new.energies),
        put(old.draws, new.draws),
    )
