"""The block-diffusion drafter's cycle in fixed shapes against its plain path."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from floodstage.core.types import Commit, Request
from floodstage.drafting.block_diffusion import BlockDiffusionDrafter, BlockDiffusionSession
from floodstage.models import block_pass, graphs
from floodstage.models.block_diffusion import BlockDiffusion, BlockDiffusionConfig
from floodstage.models.block_pass import BlockPass, BlockShape
from floodstage.models.graphs import Graphs
from floodstage.models.load import load_transformer

CPU = torch.device("cpu")
BLOCK, MASK, TAPS = 6, 8, (0, 2)
RAGGED = ((17, 4, 11), (1, 6, 3), (2, 2, 2), (6, 1, 5), (3, 1, 1), (1, 1, 6), (9, 1, 7))
"""New context rows of three sequences, cycle by cycle."""
EVEN = ((6, 6, 6),) * 4
WINDOWS: dict[str, tuple[tuple[int | None, ...], bool]] = {
    "whole": ((None, None), True),
    "causal-windows": ((4, None), True),
    "wide-windows": ((None, 9), False),
    "windows-only": ((4, 4), False),
}

Nets = Callable[..., BlockDiffusion]


@pytest.fixture(params=WINDOWS)
def windows(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def drafter_of(pair_of: Callable[[str], Any]) -> Nets:
    """Untrained drafters; in float64, where a pass that is padded differs in no visible bit."""

    def give(
        windows: str, dtype: torch.dtype = torch.float64, device: torch.device = CPU
    ) -> BlockDiffusion:
        target = load_transformer(pair_of("qwen3").folder, dtype=dtype, device=device)
        kinds, causal = WINDOWS[windows]
        config = BlockDiffusionConfig(
            body=replace(target.config, layers=2, windows=kinds),
            block_size=BLOCK,
            mask_id=MASK,
            taps=TAPS,
            target_layers=target.config.layers,
            causal_windows=causal,
        )
        net = BlockDiffusion(config).double()
        generator = torch.Generator().manual_seed(5)
        for p in net.parameters():
            spread = 2.0 * p.shape[1] ** -0.5 if p.ndim == 2 else 0.3
            noise = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            p.data = float(p.ndim == 1) + spread * noise
        return net.to(device, dtype).eval().fuse().bind(target)

    return give


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small buckets, so that padding is common."""
    monkeypatch.setattr(graphs, "ROWS", (8, 12))
    monkeypatch.setattr(graphs, "STEP", 16)


def taps_of(net: BlockDiffusion, rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    like = net.fc.weight
    return torch.randn(rows, net.fc.in_features, generator=generator, dtype=torch.float64).to(like)


def run(
    net: BlockDiffusion, cycles: Sequence[Sequence[int]], *, sync: str = "default"
) -> list[Tensor]:
    """Tokens and confidence of every cycle, then the context that the cache holds; the later
    cycles may not wait for CUDA."""
    session = BlockDiffusionDrafter(net, BLOCK - 1).begin(len(cycles[0]), 48)
    request, results = Request(prompt=(1,), max_new_tokens=1), []
    for slot, rows in enumerate(cycles[0]):
        session.join(request, taps_of(net, rows, slot))
    for cycle, counts in enumerate(cycles):
        if cycle:
            session.observe(
                [
                    Commit(0, (0,), taps_of(net, rows, 10 * cycle + slot))
                    for slot, rows in enumerate(counts)
                ]
            )
        results += proposed(session, cycle, sync if cycle > 2 else "default")
    return results + held(session)


def proposed(session: BlockDiffusionSession, cycle: int, sync: str = "default") -> list[Tensor]:
    n = len(session.memories)
    if sync != "default":  # before, libraries are set up and passes captured
        torch.cuda.set_sync_debug_mode(sync)
    drafts = session.propose([(7 * cycle + 5 * slot) % 97 for slot in range(n)], [BLOCK - 1] * n)
    if sync != "default":
        torch.cuda.set_sync_debug_mode("default")
    return [t for d in drafts if d.confidence is not None for t in (d.tokens, d.confidence)]


def held(session: BlockDiffusionSession) -> list[Tensor]:
    stores = (*session.cache.keys, *session.cache.values)
    lengths = session.cache.lengths
    return [store[slot, :, :end].clone() for store in stores for slot, end in enumerate(lengths)]


def same(got: Sequence[Tensor], want: Sequence[Tensor], atol: float = 1e-12) -> None:
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=0.0)


def first(cycles: Sequence[Sequence[int]], n: int) -> list[Sequence[int]]:
    return [counts[:n] for counts in cycles]


@pytest.mark.parametrize("n", [1, 3])
def test_a_fixed_cycle_is_the_plain_one(
    windows: str, n: int, drafter_of: Nets, small: None
) -> None:
    net = drafter_of(windows)
    want = run(net, first(RAGGED, n))
    net.graphs = Graphs(net, capture=False)
    same(run(net, first(RAGGED, n)), want)
    (known,) = net.graphs.passes.values()
    assert BlockShape(n, 8, BLOCK, 48, 1) in known


@pytest.mark.parametrize("n", [1, 3])
def test_bits_are_equal_when_nothing_is_padded(
    windows: str, n: int, drafter_of: Nets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "ROWS", (6,))
    monkeypatch.setattr(graphs, "STEP", 6)
    net = drafter_of(windows, torch.float32)
    want = run(net, first(EVEN, n))
    net.graphs = Graphs(net, capture=False)
    same(run(net, first(EVEN, n)), want, atol=0.0)
    assert net.graphs.passes


