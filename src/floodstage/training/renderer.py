"""Train a flood's renderer: to say how many children a parent has, to fill noised slots, and to
tell right children from wrong ones.

A step is one pass over four kinds of rows, both levels together: parents alone (length), parents
with noised slots (denoise), and parents with clean children, right or wrong (energy). The wrong
ones are the children of another parent, near misses (a slot changed, dropped, added, or two
exchanged), and the model's own draws. Candidates that hash into one of 20 buckets are never shown
as wrong while training: the energy is judged on those.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from floodstage.core.metrics import auroc
from floodstage.models.files import write_weights
from floodstage.models.fractal import LEVELS, Families, Renderer, RendererConfig
from floodstage.ops.counter import uniform
from floodstage.text.hierarchy import Hierarchy
from floodstage.training.fit import FitConfig, Probe

HELD_OUT_BUCKETS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RendererShape:
    """The size of a new renderer and what its rows are drawn from."""

    hidden: int = 256
    layers: int = 6
    heads: int = 4
    inner: int = 704
    by_type: float = 0.7  # share of parents drawn evenly from all types; the rest as in the text
    mask: float = 0.7  # share of noised rows with masks; the rest has random children
    full: float = 0.5  # share of noised rows that are noise all over
    energy_weight: float = 0.5
    judged: float = 0.25  # share of parents whose children, right and wrong, are judged

    def config(self, hierarchy: Hierarchy) -> RendererConfig:
        return RendererConfig(
            roots=hierarchy.roots,
            chunks=hierarchy.chunks,
            chars=hierarchy.chars,
            chunks_per_root=hierarchy.shape.chunks_per_root,
            chars_per_chunk=hierarchy.shape.chars_per_chunk,
            hidden=self.hidden,
            layers=self.layers,
            heads=self.heads,
            inner=self.inner,
        )


@dataclass(frozen=True)
class Table:
    """A level's truth: what every parent's children are."""

    children: Tensor  # [P, S], 0 past the length
    lengths: Tensor  # [P]
    weights: Tensor  # [P] how often the training text holds the parent

    @classmethod
    def of(cls, rows: list[tuple[int, ...]], slots: int, counts: Tensor) -> Table:
        children = torch.zeros(len(rows), slots, dtype=torch.int64)
        for i, row in enumerate(rows):
            children[i, : len(row)] = torch.tensor(row)
        return cls(children, torch.tensor([len(r) for r in rows]), counts)


def tables(hierarchy: Hierarchy, roots: Tensor) -> tuple[Table, Table]:
    """Both levels' truth, weighed by a text's `roots` [n]."""
    shape = hierarchy.shape
    seen = torch.bincount(roots, minlength=hierarchy.roots)
    first = Table.of(hierarchy.root_chunks, shape.chunks_per_root, seen)
    repeats = seen[:, None].expand_as(first.children)
    there = torch.arange(shape.chunks_per_root) < first.lengths[:, None]
    chunks = torch.bincount(
        first.children[there], weights=repeats[there].double(), minlength=hierarchy.chunks
    )
    return first, Table.of(hierarchy.chunk_chars, shape.chars_per_chunk, chunks)


def bucket(level: int, parents: Tensor, children: Tensor, lengths: Tensor) -> Tensor:
    """[...] in 0 .. HELD_OUT_BUCKETS - 1, of candidates: parents [...], children [..., S] with 0
    past the lengths [...]."""
    mixed = uniform(level, parents, lengths, *children.unbind(-1))
    return (mixed * HELD_OUT_BUCKETS).long()


def held_out_misses(
    table: Table, level: int, ids: int, *, draws: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Near misses that training never shows as wrong: parents [n], children [n, S], lengths [n],
    out of `draws` tries for every parent."""
    generator = torch.Generator().manual_seed(seed)
    parents = torch.arange(len(table.lengths)).repeat(draws)
    children, sizes = near_misses(table.children[parents], table.lengths[parents], ids, generator)
    wrong = (children != table.children[parents]).any(1) | (sizes != table.lengths[parents])
    keep = (bucket(level, parents, children, sizes) == 0) & wrong
    return parents[keep], children[keep], sizes[keep]


@torch.no_grad()
def energy_of(
    model: Renderer, level: int, parents: Tensor, children: Tensor, lengths: Tensor
) -> Tensor:
    """[n] energies of candidates."""
    found = []
    for at in range(0, len(parents), 512):
        some = slice(at, at + 512)
        rows = Families(
            parents[some],
            children[some],
            lengths[some],
            torch.full_like(parents[some], level),
            torch.zeros(len(parents[some])),
        )
        found.append(model.energy(model(_to(rows, model.device))[:, 0]).float().cpu())
    return torch.cat(found)


def wrong_found(model: Renderer, truth: tuple[Table, Table]) -> dict[str, float]:
    """By level the AUROC of the energy, all right rows against held-out near misses."""
    figures = {}
    for level, table in enumerate(truth):
        every = torch.arange(len(table.lengths))
        right = energy_of(model, level, every, table.children, table.lengths)
        missed = held_out_misses(table, level, model.config.children[level], draws=20, seed=7)
        wrong = energy_of(model, level, *missed)
        figures[f"auroc_{LEVELS[level]}"] = auroc(right.tolist(), wrong.tolist())
    return figures


