"""Block lengths, policies, candidates and seedings as the arms of one bench, and replay of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track

from floodstage.bench.compare import BenchConfig, make_requests, settings_of
from floodstage.bench.dense import read_costs, read_trace, write_trace
from floodstage.bench.replay import Score, replay
from floodstage.bench.workloads import load_workload
from floodstage.core.errors import ConfigError
from floodstage.core.protocols import Scheduler
from floodstage.engine.build import OF_GUESSES, SCHEDULERS, EngineConfig, build
from floodstage.engine.spec import make


def lengths(text: str) -> list[int]:
    """ "4,8,12" or "4-16" or "4-16:2", or such parts with commas between, in ascending order."""
    found: set[int] = set()
    for part in filter(None, (p.strip() for p in text.split(","))):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if match is None or match[3] == "0":
            raise ConfigError(f"Draft lengths look like 4,8,12 or 4-16 or 4-16:2, got {part!r}.")
        first, last = int(match[1]), int(match[2] or match[1])
        found.update(range(first, last + 1, int(match[3] or 1)))
    if not found or min(found) < 1:
        raise ConfigError(f"Give draft lengths of at least 1, got {text!r}.")
    return sorted(found)


def sweep_arms(drafter: str, draft_len: str, policies: Sequence[str] = ()) -> tuple[str, ...]:
    """The shared baseline, every length, and every policy (`ewma`, `best-first+cost`, ...) at the
    drafter's own length."""
    fixed = [f"{drafter}:{n}" for n in lengths(draft_len)] if draft_len else []
    arms = ["none", *fixed, *(f"{drafter}+{policy}" for policy in policies)]
    return tuple(dict.fromkeys(arms))


def trace(config: BenchConfig, drafter: str, out: Path) -> None:
    """A dense trace of `drafter` on the workload of `config`: see `dense`."""
    engine = build(
        EngineConfig(
            target=config.target,
            drafter=drafter,
            device=config.device,
            dtype=config.dtype,
            threads=config.threads,
        )
    )
    if engine.drafter.draft_len < 1:
        raise ConfigError(f"There is nothing to trace: the drafter {drafter!r} drafts nothing.")
    if isinstance(engine.drafter, OF_GUESSES):
        raise ConfigError(
            f"The drafter {drafter!r} cannot be traced: a trace verifies no draft, and what it "
            "drafts depends on the drafts that were verified. Measure it with `floodstage sweep`."
        )
    workload = load_workload(config.workload, config.prompts, seed=config.seed)
    requests = make_requests(config, engine, workload)
    settings = settings_of(config) | {"drafter": drafter, "draft_len": engine.drafter.draft_len}
    texts = write_trace(engine, workload, requests, out, settings)
    console = Console(stderr=True)
    for _ in track(texts, "tracing", total=len(requests), console=console):
        pass


def replay_run(runs: Sequence[Path], policies: Sequence[str]) -> list[Score]:
    """Score policies on the traces in `runs`, whose texts follow one another in turns: with
    several, a mixed stream. A policy is `fixed:N` or `fixed:N-M`, a scheduler with its settings if
    wanted, or `oracle`. The costs are those of the first run."""
    traces = [read_trace(run) for run in runs]
    texts = [t for i in range(max(map(len, traces))) for trace in traces for t in trace[i : i + 1]]
    length = max((len(c) for t in texts for c in t.confidence), default=0)
    return replay(texts, read_costs(runs[0]), _policies(policies, length))


def _policies(
    names: Sequence[str], length: int
) -> list[tuple[str, Callable[[], Scheduler] | None]]:
    out: list[tuple[str, Callable[[], Scheduler] | None]] = []
    for name in names:
        if name.startswith("fixed:"):
            out += [
                (f"fixed:{n}", partial(SCHEDULERS["fixed"], n))
                for n in lengths(name.removeprefix("fixed:"))
            ]
        elif name == "oracle":
            out.append((name, None))
        else:
            make("scheduler", name, SCHEDULERS, length)  # a mistake is said before the work
            out.append((name, partial(make, "scheduler", name, SCHEDULERS, length)))
    return out
