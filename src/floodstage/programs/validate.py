"""Validate candidates: prepare, run apart, judge, store; a stream from files to verdicts.

Knows the order of the stages and where time goes; each stage knows only its own.
"""

from __future__ import annotations

import json
import os
import platform
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

from floodstage.core.errors import ConfigError, InputError, unknown
from floodstage.core.files import write_whole
from floodstage.core.spans import Spans
from floodstage.programs.inputs.files import text_of
from floodstage.programs.inputs.tasks import has_part
from floodstage.programs.judge import judged, verdict_of
from floodstage.programs.records import (
    Candidate,
    CheckTask,
    DataTask,
    Kind,
    Task,
    Trial,
    Verdict,
)
from floodstage.programs.sandbox.limits import Limits
from floodstage.programs.sandbox.lockdown import Level
from floodstage.programs.sandbox.pool import Pool
from floodstage.programs.sandbox.selftest import Isolation, selftest
from floodstage.programs.sandbox.tickets import Backend, Ticket, Work
from floodstage.programs.sandbox.values import encode
from floodstage.programs.sandbox.wire import Job, Reply, Setup
from floodstage.programs.stages.prepare import Prepared, prepare
from floodstage.programs.stages.purity import library_names
from floodstage.programs.store.outputs import result_rows, submission
from floodstage.programs.store.store import Store

BACKENDS = ("local", "ray")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateConfig:
    """How candidates are validated. `isolation` is the least level accepted; `tuples` hands grids
    over as tuples of tuples instead of lists; `every_sample` goes on after a costly failure;
    `cached` False runs again what the store holds; `check_forms` runs the normal form of a program
    as well and says where it disagrees. `backend` is local, or ray: then `workers` engines run on
    each of `nodes` nodes, 0 for all there are."""

    workers: int = 2
    backend: str = "local"
    nodes: int = 0
    limits: Limits = field(default_factory=Limits)
    isolation: str = Level.STRICT.value
    preload: tuple[Path, ...] = ()
    tuples: bool = False
    every_sample: bool = False
    find_duplicates: bool = True
    check_forms: bool = False
    cached: bool = True

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"workers must be at least 1, got {self.workers!r}.")
        if self.backend not in BACKENDS:
            raise unknown("backend", self.backend, list(BACKENDS))
        level_of(self.isolation)


Report = Callable[[Verdict], None]


def validate(
    candidates: Iterable[Candidate],
    tasks: Mapping[str, Task],
    out: Path,
    config: ValidateConfig,
    spans: Spans,
    report: Report = lambda verdict: None,
    work: Work | None = None,
) -> Isolation:
    """A verdict for every candidate in the store of `out`; those that have one are not run again.
    `report` hears of each, old and new; what the engines did is added to `work`. Returns the
    isolation that was reached. Raises SandboxError, RunError, InputError."""
    with spans("self-test"):
        isolation = selftest(Level(config.isolation))
    with spans("library"):
        libraries = library_names_of(config.preload)
    setup = Setup(isolation.level.value, tuple(str(path.resolve()) for path in config.preload))
    with spans("open store"):
        opened = Store(out, identity_of(tasks, config, isolation))
    with opened as store:
        run = _Run(tasks, config, store, spans, report)
        with spans("cache"):
            known = store.done() if config.cached else {}
        prepared = prepare(
            candidates,
            libraries,
            spans,
            find_duplicates=config.find_duplicates,
            keep_forms=config.check_forms,
        )
        with _backend(config, setup, spans) as backend:
            for ticket, reply in backend.run(run.jobs(prepared, known)):
                with spans("settle"):
                    run.settle(ticket, reply)
            with spans("stop"):
                backend.close()
        if work is not None:
            work.add(backend.work)
        with spans("store"):
            store.close()
    return isolation