def near_misses(
    children: Tensor, lengths: Tensor, ids: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Candidates one edit away: rows [n, S] and lengths [n] with a slot changed, dropped or added,
    or two neighbours exchanged. An edit that a row has no room for becomes a change."""
    n, slots = children.shape
    column = torch.arange(slots)

    def draw(high: Tensor | int) -> Tensor:
        return (torch.rand(n, generator=generator) * high).long()

    kind = torch.multinomial(torch.tensor([0.55, 0.15, 0.15, 0.15]), n, True, generator=generator)
    drop = (kind == 1) & (lengths > 1)
    add = (kind == 2) & (lengths < slots)
    swap = (kind == 3) & (lengths > 1)
    change = ~(drop | add | swap)
    at = draw(lengths + add.long() - swap.long())[:, None]  # a slot; of a swap the first
    other = draw(ids)[:, None]
    other = torch.where(other == children.gather(1, at), (other + 1) % ids, other)
    source = column + (drop[:, None] & (column >= at)).long()
    source = source - (add[:, None] & (column > at)).long()
    source = source + (swap[:, None] & (column == at)).long()
    source = source - (swap[:, None] & (column == at + 1)).long()
    out = children.gather(1, source.clamp(0, slots - 1))
    out = torch.where((change | add)[:, None] & (column == at), other, out)
    sizes = lengths - drop.long() + add.long()
    return out.masked_fill(column >= sizes[:, None], 0), sizes


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one step learns from."""

    rows: Families  # parents alone, then noised rows, then clean rows
    alone: int
    noised: int
    wanted: Tensor  # [noised, S] children
    learn: Tensor  # [noised, S] bool: slots to predict
    sizes: Tensor  # [alone] how many children
    wrong: Tensor  # [clean] bool: whether the children are another's
    counts: Tensor  # [clean] bool: whether the row may be learnt from


@dataclass(frozen=True, slots=True)
class _Part:
    """One level of a lesson; its fields are a lesson's."""

    alone: Families
    noised: Families
    clean: Families
    wanted: Tensor
    learn: Tensor
    sizes: Tensor
    wrong: Tensor
    counts: Tensor


@dataclass
class RendererTask:
    """See `fit.Task`; a step has about `tokens_per_step` places, half of them judged."""

    model: Renderer
    hierarchy: Hierarchy
    truth: tuple[Table, Table]
    shape: RendererShape
    config: FitConfig
    probe: Probe | None = None
    _even: tuple[Tensor, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        blend = []
        for table in self.truth:
            often = table.weights.double() / table.weights.sum().clamp_min(1)
            share = self.shape.by_type
            blend.append(share / len(table.lengths) + (1 - share) * often)
        self._even = (blend[0], blend[1])

    def batches(self, start: int) -> Iterator[Lesson]:
        step = start
        while True:
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
            yield self.lesson(generator)
            step += 1

    def lesson(self, generator: torch.Generator) -> Lesson:
        """Rows for one step, drawn by `generator` and the model's own present draws."""
        parts = [self._level(level, generator) for level in (0, 1)]
        width = max(self.model.config.slots)

        def wide(x: Tensor) -> Tensor:
            return F.pad(x, (0, width - x.shape[1]))

        return Lesson(
            _joined(
                [
                    replace(rows, children=wide(rows.children))
                    for kind in ("alone", "noised", "clean")
                    for rows in (getattr(part, kind) for part in parts)
                ]
            ),
            sum(len(part.alone) for part in parts),
            sum(len(part.noised) for part in parts),
            torch.cat([wide(part.wanted) for part in parts]),
            torch.cat([wide(part.learn) for part in parts]),
            torch.cat([part.sizes for part in parts]),
            torch.cat([part.wrong for part in parts]),
            torch.cat([part.counts for part in parts]),
        )

    def _level(self, level: int, generator: torch.Generator) -> _Part:
        """A level's share of a lesson."""
        table, net = self.truth[level], self.model
        count = max(8, self.config.tokens_per_step // 20)
        parents = torch.multinomial(self._even[level], count, True, generator=generator)
        children, lengths = table.children[parents], table.lengths[parents]
        levels = torch.full_like(parents, level)
        there = torch.arange(children.shape[1]) < lengths[:, None]
        alone = Families(
            parents, torch.zeros_like(children), torch.zeros_like(lengths), levels, levels * 0 + 1.0
        )
        noised, learn = self._noised(level, parents, children, lengths, generator)
        # Of these the right children and three wrong ones are judged.
        some = slice(0, max(1, round(count * self.shape.judged)))
        right = children[some], lengths[some]
        candidates = [
            right,
            self._others(level, len(right[1]), generator),
            near_misses(*right, net.config.children[level], generator),
            self._own(level, parents[some], right[1], generator),
        ]
        judged = torch.cat([c[0] for c in candidates])
        sizes = torch.cat([c[1] for c in candidates])
        asked = parents[some].repeat(len(candidates))
        clean = Families(
            asked, judged, sizes, torch.full_like(asked, level), torch.zeros(len(asked))
        )
        differs = (judged != table.children[asked]).any(1) | (sizes != table.lengths[asked])
        kept_out = bucket(level, asked, judged, sizes) == 0
        return _Part(
            alone, noised, clean, children, learn & there, lengths, differs, ~(differs & kept_out)
        )

    def _noised(
        self,
        level: int,
        parents: Tensor,
        children: Tensor,
        lengths: Tensor,
        generator: torch.Generator,
    ) -> tuple[Families, Tensor]:
        """Rows with a share of their slots masked or replaced, and which slots to learn."""
        net, n = self.model, len(parents)
        share = torch.rand(n, generator=generator)
        share[torch.rand(n, generator=generator) < self.shape.full] = 1.0
        masks = torch.rand(n, generator=generator) < self.shape.mask
        hit = torch.rand(children.shape, generator=generator) < share[:, None]
        column = torch.arange(children.shape[1])
        there = column < lengths[:, None]
        some = (torch.rand(n, generator=generator) * lengths).long()
        hit |= (column == some[:, None]) & masks[:, None]  # at least one mask
        random = torch.randint(net.config.children[level], children.shape, generator=generator)
        noise = torch.where(masks[:, None], torch.full_like(children, net.mask_id), random)
        noised = torch.where(hit, noise, children)
        share = torch.where(masks, (hit & there).sum(1) / lengths, share)
        rows = Families(parents, noised, lengths, torch.full_like(parents, level), share)
        return rows, torch.where(masks[:, None], hit, torch.ones_like(hit))

    def _others(self, level: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Children of other parents."""
        table = self.truth[level]
        picked = torch.multinomial(self._even[level], count, True, generator=generator)
        return table.children[picked], table.lengths[picked]

    @torch.no_grad()
    def _own(
        self, level: int, parents: Tensor, lengths: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """What the model itself draws for `parents` now, a little hot, so that it errs."""
        net = self.model
        column = torch.arange(net.config.slots[level])
        there = column < lengths[:, None]
        blank = torch.full(there.shape, net.mask_id)
        rows = Families(
            parents, blank, lengths, torch.full_like(parents, level), torch.ones(len(parents))
        )
        hidden = net(_to(rows, net.device))[:, 1:]
        logits = net.child_logits(hidden, level).float().cpu()
        heat = 1.0 + 1.5 * torch.rand(len(parents), 1, 1, generator=generator)
        probs = (logits / heat).softmax(-1)
        drawn = torch.multinomial(probs.flatten(0, 1), 1, generator=generator).view(there.shape)
        return drawn.masked_fill(~there, 0), lengths

    def loss(self, batch: Lesson) -> tuple[Tensor, int]:
        net = self.model
        rows = _to(batch.rows, net.device)
        hidden = net(rows)
        a, b = batch.alone, batch.alone + batch.noised
        energy = net.energy(hidden[b:, 0]).float().cpu()
        wrong = batch.wrong.float()
        weight = torch.where(batch.wrong, 1.0, 3.0) * batch.counts  # one right to three wrong
        judged = F.binary_cross_entropy_with_logits(energy, wrong, weight)
        total = self.shape.energy_weight * judged
        for level in (0, 1):
            mine = rows.levels == level
            lengths = net.length_logits(hidden[:a, 0][mine[:a]], level).float()
            total = total + F.cross_entropy(lengths, self._device(batch.sizes)[mine[:a]] - 1)
            learn = self._device(batch.learn) & mine[a:b, None]
            logits = net.child_logits(hidden[a:b, 1:][learn], level).float()
            total = total + F.cross_entropy(logits, self._device(batch.wanted)[learn])
        return total, int((batch.rows.lengths + 1).sum())

    def _device(self, x: Tensor) -> Tensor:
        return x.to(self.model.device)

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        return {} if self.probe is None else self.probe(self.model)

    def export(self, folder: Path, history: list[dict[str, float]]) -> None:
        save_renderer(folder, self.model, self.hierarchy)
        (folder / "history.json").write_text(json.dumps(history, indent=1) + "\n")


def save_renderer(folder: Path, model: Renderer, hierarchy: Hierarchy) -> None:
    """bf16 weights, config, and the hierarchy it renders."""
    write_weights(folder, model.state_dict(), torch.bfloat16)
    raw = {**model.config.to_dict(), "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(raw, indent=1) + "\n")
    hierarchy.save(folder)


def _joined(parts: list[Families]) -> Families:
    return Families(
        torch.cat([p.parents for p in parts]),
        torch.cat([p.children for p in parts]),
        torch.cat([p.lengths for p in parts]),
        torch.cat([p.levels for p in parts]),
        torch.cat([p.noise for p in parts]),
    )


def _to(rows: Families, device: torch.device) -> Families:
    return Families(
        rows.parents.to(device),
        rows.children.to(device),
        rows.lengths.to(device),
        rows.levels.to(device),
        rows.noise.to(device),
    )
