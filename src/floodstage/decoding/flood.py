"""Flash flood: all roots -> all chunks -> all characters, a constant number of passes.

A parent's children are drawn several times; a critic judges the draws and one is kept. Every
random number belongs to (seed, level, parent, draw, step, slot), so what a parent becomes does not
depend on what is drawn beside it: equal parents are rendered once, only rejected ones are drawn
again, and `sequential` writes the same bytes. Knows neither who planned the roots nor words.

Shapes: P parents, U different ones of them, D draws, S slots of the level, V children of the level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from floodstage.core.errors import ConfigError, PairingError, unknown
from floodstage.models.fractal import LEVELS, Families, Renderer
from floodstage.ops.counter import uniform
from floodstage.text.hierarchy import Hierarchy

NOISES = ("mask", "uniform")
_LENGTH, _START, _DRAW, _AGAIN = range(4)  # what a random number is for

Timed: TypeAlias = Callable[[str], AbstractContextManager[Any]]
"""`core.spans.Spans`, or nothing at all."""


def untimed(name: str) -> AbstractContextManager[Any]:
    return nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How children are drawn and which are kept.

    Of `k` draws the one of lowest energy is kept. With a `threshold`, parents whose best energy is
    not below it are drawn again, `k` more each time and up to `retries` times; then the best of all
    is kept. Draw 0 takes the likeliest children if `greedy_first`; the others draw at
    `temperature` (0: the likeliest, too). `steps` passes denoise a draw.
    """

    k: int = 1
    temperature: float = 1.0
    greedy_first: bool = True
    noise: str = "mask"
    steps: int = 1
    threshold: float | None = None
    retries: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.noise not in NOISES:
            raise unknown("noise", self.noise, NOISES)
        if self.k < 1 or self.steps < 1 or self.retries < 0 or self.temperature < 0:
            raise ConfigError(
                "Expected k >= 1, steps >= 1, retries >= 0 and temperature >= 0, got "
                f"{self.k!r}, {self.steps!r}, {self.retries!r} and {self.temperature!r}."
            )


@dataclass(frozen=True, slots=True)
class Draws:
    """Candidates: D for each of U parents."""

    children: Tensor  # [U, D, S], 0 past the length
    lengths: Tensor  # [U, D]

    def at(self, best: Tensor) -> tuple[Tensor, Tensor]:
        """Children [U, S] and lengths [U] of draw best[u]."""
        rows = torch.arange(best.shape[0], device=best.device)
        return self.children[rows, best], self.lengths[rows, best]


