"""Timing of passes: equal work, every position, fresh states."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
import torch
from tests.laws.laws import own_text
from tests.laws.tiny import tiny_gpt2, tiny_target
from tests.laws.toy import ToyState, ToyTarget

from floodstage.bench import timing
from floodstage.bench.tables import markdown
from floodstage.bench.timing import (
    PROMPT,
    TIMING_ONLY,
    TimingConfig,
    fill_in_passes,
    run_timing,
    table,
    time_passes,
    write_cached,
)
from floodstage.core.errors import ConfigError
from floodstage.core.types import Forward, Request


class Watched(ToyTarget):
    """Notes every pass, and how many tokens its state held before."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.passes: list[tuple[int, int]] = []

    def forward(self, state: ToyState, tokens: Any, **options: Any) -> Forward:
        self.passes.append((sum(state.lengths), sum(map(len, tokens))))
        out = super().forward(state, tokens, **options)
        assert options.get("last_only") or out.logits.shape[0] == self.passes[-1][1]
        return out


def ticks() -> Any:
    """A clock by which everything takes a second."""
    numbers = count()
    return lambda: float(next(numbers))


def asked(**settings: Any) -> TimingConfig:
    return TimingConfig(**{"target": "toy", "tokens": 20, "passes": 3, "repeats": 2} | settings)


def test_both_ways_do_the_work_they_are_to_do() -> None:
    target = Watched()
    found = time_passes(target, ticks(), asked(repeats=1))
    cached = [(0, PROMPT), *((PROMPT + i, 1) for i in range(19))]
    parallel = [(0, 20)] * 3
    warm = [*cached[:16], (0, 20)]
    assert target.passes == [*warm, *cached, *parallel, *parallel, *cached]
    assert found.cached_s == found.parallel_s == (1.0, 1.0)
    assert found.note == TIMING_ONLY


def test_the_figures() -> None:
    seconds = iter([0, 6, 6, 8, 8, 10, 10, 16])  # cached 6, parallel 2, parallel 2, cached 6
    found = time_passes(tiny_target(), lambda: float(next(seconds)), asked(repeats=1))
    assert (found.cached_s, found.parallel_s) == ((6.0, 6.0), (2.0, 2.0))
    assert (found.ratio.value, found.ratio.low, found.ratio.high) == (3.0, 3.0, 3.0)
    assert found.cached_tokens_per_s == pytest.approx(20 / 6)
    assert found.parallel_tokens_per_s == 10.0
    assert found.parameters == sum(p.numel() for p in tiny_target().parameters())
    assert found.cached_flops == 2 * found.parameters * 20
    assert found.parallel_flops == 3 * found.cached_flops
    layers, heads, head_dim, float64 = 4, 2, 8, 8
    assert found.cache_bytes == 2 * layers * heads * head_dim * 20 * float64


def test_an_adapted_model_is_timed_too() -> None:
    target = tiny_gpt2()
    found = time_passes(target, ticks(), asked())
    assert len(found.cached_s) == len(found.parallel_s) == 4
    assert found.parameters == sum(p.numel() for p in target.model.parameters())
    layers, width, float64 = 4, 32, 8
    assert found.cache_bytes == 2 * layers * width * 20 * float64


def test_the_cached_text_is_the_targets_own_and_a_pass_is_its_argmax() -> None:
    target, prompt = ToyTarget(), torch.tensor([1, 2, 3])
    request = Request(prompt=(1, 2, 3), max_new_tokens=9)
    assert tuple(write_cached(target, prompt, 9, room=9)) == own_text(target, request)
    once, _ = fill_in_passes(target, prompt, 1)
    want = [own_text(target, Request(prompt=(1, 2, 3)[:n], max_new_tokens=1))[0] for n in (1, 2, 3)]
    assert once.tolist() == want
    twice, _ = fill_in_passes(target, prompt, 2)
    assert twice.tolist() == fill_in_passes(target, once, 1)[0].tolist()


def test_a_pass_that_forgets_the_argmax_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def bare(target: Any, sketch: Any, passes: int) -> Any:
        for _ in range(passes):
            target.forward(target.begin(1, len(sketch)), [sketch], last_only=True)
        return sketch, 0

    with monkeypatch.context() as patch:
        patch.setitem(globals(), "fill_in_passes", bare)
        with pytest.raises(AssertionError):
            test_the_cached_text_is_the_targets_own_and_a_pass_is_its_argmax()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"tokens": 57},
            r"57 tokens after a prompt of 8 exceed the context of 'toy', 64: at most 56",
        ),
        ({"tokens": 0}, "must be >= 1, got 0"),
        ({"passes": 0}, "must be >= 1, got 0"),
        ({"repeats": -1}, "must be >= 1, got -1"),
    ],
)
def test_sizes_out_of_range_are_refused(settings: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        time_passes(ToyTarget(context=64), ticks(), asked(**settings))
    time_passes(ToyTarget(context=64), ticks(), asked(tokens=56))


def test_the_table_says_what_it_is(tiny: Any) -> None:
    config = asked(target=str(tiny.target), device="cpu", threads=1, tokens=24)
    found = run_timing(config, progress=False)
    shown = table(found)
    assert [row[0] for row in shown.rows] == ["cached, one by one", "parallel passes"]
    assert [row[1] for row in shown.rows] == ["24", "3"]
    assert "Timing only: the output means nothing." in shown.note
    assert "A B B A" in markdown(shown)
    assert f"{found.cache_bytes:,} bytes" in shown.note
    assert timing.parameters(ToyTarget()) == 0