@dataclass(frozen=True, slots=True)
class Selection:
    """Which candidates: those of `tasks` and of `ids` (all if empty), from the `start`-th on, the
    first `count`; a negative count draws so many by the seed, in their order."""

    tasks: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    start: int = 0
    count: int | None = None
    seed: int = 0

    def of(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The chosen ones. Raises InputError for a task that no candidate is for, or an id that
        none has."""
        known, ids = {c.task_id for c in candidates}, {c.id for c in candidates}
        if missing := [name for name in self.tasks if name not in known]:
            raise InputError(f"No candidate is for the task {missing[0]!r}.")
        if missing := [name for name in self.ids if name not in ids]:
            raise InputError(f"No candidate has the id {missing[0]!r}.")
        known, ids = set(self.tasks) or known, set(self.ids) or ids
        chosen = [c for c in candidates if c.task_id in known and c.id in ids][self.start :]
        if self.count is None or abs(self.count) >= len(chosen):
            return chosen
        if self.count >= 0:
            return chosen[: self.count]
        drawn = random.Random(self.seed).sample(range(len(chosen)), -self.count)
        return [chosen[i] for i in sorted(drawn)]


def write_outputs(
    out: Path, name: str, tasks: Mapping[str, Task], candidates: Sequence[Candidate]
) -> list[Path]:
    """`<name>_results.jsonl` and, for ARC tasks, `submission.json`, from the store of a run and
    for the given candidates, in their order; the paths."""
    wanted = {candidate.id: candidate for candidate in candidates}
    with Store(out) as store:
        kept = {verdict.candidate_id: verdict for verdict in store.verdicts()}
        verdicts = [kept[name] for name in wanted if name in kept]
        rows = [
            json.dumps({**row, "solution": wanted[row["candidate"]].source}) + "\n"
            for row in result_rows(verdicts)
        ]
        written = {out / f"{name}_results.jsonl": "".join(rows)}
        if all(isinstance(x, DataTask) and has_part(x, "test") for x in tasks.values()):
            made = submission(tasks, verdicts, store.trials, lambda x: len(wanted[x].source))
            written[out / "submission.json"] = json.dumps(made)
    for path, text in written.items():
        write_whole(path, text)
    return list(written)


def in_order(verdicts: Iterable[Verdict], candidates: Sequence[Candidate]) -> list[Verdict]:
    """Verdicts in the order of their candidates: they come as they are reached."""
    place = {candidate.id: i for i, candidate in enumerate(candidates)}
    return sorted(verdicts, key=lambda verdict: place[verdict.candidate_id])


def _backend(config: ValidateConfig, setup: Setup, spans: Spans) -> Backend:
    if config.backend == "local":
        return Pool(config.workers, setup, spans)
    from floodstage.programs.sandbox.cluster import Cluster  # Ray takes a second to import

    return Cluster(config.nodes, config.workers, setup, spans)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def level_of(name: str) -> Level:
    """The isolation level of a name. Raises ConfigError."""
    if name not in {level.value for level in Level}:
        raise unknown("isolation", name, [level.value for level in Level])
    return Level(name)


_Half: TypeAlias = tuple[Verdict, list[Trial]]


@dataclass(slots=True)
class _Run:
    """A run under way: which job is which candidate."""

    tasks: Mapping[str, Task]
    config: ValidateConfig
    store: Store
    spans: Spans
    report: Report
    limits: dict[str, Any] = field(init=False)  # of every job
    running: dict[int, Prepared] = field(default_factory=dict)
    inputs: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # of a task, encoded
    halves: dict[int, _Half] = field(default_factory=dict)  # a program whose other run is awaited

    def __post_init__(self) -> None:
        self.limits = asdict(self.config.limits)

    def jobs(self, prepared: Iterable[Prepared], known: Mapping[str, str]) -> Iterator[Job]:
        """A job for each candidate that must run; verdicts that need none are stored at once."""
        with self.spans("cache"):
            held = {v.candidate_id: v for v in self.store.verdicts()} if known else {}
        for number, item in enumerate(prepared):
            candidate = item.candidate
            if candidate.id in known and known[candidate.id] == candidate.digest:
                self.report(held[candidate.id])
            elif item.verdict is not None:
                self._keep(item, item.verdict, [])
            else:
                task = self.tasks[candidate.task_id]
                yield self._start(2 * number, item, candidate, task)
                if self._has_form(item, task):
                    assert item.form is not None
                    formed = replace(candidate, source=item.form.text)
                    yield self._start(2 * number + 1, item, formed, task)

    def _start(self, number: int, item: Prepared, candidate: Candidate, task: Task) -> Job:
        self.running[number] = item
        with self.spans("job"):
            if isinstance(task, DataTask) and task.id not in self.inputs:
                given = (_given(sample.inputs, self.config.tuples) for sample in task.samples)
                self.inputs[task.id] = tuple(encode(x) for x in given)
            return self._job(number, candidate, task, apart=item.forgets)

    def _job(self, number: int, candidate: Candidate, task: Task, *, apart: bool) -> Job:
        if isinstance(task, CheckTask):
            return Job(
                number,
                candidate.source,
                task.entries,
                self.limits,
                prompt=task.prompt,
                checks=task.checks,
                calls_check=task.calls_check,
            )
        entries = (candidate.entry,) if candidate.entry else task.entries
        inputs, stop = self.inputs[task.id], not self.config.every_sample
        apart = apart and len(inputs) > 1
        return Job(number, candidate.source, entries, self.limits, inputs, stop, apart=apart)

    def _has_form(self, item: Prepared, task: Task) -> bool:
        """Whether a program is run twice, as it is (even number) and as its form (odd)."""
        shared = item.form is not None and not item.form.reason
        return self.config.check_forms and shared and isinstance(task, DataTask)

    def settle(self, ticket: Ticket, reply: Reply) -> None:
        """Judge a reply and keep what it came to."""
        number, attempts = ticket.job.id, ticket.attempts
        item = self.running.pop(number)
        candidate, task = item.candidate, self.tasks[item.candidate.task_id]
        if reply.fault:
            trials: list[Trial] = []
            verdict = Verdict(
                candidate.id, candidate.task_id, Kind.INFRA, reply.fault, attempts=attempts
            )
        else:
            with self.spans("judge"):
                trials = judged(task, reply.trials)
                verdict = verdict_of(
                    candidate,
                    task,
                    trials,
                    queue_s=ticket.queue_s,
                    reply_s=ticket.reply_s,
                    attempts=attempts,
                )
        if self._has_form(item, task):
            self._join(number, item, (verdict, trials))
        else:
            self._keep(item, verdict, trials)

    def _join(self, number: int, item: Prepared, half: _Half) -> None:
        """Keep a program that is run twice when both runs are here."""
        other = self.halves.pop(number ^ 1, None)
        if other is None:
            self.halves[number] = half
            return
        raw, formed = (other, half) if number % 2 else (half, other)
        self._keep(item, raw[0], raw[1], disagreement(raw[1], formed[1]))

    def _keep(
        self, item: Prepared, verdict: Verdict, trials: Sequence[Trial], note: str = ""
    ) -> None:
        with self.spans("store"):
            verdict = replace(verdict, form=note or item.form_note)
            self.store.add(item.candidate, verdict, trials)
        with self.spans("progress"):
            self.report(verdict)


def disagreement(raw: Sequence[Trial], formed: Sequence[Trial]) -> str:
    """Where a program and its normal form came to something else; empty if nowhere."""
    for sample, (one, two) in enumerate(zip(raw, formed, strict=False)):
        if (one.kind, one.output, one.error) != (two.kind, two.output, two.error):
            came = f"{one.kind} {one.error}".strip(), f"{two.kind} {two.error}".strip()
            return f"disagrees on sample {sample}: {came[0]} as it is, {came[1]} as a form"
    return ""


def _given(inputs: tuple[Any, ...], tuples: bool) -> tuple[Any, ...]:
    return tuple(tuple(map(tuple, grid)) for grid in inputs) if tuples else inputs


def library_names_of(preload: Sequence[Path]) -> dict[str, frozenset[str]]:
    """The names that each preloaded module offers. Raises InputError."""
    found: dict[str, frozenset[str]] = {}
    for path in preload:
        try:
            found[path.stem] = library_names(text_of(path))
        except SyntaxError as error:
            raise InputError(
                f"{str(path)!r} line {error.lineno} is not Python: {error}."
            ) from error
    return found


def identity_of(
    tasks: Mapping[str, Task], config: ValidateConfig, isolation: Isolation
) -> dict[str, Any]:
    """What a verdict depends on, the program apart."""
    return {
        "tasks": _digest([repr(task) for task in tasks.values()]),
        "limits": asdict(config.limits),
        "isolation": isolation.level.value,
        "interpreter": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": platform.machine(),
        "library": _digest([text_of(path) for path in config.preload]),
        "grids": "tuples" if config.tuples else "lists",
        "every_sample": config.every_sample,
        "duplicates": config.find_duplicates,
        "check_forms": config.check_forms,
    }


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