class Critic(Protocol):
    """Judges candidates: the renderer's energy here, a table or an execution elsewhere."""

    def __call__(self, parents: Tensor, level: int, draws: Draws) -> Tensor:
        """parents [U] -> energies [U, D]: the lower the better, below 0 more likely right than
        wrong."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """What became of P parents."""

    children: Tensor  # [P, S], 0 past the length
    lengths: Tensor  # [P]
    energies: Tensor  # [P] of the kept draw
    draws: Tensor  # [P] how many draws it took

    @property
    def mask(self) -> Tensor:
        """[P, S] bool: which slots hold a child."""
        return (
            torch.arange(self.children.shape[1], device=self.lengths.device)
            < (self.lengths[:, None])
        )

    @property
    def flat(self) -> Tensor:
        """All children in order, without the empty slots."""
        return self.children[self.mask]


@dataclass(slots=True)
class Memory:
    """What parents became, by level and id: a row per parent, filled when it is first drawn."""

    rows: list[Expansion]

    @classmethod
    def of(cls, renderer: Renderer) -> Memory:
        config, device = renderer.config, renderer.device
        return cls(
            [
                Expansion(
                    torch.zeros(parents, slots, dtype=torch.int64, device=device),
                    torch.zeros(parents, dtype=torch.int64, device=device),
                    torch.zeros(parents, device=device),
                    torch.zeros(parents, dtype=torch.int64, device=device),
                )
                for parents, slots in zip(config.parents, config.slots, strict=True)
            ]
        )

    def missing(self, parents: Tensor, level: int) -> Tensor:
        """The parents that were never drawn, each once."""
        ids: Tensor = torch.unique(parents)
        return ids[self.rows[level].draws[ids] == 0]

    def keep(self, parents: Tensor, level: int, found: Expansion) -> None:
        held = self.rows[level]
        held.children[parents] = found.children
        held.lengths[parents] = found.lengths
        held.energies[parents] = found.energies.float()
        held.draws[parents] = found.draws

    def read(self, parents: Tensor, level: int) -> Expansion:
        held = self.rows[level]
        return Expansion(
            held.children[parents],
            held.lengths[parents],
            held.energies[parents],
            held.draws[parents],
        )


@dataclass(frozen=True)
class Rendering:
    """Roots and all that was made of them."""

    roots: tuple[int, ...]
    chunks: Expansion  # of the R roots
    chars: Expansion  # of the chunks in order, `chunks.flat`
    hierarchy: Hierarchy
    pieces: list[list[int]] = field(default_factory=list)  # character ids of each root

    @property
    def text(self) -> str:
        return self.hierarchy.text([c for piece in self.pieces for c in piece])

    @property
    def energies(self) -> tuple[Tensor, Tensor]:
        """Of the kept draws: [R] roots, [chunks] chunks."""
        return self.chunks.energies, self.chars.energies


class FloodDecoder:
    """Draws, judges and keeps, many parents at once.

    `places` bounds a pass: parents and slots together, a micro-batch; memory grows with it.
    `once` renders equal parents (and equal noised rows) once.
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
        timed: Timed = untimed,
    ) -> None:
        check_pair(renderer, hierarchy)
        if places < 1 + max(renderer.config.slots):
            raise ConfigError(
                f"A pass of {places!r} places cannot hold one parent and its children: give at "
                f"least {1 + max(renderer.config.slots)}."
            )
        self.renderer, self.hierarchy = renderer, hierarchy
        self.drawing = drawing or Drawing()
        self.critic = critic or self.energies
        self.places, self.once, self.timed = places, once, timed

    @torch.inference_mode()
    def render(self, roots: Sequence[int], memory: Memory | None = None) -> Rendering:
        """Text of `roots`. With a `memory`, what it holds is not drawn again, and it learns the
        rest. Raises ConfigError for an id that is no root."""
        known = self.hierarchy.roots
        if wrong := [r for r in roots if not 0 <= r < known]:
            raise ConfigError(f"{wrong[0]!r} is no root: there are {known}, from 0 on.")
        if memory is None and self.once:
            memory = Memory.of(self.renderer)
        with self.timed("chunks"):
            planned = torch.tensor(list(roots), dtype=torch.int64).to(self.renderer.device)
            chunks = self.expand(planned, 0, memory=memory)
        with self.timed("chars"):
            chars = self.expand(chunks.flat, 1, memory=memory)
        with self.timed("detokenise"):
            return Rendering(
                tuple(roots), chunks, chars, self.hierarchy, pieces_of(chunks.lengths, chars)
            )

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
        if not self.once and memory is None:
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
        draws = self.draw(ids, level, numbers, drawing)
        with self.timed("judge"):
            energies = self.critic(ids, level, draws)
        lowest, best = energies.min(1)
        children, lengths = draws.at(best)
        return Expansion(children, lengths, lowest, torch.full_like(lengths, drawing.k))

    @torch.inference_mode()
    def draw(
        self, ids: Tensor, level: int, numbers: Tensor, drawing: Drawing | None = None
    ) -> Draws:
        """Draws `numbers` [D] of the parents `ids` [U]."""
        drawing = drawing or self.drawing
        count, slots = len(numbers), self.renderer.config.slots[level]
        greedy = (
            (numbers == 0) & drawing.greedy_first
            if drawing.temperature
            else torch.ones_like(numbers, dtype=torch.bool)
        )
        with self.timed("lengths"):
            chance = self._random(drawing, level, ids[:, None], numbers, _LENGTH, 0)
            logits = self._length_logits(ids, level)
            lengths, _ = _pick(logits[:, None].expand(-1, count, -1), chance, greedy, drawing)
        rows = ids.repeat_interleave(count)
        draw = numbers.repeat(len(ids))
        column = torch.arange(slots, device=ids.device)

        def random(purpose: int, step: int) -> Tensor:
            key = step * slots + column
            return self._random(drawing, level, rows[:, None], draw[:, None], purpose, key)

        with self.timed("denoise"):
            children = self._denoise(
                rows, level, lengths.flatten() + 1, greedy.repeat(len(ids)), random, drawing
            )
        return Draws(children.view(len(ids), count, slots), lengths + 1)

    def _random(self, drawing: Drawing, level: int, *key: Tensor | int) -> Tensor:
        return uniform(drawing.seed, level, *key)

    def _length_logits(self, ids: Tensor, level: int) -> Tensor:
        """[U, S]"""
        out = []
        for some in torch.split(ids, self.places):
            alone = torch.zeros_like(some)
            rows = Families(
                some, some.new_empty(len(some), 0), alone, alone + level, alone.float() + 1.0
            )
            out.append(self.renderer.length_logits(self.renderer(rows)[:, 0], level))
        return torch.cat(out)

    def _denoise(
        self,
        ids: Tensor,
        level: int,
        lengths: Tensor,
        greedy: Tensor,
        random: Callable[[int, int], Tensor],
        drawing: Drawing,
    ) -> Tensor:
        """Rows of noise become children: [U * D, S], 0 past the length."""
        net, steps = self.renderer, drawing.steps
        size, slots = net.config.children[level], net.config.slots[level]
        masked = drawing.noise == "mask"
        there = torch.arange(slots, device=ids.device) < lengths[:, None]
        if masked:
            children = torch.full_like(there, net.mask_id, dtype=torch.int64)
        else:
            children = (random(_START, 0) * size).long()
        children = children.masked_fill(~there, 0)
        share = torch.ones(len(ids), device=ids.device)
        for step in range(steps):
            rows = Families(ids, children, lengths, torch.full_like(ids, level), share)
            chosen, sure = self._predict(rows, level, random(_DRAW, step), greedy, drawing)
            left = 1.0 - (step + 1) / steps
            if step == steps - 1:
                return chosen.masked_fill(~there, 0)
            if masked:
                open_ = children == net.mask_id
                children = _unmask(children, chosen, sure, open_ & there, lengths, left)
                share = (children == net.mask_id).sum(1) / lengths
            else:
                again = random(_AGAIN, step) < left
                other = (random(_START, step + 1) * size).long()
                children = torch.where(again, other, chosen).masked_fill(~there, 0)
                share = torch.full_like(share, left)
        return children

    def _predict(
        self, rows: Families, level: int, chance: Tensor, greedy: Tensor, drawing: Drawing
    ) -> tuple[Tensor, Tensor]:
        """A child for every slot of every row, and its probability: [R, S] each. Equal rows go
        through the network once."""
        net = self.renderer
        first, back = self._unique(rows)
        chosen = torch.zeros_like(rows.children)
        sure = torch.zeros(rows.children.shape, device=chosen.device)
        for part, start in self._batches(rows, first):
            logits = net.child_logits(net(part)[:, 1:], level)  # [n, S', V]
            width = logits.shape[1]
            here = ((back >= start) & (back < start + len(part))).nonzero()[:, 0]
            for some in torch.split(here, max(1, self.places // width)):
                chosen[some, :width], sure[some, :width] = _pick(
                    logits[back[some] - start], chance[some, :width], greedy[some, None], drawing
                )
        return chosen, sure

    @torch.inference_mode()
    def energies(self, parents: Tensor, level: int, draws: Draws) -> Tensor:
        """The renderer's own energy of candidates: [U, D]. Equal candidates are judged once."""
        net, count = self.renderer, draws.lengths.shape[1]
        ids = parents.repeat_interleave(count)
        rows = Families(
            ids,
            draws.children.flatten(0, 1),
            draws.lengths.flatten(),
            torch.full_like(ids, level),
            torch.zeros(len(ids), device=ids.device),
        )
        first, back = self._unique(rows)
        found = [net.energy(net(part)[:, 0]) for part, _ in self._batches(rows, first)]
        return torch.cat(found)[back].view(len(parents), count)

    def _unique(self, rows: Families) -> tuple[Tensor, Tensor]:
        """The first row of every kind, shortest first, and for each row the place of its kind."""
        if not self.once or len(rows) == 1:
            every = torch.arange(len(rows), device=rows.parents.device)
            return every, every
        keys = torch.cat([rows.lengths[:, None], rows.parents[:, None], rows.children], 1)
        kinds, back = torch.unique(keys, dim=0, return_inverse=True)
        first = torch.full((len(kinds),), len(rows), device=back.device)
        order = torch.arange(len(rows), device=back.device)
        return first.scatter_reduce(0, back, order, "amin"), back

    def _batches(self, rows: Families, chosen: Tensor) -> Iterator[tuple[Families, int]]:
        """The `chosen` rows in micro-batches, each no wider than its longest row, and where in
        `chosen` it begins."""
        sizes = (rows.lengths[chosen] + 1).tolist()
        start = total = 0
        for end, size in enumerate([*sizes, self.places + 1]):
            if total + size > self.places and end > start:
                some = chosen[start:end]
                width = max(sizes[start:end]) - 1
                part = Families(
                    rows.parents[some],
                    rows.children[some, :width],
                    rows.lengths[some],
                    rows.levels[some],
                    rows.noise[some],
                )
                yield part, start
                start, total = end, 0
            total += size


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


def _pick(
    logits: Tensor, chance: Tensor, greedy: Tensor, drawing: Drawing
) -> tuple[Tensor, Tensor]:
    """Choose from logits [..., V] by numbers `chance` [...] in [0, 1): the likeliest where
    `greedy`, else by inverting the cumulative distribution. Also the probability of the choice."""
    likeliest = logits.argmax(-1)
    if bool(greedy.all()):
        if drawing.steps == 1:
            return likeliest, torch.ones_like(chance, dtype=torch.float32)
        probs = logits.float().softmax(-1)
        return likeliest, probs.gather(-1, likeliest[..., None])[..., 0]
    probs = (logits.double() / (drawing.temperature or 1.0)).softmax(-1)
    drawn = torch.searchsorted(probs.cumsum(-1), chance[..., None].double(), right=True)[..., 0]
    chosen = torch.where(greedy, likeliest, drawn.clamp(max=logits.shape[-1] - 1))
    return chosen, probs.gather(-1, chosen[..., None])[..., 0].float()


def _unmask(
    children: Tensor, chosen: Tensor, sure: Tensor, open_: Tensor, lengths: Tensor, left: float
) -> Tensor:
    """Fill the surest of the `open_` slots, so that the share cos((1 - left) pi / 2) of a row's
    slots stays masked (MaskGIT's schedule, Chang et al. 2022); at least one is filled."""
    keep = torch.cos(torch.tensor((1 - left) * torch.pi / 2)).item()
    stay = torch.minimum((lengths * keep).long(), open_.sum(1) - 1).clamp(min=0)
    rank = sure.masked_fill(~open_, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    return torch.where(open_ & (rank >= stay[:, None]), chosen, children)


__all__ = [
    "LEVELS",
    "NOISES",
    "Critic",
    "Drawing",
    "Draws",
    "Expansion",
    "FloodDecoder",
    "Memory",
    "Rendering",
]
