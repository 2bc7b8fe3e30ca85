"""The trace of Jacobi decoding: how the whole continuation of a prompt settles, pass by pass.

Every place of an initial sketch is replaced, all at once, by the token that the target puts after
what stands before it, until nothing changes. Row j of a pass reads the token before place j, so
its argmax belongs *at* place j: the shift by one that published code left out. Step 0 is the
sketch, the baseline of doing nothing. Pure measurement of accuracy: knows no clock and no drafter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from floodstage.bench.flood_plots import picture
from floodstage.bench.measure import environment, same_settings
from floodstage.bench.plots import Axes
from floodstage.bench.records import keep_rows
from floodstage.bench.tables import Table, write_tables
from floodstage.bench.workloads import load_workload
from floodstage.core.errors import ConfigError
from floodstage.core.files import write_whole
from floodstage.core.protocols import Target
from floodstage.core.types import TokenId, TokenIds
from floodstage.engine.build import EngineConfig, build
from floodstage.engine.engine import Engine
from floodstage.engine.options import Options

SHOWN = (0, 1, 2, 3, 5, 10, 20, 50)
"""Steps that a table shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JacobiConfig:
    """What is iterated: the `tokens` tokens after the first one of each greedy answer (fewer where
    it ends before). Of the `sketch`, so many per cent are the true tokens, evenly spaced; `fill`
    stands at the others: `repeat` the token before the sketch, `random` ones, or one token's id."""

    target: str = "math-mini"
    workload: str = "mathematics"
    prompts: int = 16
    tokens: int = 64
    sketch: tuple[int, ...] = (0, 10, 50)
    fill: str = "repeat"
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        if self.prompts < 1 or self.tokens < 1:
            raise ConfigError(
                f"Expected prompts >= 1 and tokens >= 1, got {self.prompts!r} and {self.tokens!r}."
            )
        if not self.sketch or not all(0 <= share < 100 for share in self.sketch):
            raise ConfigError(f"sketch takes per cents from 0 to 99, got {self.sketch!r}.")
        if self.fill not in ("repeat", "random") and not self.fill.isdecimal():
            raise ConfigError(f"fill must be repeat, random or a token id, got {self.fill!r}.")


