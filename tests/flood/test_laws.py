"""Laws of a flood, and planted bugs that they catch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from floodstage.core.errors import ConfigError, PairingError
from floodstage.decoding import drawer as drawer_module
from floodstage.decoding.drawer import Drawer
from floodstage.decoding.draws import Drawing, Draws, Memory
from floodstage.decoding.flood import FloodDecoder, Rendering
from floodstage.decoding.sequential import render_sequentially
from floodstage.models.fractal import Families

from .tiny import roots, tiny_hierarchy, tiny_renderer

DRAWINGS = {
    "argmax": Drawing(),
    "sampled": Drawing(greedy_first=False),
    "cold": Drawing(k=2, temperature=0.0),
    "best of 5": Drawing(k=5),
    "best of 4, uniform noise": Drawing(k=4, noise="uniform", temperature=1.3),
    "three steps": Drawing(k=3, steps=3, greedy_first=False),
    "three steps, uniform": Drawing(k=3, steps=3, noise="uniform"),
    "retry": Drawing(threshold=-0.5, retries=3),
    "retry two at a time": Drawing(k=2, threshold=-1.0, retries=2, seed=9),
}


def decoder(drawing: Drawing | None = None, **settings: Any) -> FloodDecoder:
    return FloodDecoder(tiny_renderer(), tiny_hierarchy(), drawing, **settings)


def same(a: Rendering, b: Rendering) -> None:
    assert a.text == b.text
    assert a.pieces == b.pieces
    for one, other in ((a.chunks, b.chunks), (a.chars, b.chars)):
        assert torch.equal(one.children, other.children)
        assert torch.equal(one.lengths, other.lengths)
        assert torch.equal(one.draws, other.draws)
        torch.testing.assert_close(one.energies.float(), other.energies.float())


def law_sequential(drawing: Drawing, plan: Sequence[int] | None = None) -> None:
    """The flood writes what one draw at a time writes, byte for byte."""
    plan = plan or roots(20)
    same(decoder(drawing).render(plan), render_sequentially(decoder(drawing), plan))


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_flood_writes_what_the_sequential_reference_writes(name: str) -> None:
    law_sequential(DRAWINGS[name])


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize("settings", [{"once": False}, {"places": 7}, {"places": 40}])
def test_neither_sharing_nor_micro_batches_change_the_text(
    name: str, settings: dict[str, Any]
) -> None:
    plan = roots(16, 1)
    same(decoder(DRAWINGS[name]).render(plan), decoder(DRAWINGS[name], **settings).render(plan))


def law_masks(steps: int = 4) -> None:
    """Of a row's masks so many are filled at every pass as the schedule says; what was filled
    stays; the last pass leaves none."""
    passes: list[Families] = []
    drawing = Drawing(steps=steps, greedy_first=False)
    drawer = decoder(drawing).drawer
    predict = drawer._predict

    def seen(rows: Families, *rest: Any) -> tuple[Tensor, Tensor]:
        passes.append(rows)
        return predict(rows, *rest)

    drawer._predict = seen  # type: ignore[method-assign]
    ids = torch.arange(300, 420)
    draws = drawer.draw(ids, 1, torch.tensor([0]), drawing)
    made = dict(zip(ids.tolist(), draws.children[:, 0].tolist(), strict=True))
    mask = tiny_renderer().mask_id
    kept = 0
    for done, rows in enumerate(passes):
        for parent, children, n in zip(
            rows.parents.tolist(), rows.children.tolist(), rows.lengths.tolist(), strict=True
        ):
            visible = [(i, c) for i, c in enumerate(children[:n]) if c != mask]
            assert all(made[parent][i] == c for i, c in visible)
            kept += len(visible)
            if done:
                wanted = math.floor(n * math.cos(done / steps * math.pi / 2) + 1e-6)
                assert n - len(visible) == min(wanted, n - done)
            else:
                assert not visible
    assert kept > 100
    assert not (draws.children == mask).any()


def test_masks_are_filled_by_the_schedule_and_stay_filled() -> None:
    law_masks()


def law_frequencies(temperature: float = 1.4) -> None:
    """One pass draws lengths and children as the softmax says."""
    drawing = Drawing(temperature=temperature, greedy_first=False)
    drawer, net = decoder(drawing).drawer, tiny_renderer()
    count, parent = 20_000, torch.tensor([345])
    draws = drawer.draw(parent, 1, torch.arange(count), drawing)
    lengths = (drawer._length_logits(parent, 1)[0] / temperature).softmax(-1)
    found = torch.bincount(draws.lengths[0] - 1, minlength=len(lengths)) / count
    assert float((found - lengths).abs().max()) < 4 * (0.25 / count) ** 0.5
    size = int(lengths.argmax()) + 1
    rows = Families(
        parent, torch.full((1, size), net.mask_id), torch.tensor([size]), torch.tensor([1]),
        torch.ones(1),
    )  # fmt: skip
    first = (net.child_logits(net(rows)[0, 1], 1) / temperature).softmax(-1)
    drawn = draws.children[0, draws.lengths[0] == size, 0]
    assert len(drawn) > 1000
    found = torch.bincount(drawn, minlength=len(first)) / len(drawn)
    assert float((found - first).abs().max()) < 4 * (0.25 / len(drawn)) ** 0.5
    assert float((found - first).abs().sum()) < 1.0  # 330 kinds; 2 would be another law


def test_draws_follow_the_softmax() -> None:
    law_frequencies()


def test_an_empty_plan_is_an_empty_text() -> None:
    for writer in (decoder(), decoder(once=False)):
        assert writer.render([]).text == ""
        assert render_sequentially(writer, []).text == ""


def test_stage_times_come_with_the_text() -> None:
    found = decoder(Drawing(k=2)).render(roots(20))
    names = {row.path[1:] for row in found.spans}
    assert {("chunks",), ("chars", "lengths"), ("chars", "judge"), ("detokenise",)} <= names


def test_draws_that_were_made_are_counted() -> None:
    plan = roots(40)
    once, again = decoder(Drawing(k=3)), decoder(Drawing(k=3), once=False)
    chunks = once.render(plan).chunks.flat
    assert once.drawn == 3 * (len(set(plan)) + len(set(chunks.tolist())))
    again.render(plan)
    assert again.drawn == 3 * (len(plan) + len(chunks))


def test_draws_differ_and_choices_matter() -> None:
    """Else the laws above would hold for a flood that never draws."""
    ids = torch.arange(60, 90)
    sampled = decoder(Drawing(greedy_first=False))
    draws = sampled.drawer.draw(ids, 1, torch.arange(8), sampled.drawing)
    kinds = [len({tuple(d) for d in row}) for row in draws.children.tolist()]
    assert sum(kinds) / len(kinds) > 4
    texts = {name: decoder(d).render(roots(24)).text for name, d in DRAWINGS.items()}
    assert len(set(texts.values())) >= len(DRAWINGS) - 1  # cold is argmax


def test_a_memory_carries_over_from_group_to_group() -> None:
    plan = roots(60, 2)
    whole = decoder(Drawing(k=3)).render(plan)
    by_group, memory = decoder(), Memory.of(tiny_renderer())
    pieces: list[list[int]] = []
    for at in range(0, 60, 7):
        pieces += by_group.render(plan[at : at + 7], 3, memory=memory).pieces
    assert pieces == whole.pieces


def test_an_edit_renders_one_root_and_keeps_the_others() -> None:
    plan = roots(30, 3)
    asked: list[int] = []
    writer = decoder(Drawing(k=2))
    before = writer.render(plan)

    def counting(parents: Tensor, level: int, draws: Draws) -> Tensor:
        asked.append(len(parents))
        return writer.drawer.energies(parents, level, draws)

    editor = decoder(Drawing(k=2), critic=counting)
    after = editor.edit(before, 11, 200)
    assert asked[0] == 1  # a root; then its chunks
    assert len(asked) == 2
    assert after.pieces[:11] == before.pieces[:11]
    assert after.pieces[12:] == before.pieces[12:]
    same(after, writer.render([*plan[:11], 200, *plan[12:]]))
    with pytest.raises(ConfigError, match="no root 30"):
        editor.edit(before, 30, 5)


def test_only_rejected_parents_are_drawn_again() -> None:
    seen: list[list[int]] = []

    def picky(parents: Tensor, level: int, draws: Draws) -> Tensor:
        seen.append(parents.tolist())
        return torch.where(parents % 3 == 0, 1.0, -1.0)[:, None].expand(draws.lengths.shape)

    ids = torch.arange(30, 42)
    found = decoder(Drawing(threshold=0.0, retries=4), critic=picky).expand(ids, 0)
    assert seen[0] == ids.tolist()
    assert seen[1:] == [[30, 33, 36, 39]] * 4
    assert found.draws.tolist() == [5 if i % 3 == 0 else 1 for i in ids.tolist()]


def test_a_critic_is_a_seam() -> None:
    """With a critic that knows the answer, more draws only help."""
    hierarchy = tiny_hierarchy()
    ids = torch.arange(hierarchy.chunks)

    def knows(parents: Tensor, level: int, draws: Draws) -> Tensor:
        right = [
            [float(tuple(d[:n]) != table[p]) for d, n in zip(row, sizes, strict=True)]
            for p, row, sizes in zip(
                parents.tolist(), draws.children.tolist(), draws.lengths.tolist(), strict=True
            )
        ]
        return torch.tensor(right)

    table = hierarchy.chunk_chars

    def hits(k: int) -> int:
        found = decoder(Drawing(k=k, temperature=3.0), critic=knows).expand(ids, 1)
        return int((found.energies == 0).sum())

    assert hits(1) <= hits(8) < hits(64)


def test_what_stands_past_a_length_is_never_seen() -> None:
    net = tiny_renderer()
    rows = Families(
        torch.tensor([400, 410, 9]),
        torch.tensor([[1, 2, 3, 4, 5, 6]] * 3),
        torch.tensor([2, 0, 5]),
        torch.tensor([0, 0, 1]),
        torch.tensor([0.0, 1.0, 0.3]),
    )
    junk = replace(rows, children=torch.tensor([[1, 2, 7, 8, 9, 9], [7] * 6, [1, 2, 3, 4, 5, 9]]))
    assert torch.equal(net(rows), net(junk))
    assert not net(rows)[0, 3:].any()
    # Both levels in one batch are what each is alone.
    alone = [net(rows[slice(i, i + 1)]) for i in range(3)]
    torch.testing.assert_close(net(rows), torch.cat(alone))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="no root"):
        decoder().render([5, 560])
    with pytest.raises(ConfigError, match="hold one parent"):
        decoder(places=3)
    with pytest.raises(ConfigError, match="Did you mean 'mask'"):
        Drawing(noise="masks")
    with pytest.raises(ConfigError, match="k >= 1"):
        Drawing(k=0)
    other = replace(tiny_hierarchy(), chunks=419)
    with pytest.raises(PairingError, match="do not belong together"):
        FloodDecoder(tiny_renderer(), other)


# --- Planted bugs --------------------------------------------------------------------------------


def by_row(seed: int, level: Any, ids: Any, number: Any, purpose: Any, key: Any) -> Tensor:
    """Random numbers that belong to rows of a batch, not to parents."""
    rows = torch.arange(ids.shape[0])[:, None]
    return true_uniform(seed, level, rows, number, purpose, key)


def without_draw(seed: int, level: Any, ids: Any, number: Any, purpose: Any, key: Any) -> Tensor:
    return true_uniform(seed, level, ids, number * 0, purpose, key)


true_uniform = drawer_module.uniform


def forgetful_batches(self: Drawer, rows: Families, chosen: Tensor) -> Any:
    """Micro-batches that all say they begin at 0."""
    for part, _ in true_batches(self, rows, chosen):
        yield part, 0


def blind_unique(self: Drawer, rows: Families) -> tuple[Tensor, Tensor]:
    """Equal parents are taken for equal rows, whatever their noise."""
    kinds, back = torch.unique(rows.parents, return_inverse=True)
    first = torch.full((len(kinds),), len(rows))
    return first.scatter_reduce(0, back, torch.arange(len(rows)), "amin"), back


def levelless(self: Memory, parents: Tensor, level: int) -> Tensor:
    """A memory that takes chunks for roots of the same id."""
    ids = torch.unique(parents)
    return ids[(self.rows[0].draws[ids] == 0) & (self.rows[level].draws[ids] == 0)]


true_batches = Drawer._batches


def overwrite(
    children: Tensor, chosen: Tensor, sure: Tensor, open_: Tensor, lengths: Tensor, left: float
) -> Tensor:
    """The last pass draws every slot anew."""
    done = true_unmask(children, chosen, sure, open_, lengths, left)
    there = torch.arange(chosen.shape[1]) < lengths[:, None]
    return torch.where(there, chosen, 0) if left == 0 else done


def all_at_once(
    children: Tensor, chosen: Tensor, sure: Tensor, open_: Tensor, *rest: Any
) -> Tensor:
    """No schedule: the first pass fills everything."""
    return torch.where(open_, chosen, children)


def without_temperature(
    logits: Tensor, chance: Tensor, greedy: Tensor, drawing: Drawing
) -> tuple[Tensor, Tensor]:
    return true_pick(logits, chance, greedy, replace(drawing, temperature=1.0))


def likeliest_only(
    logits: Tensor, chance: Tensor, greedy: Tensor, drawing: Drawing
) -> tuple[Tensor, Tensor]:
    return true_pick(logits, chance, torch.ones_like(greedy), drawing)


true_unmask, true_pick = drawer_module._unmask, drawer_module._pick

MUTANTS: dict[str, tuple[Any, str, Any, Callable[[], None]]] = {
    "numbers by row": (drawer_module, "uniform", by_row, lambda: law_sequential(Drawing(k=3))),
    "numbers without the draw": (
        drawer_module,
        "uniform",
        without_draw,
        test_draws_differ_and_choices_matter,
    ),
    "micro-batches at 0": (
        Drawer,
        "_batches",
        forgetful_batches,
        lambda: test_neither_sharing_nor_micro_batches_change_the_text("best of 5", {"places": 7}),
    ),
    "blind to noise": (
        Drawer,
        "_unique",
        blind_unique,
        lambda: law_sequential(DRAWINGS["best of 4, uniform noise"]),
    ),
    "the last pass overwrites": (drawer_module, "_unmask", overwrite, law_masks),
    "no schedule": (drawer_module, "_unmask", all_at_once, law_masks),
    "no temperature": (drawer_module, "_pick", without_temperature, law_frequencies),
    "never drawn": (drawer_module, "_pick", likeliest_only, law_frequencies),
    "one memory for both levels": (
        Memory,
        "missing",
        levelless,
        lambda: law_sequential(Drawing(), range(0, 420, 4)),
    ),
}


@pytest.mark.parametrize("bug", MUTANTS)
def test_a_planted_bug_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, mutant, law = MUTANTS[bug]
    monkeypatch.setattr(where, name, mutant)
    with pytest.raises((AssertionError, RuntimeError, IndexError)):
        law()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", DRAWINGS)
def test_a_gpu_writes_what_the_cpu_writes(name: str) -> None:
    plan = roots(20)
    there = FloodDecoder(
        copy.deepcopy(tiny_renderer()).cuda().fuse(), tiny_hierarchy(), DRAWINGS[name]
    )
    assert there.render(plan).pieces == decoder(DRAWINGS[name]).render(plan).pieces
