"""Planted bugs: a law that catches none of them is not a law."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from floodstage.models import cache, graphs, layers
from floodstage.models.cache import KVCache, Rows
from floodstage.models.graphs import Graphs
from floodstage.models.load import load_transformer
from floodstage.ops import rope

Patch = pytest.MonkeyPatch
additive, windowed, write = cache.additive, cache._windowed, KVCache.write


def rollback_forgets_one_too_few(patch: Patch) -> None:
    def rollback(self: KVCache, slot: int, length: int) -> None:
        self.lengths[slot] = min(length + 1, self.lengths[slot])

    patch.setattr(KVCache, "rollback", rollback)


def rollback_forgets_one_too_many(patch: Patch) -> None:
    def rollback(self: KVCache, slot: int, length: int) -> None:
        self.lengths[slot] = max(length - 1, 0)

    patch.setattr(KVCache, "rollback", rollback)


def rows_see_the_future(patch: Patch) -> None:
    see = lambda mask, group, dtype: additive(torch.ones_like(mask), group, dtype)  # noqa: E731
    patch.setattr(cache, "additive", see)
    patch.setattr(graphs, "additive", see)


def rows_see_one_cell_less(patch: Patch) -> None:
    def less(mask: Tensor, group: int, dtype: torch.dtype) -> Tensor:
        return additive(mask & mask.roll(-1, -1), group, dtype)

    patch.setattr(cache, "additive", less)
    patch.setattr(graphs, "additive", less)


def branches_see_each_other(patch: Patch) -> None:
    def ancestry(parents: Sequence[int], rows: int) -> tuple[Tensor, Tensor]:
        return original(parents, rows)[0], torch.ones(rows, rows, dtype=torch.bool).tril()

    original = cache.ancestry
    patch.setattr(cache, "ancestry", ancestry)
    patch.setattr(graphs, "ancestry", ancestry)


def positions_count_nodes(patch: Patch) -> None:
    def ancestry(parents: Sequence[int], rows: int) -> tuple[Tensor, Tensor]:
        return torch.arange(rows), original(parents, rows)[1]

    original = cache.ancestry
    patch.setattr(cache, "ancestry", ancestry)
    patch.setattr(graphs, "ancestry", ancestry)


def keep_moves_nothing(patch: Patch) -> None:
    def keep(self: KVCache, slot: int, base: int, path: Sequence[int]) -> None:
        self.rollback(slot, base + 1 + len(path))

    patch.setattr(KVCache, "keep", keep)


def leaving_moves_nothing(patch: Patch) -> None:
    def leave(self: KVCache, slot: int) -> None:
        self.lengths[slot] = self.lengths[-1]
        self.lengths.pop()

    patch.setattr(KVCache, "leave", leave)


def windows_are_one_wider(patch: Patch) -> None:
    patch.setattr(cache, "_windowed", lambda rows, window: windowed(rows, window + 1))


def windows_count_cells(patch: Patch) -> None:
    def count(rows: Rows, window: int) -> Tensor:
        return windowed(replace(rows, positions=rows.cells), window)

    patch.setattr(cache, "_windowed", count)


def batches_write_one_cell_late(patch: Patch) -> None:
    def late(self: KVCache, layer: int, rows: Rows, k: Tensor, v: Tensor) -> None:
        write(self, layer, replace(rows, cells=rows.cells + 1), k, v)

    patch.setattr(KVCache, "write", late)


MUTANTS: dict[Callable[[Patch], None], str] = {
    rollback_forgets_one_too_few: "rollback_leaves_no_trace",
    rollback_forgets_one_too_many: "rollback_leaves_no_trace",
    rows_see_the_future: "tokens_one_by_one",
    rows_see_one_cell_less: "tokens_one_by_one",
    branches_see_each_other: "tree_equals_its_chains",
    positions_count_nodes: "tree_equals_its_chains",
    keep_moves_nothing: "keep_leaves_only_the_path",
    leaving_moves_nothing: "leaving_moves_the_last",
    windows_are_one_wider: "",  # consistent in itself: only transformers can tell
    windows_count_cells: "tree_equals_its_chains",
    batches_write_one_cell_late: "batch_gives_each_its_own",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_planted_bug_is_caught(
    mutant: Callable[[Patch], None],
    pair_of: Callable[[str], Any],
    laws: Any,
    monkeypatch: Patch,
) -> None:
    pair = pair_of("mistral")
    mutant(monkeypatch)
    if law := MUTANTS[mutant]:
        with pytest.raises(AssertionError):
            getattr(laws, law)(pair.ours)
    else:
        assert error_against_theirs(pair.theirs, pair.ours) > 1e-2


@pytest.mark.parametrize(
    "mutant",
    [m for m, law in MUTANTS.items() if law and "window" not in m.__name__],
    ids=lambda mutant: mutant.__name__,
)
def test_a_planted_bug_is_caught_in_fixed_shapes(
    mutant: Callable[[Patch], None],
    pair_of: Callable[[str], Any],
    laws: Any,
    monkeypatch: Patch,
) -> None:
    folder = pair_of("llama").folder
    model = load_transformer(folder, dtype=torch.float32, device=torch.device("cpu"))
    model.graphs = Graphs(model, capture=False)
    monkeypatch.setattr(graphs, "ROWS", (3, 8))
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        getattr(laws, MUTANTS[mutant])(model)


def error_against_theirs(theirs: Any, ours: Any) -> float:
    ids = torch.arange(40) * 7 % 97
    with torch.no_grad():
        want = theirs(ids[None]).logits[0]
    got = ours.forward(ours.begin(1, 64), [ids]).logits
    return float((got - want).abs().max())


def no_scale(patch: Patch) -> None:
    patch.setattr(rope, "_yarn_scale", lambda factor, settings: 1.0)


def no_stretching(patch: Patch) -> None:
    original = rope.frequencies
    plain = {"rope_theta": 5000.0}
    patch.setattr(
        layers,
        "frequencies",
        lambda head_dim, settings: (original(head_dim, plain)[0], original(head_dim, settings)[1]),
    )


def turned_backwards(patch: Patch) -> None:
    patch.setattr(layers, "rotate", lambda x, cos, sin: rope.rotate(x, cos, -sin))


def a_position_late(patch: Patch) -> None:
    """Harmless in itself (only differences matter) until positions are counted differently."""
    original = rope.table

    def table(inverse: Tensor, scale: float, length: int) -> tuple[Tensor, Tensor]:
        cos, sin = original(inverse, scale, length)
        return cos, sin.roll(1, 0)

    patch.setattr(layers, "table", table)


@pytest.mark.parametrize(
    ("mutant", "case"),
    [
        (no_scale, "rope-yarn"),
        (no_scale, "rope-yarn-mscale-old"),
        (no_stretching, "rope-yarn"),
        (no_stretching, "rope-llama3"),
        (no_stretching, "rope-linear-old"),
        (turned_backwards, "rope-linear"),
        (a_position_late, "qwen3"),
    ],
)
def test_a_wrong_rope_is_caught(
    mutant: Callable[[Patch], None],
    case: str,
    pair_of: Callable[[str], Any],
    monkeypatch: Patch,
) -> None:
    pair = pair_of(case)
    mutant(monkeypatch)
    ours = load_transformer(pair.folder, dtype=torch.float32, device=torch.device("cpu"))
    assert error_against_theirs(pair.theirs, ours) > 1e-2
