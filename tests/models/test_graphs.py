"""Passes in fixed shapes against passes in their own; on CUDA, captured ones too."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from floodstage.core.errors import ContextError
from floodstage.models import graphs
from floodstage.models.graphs import Graphs, Shape, TargetPass, fixed_plan, width_for
from floodstage.models.load import load_transformer
from floodstage.models.transformer import Transformer

CPU = torch.device("cpu")
TREE = (-1, -1, 0, 0, 2)


@pytest.fixture(params=["llama", "mistral", "qwen2-windows", "qwen3"])
def fixed(request: Any, pair_of: Callable[[str], Any], monkeypatch: Any) -> Transformer:
    """A model whose cycles run in fixed shapes, uncaptured; small buckets, so that padding is
    common."""
    model: Transformer = pair_of(request.param).ours
    monkeypatch.setattr(graphs, "ROWS", (3, 8, 16, 40))
    monkeypatch.setattr(graphs, "STEP", 16)
    monkeypatch.setattr(model, "graphs", Graphs(model, capture=False))
    return model


@pytest.fixture
def taped(fixed: Transformer, tape: None, monkeypatch: pytest.MonkeyPatch) -> Transformer:
    """The same, recorded by a `Tape` where CUDA would capture."""
    monkeypatch.setattr(fixed, "graphs", Graphs(fixed))
    return fixed


def ids(length: int, seed: int) -> Tensor:
    return torch.randint(97, (length,), generator=torch.Generator().manual_seed(seed))


def test_a_state_keeps_the_laws(fixed: Transformer, law: str, laws: Any) -> None:
    getattr(laws, law)(fixed)
    assert fixed.graphs is not None
    assert law == "taps_come_in_the_order_asked" or fixed.graphs.spare  # it was used


@pytest.mark.parametrize(
    ("counts", "parents"),
    [
        ((1,), None),
        ((3,), None),
        ((5,), None),
        ((6,), (TREE,)),
        ((1, 1, 1), None),
        ((3, 1, 2), None),
        ((6, 4, 1), (TREE, None, None)),
        ((6, 3, 6), (TREE, (-1, -1), TREE)),
    ],
)
def test_a_pass_is_that_of_the_model(
    fixed: Transformer, counts: tuple[int, ...], parents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cycle() -> tuple[Tensor, Tensor, list[Tensor]]:
        state = fixed.begin(len(counts), 64, taps=(1, 0))
        for slot in range(len(counts)):
            fixed.forward(state, [ids(17 - 3 * slot, slot)], first=slot)
        new = [ids(count, 50 + i) for i, count in enumerate(counts)]
        out = fixed.forward(state, new, parents=parents)
        held = [
            keys[slot, :, :length].clone()
            for keys in (*state.cache.keys, *state.cache.values)
            for slot, length in enumerate(state.lengths)
        ]
        assert out.taps is not None
        return out.logits, out.taps, held

    got = cycle()
    monkeypatch.setattr(fixed, "graphs", None)
    want = cycle()
    for a, b in zip((*got[:2], *got[2]), (*want[:2], *want[2]), strict=True):
        torch.testing.assert_close(a, b, atol=5e-5, rtol=0.0)
    assert torch.equal(got[0].argmax(-1), want[0].argmax(-1))


def test_bits_are_equal_when_nothing_is_padded(
    pair_of: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Transformer = pair_of("qwen3").ours
    monkeypatch.setattr(graphs, "ROWS", (6,))
    monkeypatch.setattr(graphs, "STEP", 20)
    results = []
    for seam in (None, Graphs(model, capture=False)):
        monkeypatch.setattr(model, "graphs", seam)
        state = model.begin(2, 20)
        for slot in (0, 1):
            model.forward(state, [ids(14, slot)], first=slot)
        results.append(model.forward(state, [ids(6, 2), ids(6, 3)], parents=[TREE, None]).logits)
    assert torch.equal(*results)


def test_a_state_keeps_the_laws_when_passes_are_replayed(
    taped: Transformer, law: str, laws: Any
) -> None:
    for _ in range(3):  # as it is, recorded, replayed
        getattr(laws, law)(taped)


@pytest.mark.parametrize("parents", [None, (TREE, None, (-1, -1, -1, 0, 3))])
def test_a_replay_is_the_pass_itself(
    taped: Transformer, parents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [run_cycles(taped, parents)]
    assert taped.graphs is not None
    (known,) = taped.graphs.passes.values()
    assert sum(p.graph.replays for p in known.values() if p.graph is not None) >= 3
    monkeypatch.setattr(taped, "graphs", None)
    results.append(run_cycles(taped, parents))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, atol=5e-5, rtol=0.0)


def test_a_buffer_that_is_replaced_is_caught(
    taped: Transformer, laws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug that shows only in a replay: a graph reads the old address."""

    def load(self: TargetPass, ids: Tensor, plan: Tensor, sees: Tensor | None) -> None:
        self.ids[: ids.shape[0]].copy_(ids)
        self.plan = plan

    monkeypatch.setattr(TargetPass, "load", load)
    with pytest.raises(AssertionError):
        laws.tokens_one_by_one(taped)


