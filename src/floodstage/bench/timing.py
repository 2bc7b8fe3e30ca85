"""Timing only: cached autoregression against full parallel passes of the same causal model.

What a model that filled a canvas in so many passes would cost. No such model is run: the passes
read random ids and their own argmax, so the output means nothing. Knows nothing of grids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from floodstage.bench.tables import Table
from floodstage.core.errors import ConfigError
from floodstage.core.metrics import Cost, Interval, speedup
from floodstage.core.protocols import Clock, Target
from floodstage.core.types import Request
from floodstage.decoding.loop import decode
from floodstage.decoding.verifiers import MatchVerifier
from floodstage.drafting.none import NoDrafter
from floodstage.engine.build import EngineConfig, build
from floodstage.scheduling.fixed import FixedScheduler

TIMING_ONLY = "timing only: the output means nothing"
PROMPT = 8  # tokens before the autoregressive text
WARM = 16  # tokens of its warm-up


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingConfig:
    """What is timed: `tokens` written one by one, against `passes` passes over as many at once.
    Each of `repeats` rounds is A B B A."""

    target: str = "math-mini"
    tokens: int = 1024
    passes: int = 10
    repeats: int = 3
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What it took. `ratio` is the cached seconds over the parallel ones, with a bootstrap interval
    over rounds. FLOPs are 2 x parameters x tokens read, attention left out."""

    target: str
    tokens: int
    passes: int
    parameters: int
    cache_bytes: int  # keys and values of `tokens` tokens; 0: the target does not tell
    cached_s: tuple[float, ...]
    parallel_s: tuple[float, ...]
    ratio: Interval
    note: str = TIMING_ONLY

    @property
    def cached_tokens_per_s(self) -> float:
        return self.tokens * len(self.cached_s) / sum(self.cached_s)

    @property
    def parallel_tokens_per_s(self) -> float:
        return self.tokens * len(self.parallel_s) / sum(self.parallel_s)

    @property
    def cached_flops(self) -> int:
        return 2 * self.parameters * self.tokens

    @property
    def parallel_flops(self) -> int:
        return self.passes * self.cached_flops


def run_timing(config: TimingConfig, *, progress: bool = True) -> Timing:
    """Time the model that `config` names. Raises what `time_passes` and `engine.build` raise."""
    engine = build(
        EngineConfig(
            target=config.target,
            drafter="none",
            device=config.device,
            dtype=config.dtype,
            threads=config.threads,
        )
    )
    return time_passes(engine.target, engine.clock, config, progress=progress)


def time_passes(
    target: Target, clock: Clock, config: TimingConfig, *, progress: bool = False
) -> Timing:
    """Time any target; `clock` waits for its device (`engine.device.clock_of`).

    Cached: the decode loop without a drafter, from a prompt of 8 random tokens, its pass included.
    Parallel: a fresh state per pass, logits and argmax of every position; the argmax is read by
    the next pass. Raises ConfigError for sizes below 1 or above the target's context.
    """
    small = min(config.tokens, config.passes, config.repeats)
    if small < 1:
        raise ConfigError(f"tokens, passes and repeats must be >= 1, got {small!r}.")
    if config.tokens + PROMPT > target.context:
        raise ConfigError(
            f"{config.tokens} tokens after a prompt of {PROMPT} exceed the context of "
            f"{config.target!r}, {target.context}: at most {target.context - PROMPT} fit."
        )
    generator = torch.Generator().manual_seed(config.seed)
    ids = torch.randint(target.vocab_size, (PROMPT + config.tokens,), generator=generator)
    prompt, sketch = ids[:PROMPT], ids[PROMPT:].to(target.device)
    write_cached(target, prompt, min(config.tokens, WARM), room=config.tokens)
    _, cache_bytes = fill_in_passes(target, sketch, 1)
    seconds: dict[str, list[float]] = {"cached": [], "parallel": []}
    work: dict[str, Callable[[], object]] = {
        "cached": lambda: write_cached(target, prompt, config.tokens, room=config.tokens),
        "parallel": lambda: fill_in_passes(target, sketch, config.passes),
    }
    order = ["cached", "parallel", "parallel", "cached"] * config.repeats
    for arm in track(order, "timing", disable=not progress, console=Console(stderr=True)):
        start = clock()
        work[arm]()
        seconds[arm].append(clock() - start)
    costs = {arm: [Cost(config.tokens, s) for s in own] for arm, own in seconds.items()}
    return Timing(
        target=config.target,
        tokens=config.tokens,
        passes=config.passes,
        parameters=parameters(target),
        cache_bytes=cache_bytes,
        cached_s=tuple(seconds["cached"]),
        parallel_s=tuple(seconds["parallel"]),
        ratio=speedup(costs["parallel"], costs["cached"], seed=config.seed),
    )


def write_cached(target: Target, prompt: Tensor, tokens: int, *, room: int) -> list[int]:
    """`tokens` tokens after `prompt`, one by one, in a state with room for `room` of them."""
    request = Request(prompt=tuple(prompt.tolist()), max_new_tokens=tokens)
    steps = decode(
        target,
        NoDrafter(target.device),
        MatchVerifier(),
        FixedScheduler(0),
        [request],
        capacity=len(request.prompt) + room,
    )
    return [token for step in steps for token in step.tokens]


@torch.inference_mode()
def fill_in_passes(target: Target, sketch: Tensor, passes: int) -> tuple[Tensor, int]:
    """sketch [n] -> the argmax of every position of the last pass [n], and the bytes of its
    cache."""
    held = 0
    for _ in range(passes):
        state = target.begin(1, sketch.shape[0])
        sketch = target.forward(state, [sketch]).logits.argmax(-1)
        held = int(getattr(state, "nbytes", 0))
    return sketch, held


def parameters(target: Target) -> int:
    """Numbers in the target's weights, shared ones once; 0 for a target without weights."""
    net = target if isinstance(target, nn.Module) else getattr(target, "model", None)
    return sum(p.numel() for p in net.parameters()) if isinstance(net, nn.Module) else 0


def table(timing: Timing) -> Table:
    """Both ways beside each other."""
    cached = ("cached, one by one", f"{timing.tokens:,}")
    parallel = ("parallel passes", f"{timing.passes:,}")
    rows = tuple(
        (
            name,
            passes,
            f"{sum(seconds) / len(seconds):.4f}",
            f"{per_s:,.1f}",
            f"{flops / 1e9:,.2f}",
            ratio,
        )
        for (name, passes), seconds, per_s, flops, ratio in (
            (cached, timing.cached_s, timing.cached_tokens_per_s, timing.cached_flops, "1.00"),
            (parallel, timing.parallel_s, timing.parallel_tokens_per_s, timing.parallel_flops,
             str(timing.ratio)),
        )
    )  # fmt: skip
    note = (
        f"{timing.note[0].upper()}{timing.note[1:]}. {timing.tokens:,} tokens of "
        f"{timing.target!r}, {len(timing.cached_s)} runs of each, interleaved A B B A; in brackets "
        "the 95 % interval from resampling them. GFLOPs: 2 x parameters x tokens read, attention "
        f"left out. Keys and values of the text: {timing.cache_bytes:,} bytes."
    )
    head = ("way", "passes", "s", "tokens/s", "GFLOPs", "times cached [95 %]")
    return Table(f"Timing of {timing.target}", head, rows, note)