@pytest.mark.parametrize("n", [1, 3])
def test_a_replay_is_the_plain_cycle(
    windows: str, n: int, drafter_of: Nets, small: None, tape: None
) -> None:
    net = drafter_of(windows)
    want = run(net, first(RAGGED, n))
    net.graphs = Graphs(net)
    for _ in range(2):  # the second time in the same cache, with what it held
        same(run(net, first(RAGGED, n)), want)
        gc.collect()
    (known,) = net.graphs.passes.values()
    assert sum(p.graph.replays for p in known.values() if p.graph is not None) >= 6


def test_drafts_outlive_the_next_replay(drafter_of: Nets, tape: None) -> None:
    net = drafter_of("whole")
    net.graphs = Graphs(net)
    results = run(net, EVEN)
    assert len({tuple(t.tolist()) for t in results[1 : 6 * len(EVEN) : 2]}) == 3 * len(EVEN)


def test_a_sequence_may_leave_or_bring_nothing(
    windows: str, drafter_of: Nets, small: None, tape: None
) -> None:
    net = drafter_of(windows)

    def cycles() -> list[Tensor]:
        session, results = BlockDiffusionDrafter(net, BLOCK - 1).begin(3, 48), []
        for slot in range(3):
            session.join(Request(prompt=(1,), max_new_tokens=1), taps_of(net, 5 + slot, slot))
        for cycle in range(9):
            if cycle == 4:
                session.leave(0)
            results += proposed(session, cycle)
            new = [taps_of(net, 1 + slot, cycle) for slot in range(len(session.memories))]
            session.observe([Commit(0, (0,), None if cycle == 6 else t) for t in new])
        return results + held(session)

    want = cycles()
    net.graphs = Graphs(net)
    same(cycles(), want)


def no_window(patch: pytest.MonkeyPatch) -> None:
    right = BlockPass._seen
    patch.setattr(BlockPass, "_seen", lambda self, cells, window: right(self, cells, None))


def never_causal(patch: pytest.MonkeyPatch) -> None:
    def seen(self: BlockPass, cells: Tensor, window: int | None) -> Tensor:
        key = torch.arange(self.shape.width)
        near = (key <= cells[:, -1:, None]).expand(*cells.shape, -1)
        return near if window is None else near & (key > cells[:, :, None] - window)

    patch.setattr(BlockPass, "_seen", seen)


def everything_is_seen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        BlockPass,
        "_seen",
        lambda self, cells, window: torch.ones(*cells.shape, self.shape.width, dtype=torch.bool),
    )


def a_buffer_is_replaced(patch: pytest.MonkeyPatch) -> None:
    """Shows only in a replay: a graph reads the old address."""
    right = BlockPass.load

    def load(self: BlockPass, *inputs: Any) -> None:
        self.taps = self.taps.clone()
        right(self, *inputs)

    patch.setattr(BlockPass, "load", load)


def the_plan_is_not_loaded(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(block_pass, "upload", lambda values, device: torch.ones_like(values))


@pytest.mark.parametrize(
    "mutant",
    [no_window, never_causal, everything_is_seen, a_buffer_is_replaced, the_plan_is_not_loaded],
)
def test_a_planted_bug_is_caught(
    mutant: Callable[[pytest.MonkeyPatch], None],
    drafter_of: Nets,
    small: None,
    tape: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = drafter_of("causal-windows")
    want = run(net, RAGGED)
    net.graphs = Graphs(net)
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        same(run(net, RAGGED), want)


def test_one_shape_serves_every_cycle(drafter_of: Nets) -> None:
    net = drafter_of("whole")
    net.graphs = Graphs(net, capture=False)
    run(net, RAGGED[1:6])
    (known,) = net.graphs.passes.values()
    assert set(known) == {BlockShape(3, 8, BLOCK, 256, 1)}


def test_a_cache_is_lent_again_with_its_passes(drafter_of: Nets, small: None) -> None:
    net = drafter_of("whole")
    net.graphs = Graphs(net, capture=False)
    drafter = BlockDiffusionDrafter(net, BLOCK - 1)
    session = drafter.begin(2, 20)
    cache = session.cache
    assert cache.capacity == 32
    assert drafter.begin(1, 20).cache is not cache  # the first is still in use
    del session
    gc.collect()
    again = drafter.begin(2, 26)
    assert again.cache is cache
    assert again.cache.lengths == []
    assert drafter.begin(1, 27).cache.capacity == 48


def test_on_a_cpu_nothing_is_captured(drafter_of: Nets) -> None:
    net = drafter_of("whole")
    assert BlockDiffusionDrafter(net, BLOCK - 1).begin(1, 20).cache.capacity == 26
    assert net.graphs is None
    net.graphs = Graphs(net)
    assert net.fuse().graphs is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
@pytest.mark.parametrize("n", [1, 3])
def test_a_captured_cycle_is_that_of_the_cpu(windows: str, n: int, drafter_of: Nets) -> None:
    net = drafter_of(windows, torch.float32, torch.device("cuda", 0))
    try:
        got = run(net, first(RAGGED[1:], n), sync="error")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert net.graphs is not None
    (known,) = net.graphs.passes.values()
    assert any(p.graph is not None for p in known.values())
    plain = drafter_of(windows, torch.float32)
    same([t.cpu() for t in got], run(plain, first(RAGGED[1:], n)), atol=5e-3)