def run_cycles(model: Transformer, parents: Any, *, sync: str = "default") -> list[Tensor]:
    """Logits and taps of six cycles of three sequences; the later ones may not wait for CUDA."""
    results = []
    state = model.begin(3, 100, taps=(1,))
    for slot in range(3):
        model.forward(state, [ids(17 - 3 * slot, slot).to(model.device)], first=slot)
    for cycle in range(6):
        new = [ids(6, 10 * cycle + slot).to(model.device) for slot in range(3)]
        bases = list(state.lengths)
        if cycle > 1 and sync == "error":  # before, libraries are set up and passes captured
            torch.cuda.set_sync_debug_mode(sync)
        out = model.forward(state, new, parents=parents)
        if sync == "error":
            torch.cuda.set_sync_debug_mode("default")
        assert out.taps is not None
        results += [out.logits.cpu(), out.taps.cpu()]
        for slot in range(3):
            state.rollback(slot, bases[slot] + 1 + cycle % 3)
    return results


def test_few_shapes_occur(fixed: Transformer) -> None:
    state = fixed.begin(1, 64)
    fixed.forward(state, [ids(9, 0)])
    for step in range(20):
        fixed.forward(state, [ids(1 + step % 3, step)])
        state.rollback(0, 10 + step)
    assert fixed.graphs is not None
    (shapes,) = fixed.graphs.passes.values()
    assert set(shapes) == {
        Shape(1, 16, 16, False, ()),
        Shape(1, 3, 16, False, ()),
        Shape(1, 3, 32, False, ()),
    }


def test_widths_are_few_and_wide_enough() -> None:
    widths = [width_for(cells, 40000) for cells in range(1, 40001)]
    assert all(w >= cells for cells, w in enumerate(widths, start=1))
    assert all(w % 256 == 0 or w == 40000 for w in widths)
    assert len(set(widths)) < 30
    assert width_for(300, 310) == 310


def test_a_short_sequence_repeats_its_last_row() -> None:
    plan, sees = fixed_plan([5, 9], [3, 1], [(-1, -1), None], 4)
    cells, positions, take, places = plan.tolist()
    assert cells == [[5, 6, 7, 7], [9, 9, 9, 9]]
    assert positions == [[5, 6, 6, 6], [9, 9, 9, 9]]
    assert take == [[0, 1, 2, 2], [3, 3, 3, 3]]
    assert places[0][:3] + places[0][3:] == [0, 1, 2, 4]
    assert sees is not None
    assert sees[0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0]]
    assert sees[1].int().tolist() == [[1, 0, 0, 0]] * 4


def test_a_cache_is_lent_again_with_its_passes(fixed: Transformer) -> None:
    seam = fixed.graphs
    assert seam is not None
    state = fixed.begin(2, 20)
    fixed.forward(state, [ids(9, 0)])
    cache, known = state.cache, dict(seam.passes[state.cache])
    other = fixed.begin(1, 20)
    assert other.cache is not cache  # the first is still in use
    del state, other
    gc.collect()
    again = fixed.begin(2, 30)
    assert again.cache is cache
    assert list(again.lengths) == []
    assert dict(seam.passes[cache]) == known
    bigger = fixed.begin(1, 90)
    assert bigger.cache.capacity >= 90
    assert bigger.cache.capacity % 16 == 0
    with pytest.raises(ContextError, match="context is 128"):
        fixed.begin(1, 129)
    del again, bigger, cache
    gc.collect()
    assert len(seam.spare) <= 2


def test_fusing_forgets_the_graphs(pair_of: Callable[[str], Any]) -> None:
    model = load_transformer(pair_of("llama").folder, dtype=torch.float32, device=CPU)
    model.graphs = Graphs(model, capture=False)
    assert model.fuse().graphs is None


def test_on_a_cpu_nothing_is_captured(pair_of: Callable[[str], Any]) -> None:
    model: Transformer = pair_of("llama").ours
    model.forward(model.begin(1, 16), [ids(4, 0)])
    assert model.graphs is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
@pytest.mark.parametrize("case", ["llama", "mistral", "qwen2-windows", "qwen3"])
@pytest.mark.parametrize("parents", [None, (TREE, None, (-1, -1, -1, 0, 3))])
def test_a_captured_pass_is_that_of_the_cpu(
    case: str, parents: Any, pair_of: Callable[[str], Any]
) -> None:
    pair = pair_of(case)
    model = load_transformer(pair.folder, dtype=torch.float32, device=torch.device("cuda", 0))
    try:
        results = run_cycles(model, parents, sync="error")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert model.graphs is not None
    passes = [p for known in model.graphs.passes.values() for p in known.values()]
    assert any(p.graph is not None for p in passes)
    for got, want in zip(results, run_cycles(pair.ours, parents), strict=True):
        torch.testing.assert_close(got, want, atol=5e-3, rtol=0.0)
