"""Programs from a language model: completions of problems, then a verdict for each.

Propose: n samples of every problem through the batched speculative engine. Judge: in the sandbox
of `programs`. Keep: pass@k beside what the tokens cost. Samples are appended as they come and
depend on nothing but their own seed, so a run that was killed goes on and ends the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from floodstage.bench.measure import environment, same_settings
from floodstage.bench.records import keep_rows
from floodstage.bench.summary import markdown_table
from floodstage.core.errors import ConfigError, ContextError, InputError
from floodstage.core.files import write_whole
from floodstage.core.spans import Spans
from floodstage.core.types import Request
from floodstage.engine.build import EngineConfig, build
from floodstage.engine.engine import Engine, Generation
from floodstage.engine.options import Options
from floodstage.programs.inputs.candidates import read_candidates
from floodstage.programs.records import CheckTask, Task, Verdict
from floodstage.programs.store.outputs import pass_rates
from floodstage.programs.validate import ValidateConfig, in_order, validate, write_outputs

SAMPLES = "samples.jsonl"
STOPS = ("\nclass ", "\ndef ", "\nif ", "\nprint(", "\n#", "\n@", "\nimport ", "\nfrom ")
"""Where a completion of a function has surely ended: a new statement at the left edge."""
WHOLE_STOPS = ("\nassert ", '\n"""', "\nprint(", "\nif ", "\n```")
"""Where a whole program has: what uses it, or the next question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig(EngineConfig):
    """`n` samples of each problem; a run of fewer goes on from what it has. `max_new_tokens` is
    the most of one sample; what a context has no room for is left off. `slots` are written at
    once."""

    target: str = "code-mini"
    n: int = 10
    temperature: float = 0.8
    top_p: float = 0.95
    max_new_tokens: int = 256
    seed: int = 0
    slots: int = 8
    validate: ValidateConfig = field(default_factory=ValidateConfig)

    def __post_init__(self) -> None:
        for name in ("n", "max_new_tokens", "slots"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)!r}.")
        if self.temperature == 0 and self.n > 1:
            raise ConfigError(
                f"At temperature 0 all {self.n} samples of a problem are the same: choose n 1 or "
                "a temperature."
            )


@dataclass(frozen=True, slots=True)
class SampleSummary:
    """What was sampled and what it came to.

    `tau` is the mean number of tokens gained per target pass of a sequence, the bonus included,
    the prefill left out. `too_long` are problems whose prompt leaves the context no room.
    """

    target: str
    drafter: str
    problems: int
    too_long: tuple[str, ...]
    samples: int
    tokens: int
    tau: float
    solved: int
    pass_at: dict[str, float]
    verdicts: dict[str, int]


def sample_programs(
    config: SampleConfig, tasks: Mapping[str, Task], out: Path, *, progress: bool = True
) -> SampleSummary:
    """Sample, validate and sum up into the run folder `out`: `env.json`, `samples.jsonl`, the
    store of `programs validate`, `summary.json` and `summary.md`. Raises InputError for a task
    without a prompt, RunError where `out` holds a run of other settings."""
    for task in tasks.values():
        if not isinstance(task, CheckTask) or not _asked_of(task):
            raise InputError(
                f"The task {task.id!r} has nothing to go on from: sampling takes problems in "
                "HumanEval's form, or in MBPP's with their text."
            )
    engine = build(config)
    asked, too_long = _requests(config, engine, list(tasks.values()))
    out.mkdir(parents=True, exist_ok=True)
    device = str(engine.target.device)
    prompts = sha256(repr([repr(task) for task in tasks.values()]).encode()).hexdigest()[:16]
    settings = {k: v for k, v in asdict(config).items() if k not in ("validate", "slots", "n")}
    identity = {"settings": {**settings, "device": device}, "prompt_hash": prompts}
    same_settings(out, identity, environment(device))
    whole = all(isinstance(task, CheckTask) and task.question for task in tasks.values())
    rows = keep_rows(out / SAMPLES, partial(_written, config, engine, asked, whole, progress))
    summary = _summed(config, engine, tasks, too_long, rows, _validated(config, tasks, out))
    write_whole(out / "summary.json", json.dumps(asdict(summary), indent=1) + "\n")
    write_whole(out / "summary.md", markdown(summary))
    return summary


def markdown(x: SampleSummary) -> str:
    """The summary as a table of one row."""
    head = ["target", "drafter", "problems", "samples", "tokens", "tokens per pass", "solved"]
    row = [x.target, x.drafter, f"{x.problems}", f"{x.samples:,}", f"{x.tokens:,}"]
    row += [f"{x.tau:.2f}", f"{x.solved}/{x.problems}"]
    head += [*x.pass_at, "verdicts"]
    row += [f"{100 * rate:.1f} %" for rate in x.pass_at.values()]
    row.append(", ".join(f"{count:,} {kind}" for kind, count in x.verdicts.items()))
    note = f"\n{len(x.too_long)} more problems have prompts too long for the context.\n"
    return markdown_table(head, [row]) + (note if x.too_long else "")


Asked = tuple[str, int, Request]  # a problem, which of its samples, what the engine is asked


def _requests(
    config: SampleConfig, engine: Engine, tasks: Sequence[Task]
) -> tuple[list[Asked], tuple[str, ...]]:
    """Every sample that is wanted, and the problems that do not fit."""
    asked: list[Asked] = []
    too_long: list[str] = []
    for task in tasks:
        assert isinstance(task, CheckTask)
        try:
            whole = engine.request(_asked_of(task), Options(chat=False))
        except ContextError:
            too_long.append(task.id)
            continue
        room = min(config.max_new_tokens, engine.target.context - len(whole.prompt))
        for number in range(config.n):
            options = Options(
                max_new_tokens=room,
                temperature=config.temperature,
                top_p=config.top_p,
                seed=_seed(config.seed, task.id, number),
                chat=False,
            )
            asked.append((task.id, number, engine.request(_asked_of(task), options)))
    return asked, tuple(too_long)


def _asked_of(task: CheckTask) -> str:
    return task.question or task.prompt


def _seed(seed: int, task_id: str, number: int) -> int:
    """A seed of its own for each sample, whatever else is sampled."""
    digest = sha256(f"{seed} {task_id} {number}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _written(
    config: SampleConfig,
    engine: Engine,
    asked: Sequence[Asked],
    whole: bool,
    progress: bool,
    rows: list[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """The samples that are not in `rows`, as they are finished."""
    known = {(row["task_id"], row["sample"]) for row in rows}
    todo = [x for x in asked if x[:2] not in known]
    stops = WHOLE_STOPS if whole else STOPS
    chunks = engine.run([x[2] for x in todo], stop=stops, slots=config.slots)
    ended = ((c.sequence, c.generation) for c in chunks if c.generation is not None)
    shown = track(
        ended, "sampling", total=len(todo), console=Console(stderr=True), disable=not progress
    )
    for sequence, generation in shown:
        yield _row(*todo[sequence][:2], generation)


def _row(task_id: str, number: int, generation: Generation) -> dict[str, Any]:
    cycles = [record for record in generation.records if not record.prefill]
    return {
        "task_id": task_id,
        "sample": number,
        "completion": generation.text,
        "finish": generation.finish,
        "tokens": len(generation.ids),
        "cycles": len(cycles),
        "gained": sum(record.gained for record in cycles),
    }


def _validated(config: SampleConfig, tasks: Mapping[str, Task], out: Path) -> list[Verdict]:
    """A verdict for each sample of the run folder."""
    candidates = list(read_candidates(out / SAMPLES, tasks))
    found: list[Verdict] = []
    validate(candidates, tasks, out, config.validate, Spans(), found.append)
    write_outputs(out, Path(SAMPLES).stem, tasks, candidates)
    return in_order(found, candidates)


def _summed(
    config: SampleConfig,
    engine: Engine,
    tasks: Mapping[str, Task],
    too_long: tuple[str, ...],
    rows: Sequence[Mapping[str, Any]],
    verdicts: Sequence[Verdict],
) -> SampleSummary:
    cycles = sum(row["cycles"] for row in rows)
    return SampleSummary(
        config.target,
        engine.drafter.name,
        len(tasks) - len(too_long),
        too_long,
        len(rows),
        sum(row["tokens"] for row in rows),
        sum(row["gained"] for row in rows) / cycles if cycles else 1.0,
        len({verdict.task_id for verdict in verdicts if verdict.passed}),
        pass_rates(verdicts),
        dict(Counter(str(verdict.kind) for verdict in verdicts).most_common()),
    )
