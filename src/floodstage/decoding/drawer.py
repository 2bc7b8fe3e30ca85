"""A renderer's draws: noise becomes children, and children get an energy.

Every random number belongs to (seed, level, parent, draw, step, slot): see decision 7. Equal noised
rows go through the network once, in micro-batches. Knows nothing of what is kept.

Shapes: U parents, D draws, S slots of the level, R rows, V children of the level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from floodstage.core.errors import ConfigError
from floodstage.decoding.draws import Drawing, Draws
from floodstage.models.fractal import Families, Renderer
from floodstage.ops.counter import uniform

_LENGTH, _START, _DRAW, _AGAIN = range(4)  # what a random number is for

Timed: TypeAlias = Callable[[str], AbstractContextManager[Any]]
"""`core.spans.Spans`, or nothing at all."""


def untimed(name: str) -> AbstractContextManager[Any]:
    return nullcontext()


class Drawer:
    """Draws children of many parents at once.

    `places` bounds a pass, a micro-batch: parents and slots together. What grows with all parents
    are ids and random numbers alone. `once` takes equal rows through the network once.
    """

    timed: Timed

    def __init__(self, renderer: Renderer, *, places: int = 4096, once: bool = True) -> None:
        if places < 1 + max(renderer.config.slots):
            raise ConfigError(
                f"A pass of {places!r} places cannot hold one parent and its children: give at "
                f"least {1 + max(renderer.config.slots)}."
            )
        self.renderer, self.places, self.once = renderer, places, once
        self.timed = untimed

    @torch.inference_mode()
    def draw(self, ids: Tensor, level: int, numbers: Tensor, drawing: Drawing) -> Draws:
        """Draws `numbers` [D] of the parents `ids` [U]; `drawing` says how."""
        count, slots = len(numbers), self.renderer.config.slots[level]
        greedy = (
            (numbers == 0) & drawing.greedy_first
            if drawing.temperature
            else torch.ones_like(numbers, dtype=torch.bool)
        )
        with self.timed("lengths"):
            chance = uniform(drawing.seed, level, ids[:, None], numbers, _LENGTH, 0)
            logits = self._length_logits(ids, level)
            lengths, _ = _pick(logits[:, None].expand(-1, count, -1), chance, greedy, drawing)
        rows = ids.repeat_interleave(count)
        draw = numbers.repeat(len(ids))
        column = torch.arange(slots, device=ids.device)

        def random(purpose: int, step: int) -> Tensor:
            key = step * slots + column
            return uniform(drawing.seed, level, rows[:, None], draw[:, None], purpose, key)

        with self.timed("denoise"):
            children = self._denoise(
                rows, level, lengths.flatten() + 1, greedy.repeat(len(ids)), random, drawing
            )
        return Draws(children.view(len(ids), count, slots), lengths + 1)

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
        """Rows of noise become children: [U * D, S], 0 past the length. A mask that was filled
        stays filled; random children are drawn again, ever fewer of them at random."""
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
        rows = Families(ids, children, lengths, torch.full_like(ids, level), share)
        for step in range(steps):
            left = 1.0 - (step + 1) / steps
            if masked:
                open_ = rows.children == net.mask_id
                active = open_.any(1).nonzero()[:, 0]  # short rows are full before the last step
                if not len(active):
                    break
                some = (random(_DRAW, step)[active], greedy[active], drawing)
                chosen, sure = self._predict(rows[active], level, *some)
                open_, now = open_[active], lengths[active]
                children = rows.children.clone()
                children[active] = _unmask(children[active], chosen, sure, open_, now, left)
                share = (children == net.mask_id).sum(1) / lengths
            else:
                chosen, _ = self._predict(rows, level, random(_DRAW, step), greedy, drawing)
                again = random(_AGAIN, step) < left
                other = (random(_START, step + 1) * size).long()
                children = torch.where(again, other, chosen).masked_fill(~there, 0)
                share = torch.full_like(share, left)
            rows = replace(rows, children=children, noise=share)
        return rows.children

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
                part = rows[some]
                yield replace(part, children=part.children[:, :width]), start
                start, total = end, 0
            total += size


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
    probs = (logits.to(chance.dtype) / (drawing.temperature or 1.0)).softmax(-1)
    drawn = torch.searchsorted(probs.cumsum(-1), chance[..., None], right=True)[..., 0]
    chosen = torch.where(greedy, likeliest, drawn.clamp(max=logits.shape[-1] - 1))
    return chosen, probs.gather(-1, chosen[..., None])[..., 0].float()


def _unmask(
    children: Tensor, chosen: Tensor, sure: Tensor, open_: Tensor, lengths: Tensor, left: float
) -> Tensor:
    """Fill the surest of the `open_` slots, so that the share cos((1 - left) pi / 2) of a row's
    slots stays masked (MaskGIT's schedule, Chang et al. 2022), none at the last step (`left` 0); at
    least one is filled."""
    keep = torch.cos(torch.tensor((1 - left) * torch.pi / 2)).item()
    stay = torch.minimum((lengths * keep + 1e-6).long(), open_.sum(1) - 1).clamp(min=0)
    rank = sure.masked_fill(~open_, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    return torch.where(open_ & (rank >= stay[:, None]), chosen, children)