def run_jacobi(config: JacobiConfig, out: Path, *, progress: bool = True) -> list[Table]:
    """Trace what `out` lacks, then its tables and `accuracy_by_step.png`. Raises RunError if `out`
    holds another run, ConfigError for a fill that is no token of the target."""
    engine = build(
        EngineConfig(
            target=config.target,
            drafter="none",
            device=config.device,
            dtype=config.dtype,
            threads=config.threads,
        )
    )
    if config.fill.isdecimal() and int(config.fill) >= engine.target.vocab_size:
        raise ConfigError(
            f"fill {config.fill!r} is no token: the target knows {engine.target.vocab_size}."
        )
    workload = load_workload(config.workload, config.prompts, seed=config.seed)
    out.mkdir(parents=True, exist_ok=True)
    settings = asdict(config) | {"device": str(engine.target.device)}  # what "auto" came to
    identity = {"settings": settings, "prompt_hash": workload.digest}
    same_settings(out, identity, environment(settings["device"]))
    prompts = [item.prompt for item in workload.items]

    def missing(have: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        known = {row["prompt"] for row in have}
        todo = [n for n in range(len(prompts)) if n not in known]
        shown = Console(stderr=True)
        for n in track(todo, "iterating", disable=not progress, console=shown):
            yield {"prompt": n, "traces": _trace_prompt(engine, prompts[n], n, config)}

    rows = keep_rows(out / "records.jsonl", missing)
    shown = tables(rows)
    write_tables(out, shown)
    write_whole(out / "accuracy_by_step.png", draw_steps(rows))
    return shown


# -- the iteration ----------------------------------------------------------------------------


@torch.inference_mode()
def iterate(
    target: Target, prompt: TokenIds, pending: TokenId, sketch: Tensor, clamped: Tensor
) -> list[Tensor]:
    """Jacobi iteration (Santilli et al. 2023) of the tokens after `prompt` and `pending`.

    sketch [n] int64, clamped [n] bool (places that keep their token) -> the iterates [n], the
    sketch first, up to the fixed point; the pass that confirms it adds none. After t passes the
    first t tokens are those of greedy decoding if no wrong token is clamped, so n passes suffice;
    after n + 1 it stops even where rounding lets two tokens swap for ever.
    Raises ContextError if the target cannot hold the text.
    """
    n, base = sketch.shape[0], len(prompt)
    state = target.begin(1, base + n)
    target.forward(state, [torch.tensor(prompt, device=target.device)], last_only=True)
    first = torch.tensor([pending], device=target.device)
    found = [sketch]
    for _ in range(n + 1):
        rows = torch.cat([first, found[-1][:-1]])  # [n]: the token before each place
        own = target.forward(state, [rows]).logits.argmax(-1)
        state.rollback(0, base)
        new = torch.where(clamped, sketch, own)
        if torch.equal(new, found[-1]):
            break
        found.append(new)
    return found


def known_places(tokens: int, share: int) -> Tensor:
    """[tokens] bool: `share` per cent of the places, evenly spaced, but never all of them."""
    count = min(round(tokens * share / 100), tokens - 1)
    known = torch.zeros(tokens, dtype=torch.bool)
    known[[(i + 1) * tokens // count - 1 for i in range(count)]] = True
    return known


def blank(fill: str, tokens: int, pending: TokenId, vocab_size: int, seed: int) -> Tensor:
    """[tokens] int64: what stands where nothing is known."""
    if fill == "random":
        return torch.randint(vocab_size, (tokens,), generator=torch.Generator().manual_seed(seed))
    return torch.full((tokens,), pending if fill == "repeat" else int(fill))


def _trace_prompt(
    engine: Engine, prompt: str, number: int, config: JacobiConfig
) -> list[dict[str, Any]]:
    """A trace for every sketch; none where the answer is a single token."""
    request = engine.request(prompt, Options(max_new_tokens=config.tokens + 1))
    (done,) = [c.generation for c in engine.run([request]) if c.generation is not None]
    pending, true = done.ids[0], torch.tensor(done.ids[1:], dtype=torch.long)
    if not len(true):
        return []
    target = engine.target
    seed = 1_000_003 * config.seed + number
    guess = blank(config.fill, len(true), pending, target.vocab_size, seed)
    traces = []
    for share in config.sketch:
        known = known_places(len(true), share)
        sketch = torch.where(known, true, guess).to(target.device)
        for clamp in (False, True) if bool(known.any()) else (False,):
            fixed = (known & clamp).to(target.device)
            found = iterate(target, request.prompt, pending, sketch, fixed)
            right = torch.stack(found).cpu() == true  # [steps + 1, n]
            traces.append(
                {
                    "sketch": share,
                    "clamped": clamp,
                    "tokens": len(true),
                    "known": int(known.sum()),
                    "right": right.sum(1).tolist(),
                    "unknown_right": right[:, ~known].sum(1).tolist(),
                    "prefix": right.long().cumprod(1).sum(1).tolist(),
                    "exact": bool(right[-1].all()),
                }
            )
    return traces


# -- tables and the plot ----------------------------------------------------------------------

Traces = dict[str, list[dict[str, Any]]]


def by_sketch(rows: Sequence[dict[str, Any]]) -> Traces:
    """The traces of each way to begin, by its name."""
    found: Traces = {}
    for row in rows:
        for trace in row["traces"]:
            how = ", clamped" if trace["clamped"] else ", free" if trace["known"] else ""
            found.setdefault(f"{trace['sketch']} % known{how}", []).append(trace)
    return found


def accuracy(traces: Sequence[dict[str, Any]], step: int, *, unknown: bool = False) -> float:
    """The share of right tokens after `step` passes, all prompts pooled; one that has settled
    counts as it is."""
    key = "unknown_right" if unknown else "right"
    right = sum(t[key][min(step, len(t[key]) - 1)] for t in traces)
    return float(right / sum(t["tokens"] - t["known"] * unknown for t in traces))


def tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """Accuracy by step, of all tokens and of the unknown ones, and the way to the fixed point."""
    found = by_sketch(rows)
    last = max((len(t["right"]) - 1 for traces in found.values() for t in traces), default=0)
    steps = [step for step in SHOWN if step < last] + [last]
    shown = [
        Table(
            f"Right, % of {'the tokens that were not known' if unknown else 'all tokens'}, by step",
            ("sketch", *(str(step) for step in steps)),
            tuple(
                (name, *(f"{100 * accuracy(traces, s, unknown=unknown):.1f}" for s in steps))
                for name, traces in found.items()
            ),
            "Step 0 is the sketch: the baseline of doing nothing.",
        )
        for unknown in (False, True)
    ]
    return [*shown, _settling(found)]


def _settling(found: Traces) -> Table:
    rows = []
    for name, traces in found.items():
        steps = [len(t["right"]) - 1 for t in traces]
        passes = max(1, sum(steps))
        tokens = sum(t["tokens"] for t in traces)
        rows.append(
            (
                name,
                str(len(traces)),
                f"{tokens / len(traces):.1f}",
                f"{sum(steps) / len(steps):.1f}",
                f"{median(steps):g}",
                str(max(steps)),
                f"{tokens / passes:.2f}",
                f"{sum(t['tokens'] - t['known'] for t in traces) / passes:.2f}",
                f"{sum(t['exact'] for t in traces)}/{len(traces)}",
            )
        )
    head = ("sketch", "texts", "tokens/text", "passes, mean", "median", "most", "tokens/pass",
            "unknown/pass", "greedy text")  # fmt: skip
    note = (
        "Passes until nothing changes, the one that confirms it left out. Tokens per pass: all, "
        "and those alone that were not known at the start. Free: known tokens are overwritten "
        "like all others; clamped: they stay. Greedy text: texts whose fixed point is it."
    )
    return Table("The way to the fixed point", head, tuple(rows), note)


def draw_steps(rows: Sequence[dict[str, Any]]) -> bytes:
    """Accuracy against steps: all tokens, and those that were not known."""
    found = by_sketch(rows)

    def panel(axes: Axes, title: str, *, unknown: bool) -> None:
        for name, traces in found.items():
            last = max(len(t["right"]) - 1 for t in traces)
            values = [100 * accuracy(traces, s, unknown=unknown) for s in range(last + 1)]
            axes.plot(range(last + 1), values, label=name)
        axes.set(xlabel="passes", ylabel="right, %", title=title, ylim=(0, 102))

    return picture(
        lambda axes: panel(axes, "all tokens", unknown=False),
        lambda axes: panel(axes, "tokens not known at the start", unknown=True),
    )
