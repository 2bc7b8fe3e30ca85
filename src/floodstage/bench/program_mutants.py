"""Mutants of our own solvers on public ARC tasks: what they come to, how many were the same.

Propose: seeded mutants, equal ones kept. Judge: normal forms first, then the sandbox. Keep: the
store of `programs validate`. The table is a function of the store.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from floodstage.bench.measure import environment
from floodstage.bench.program_runs import timed_runs
from floodstage.bench.summary import markdown_table
from floodstage.bench.tables import markdown as table_markdown
from floodstage.core.errors import ConfigError
from floodstage.core.files import write_whole
from floodstage.core.spans import Spans
from floodstage.programs.gallery.files import LIBRARY, write_gallery
from floodstage.programs.inputs.candidates import read_candidates
from floodstage.programs.inputs.files import text_of
from floodstage.programs.inputs.tasks import read_tasks
from floodstage.programs.mutate import Mutation
from floodstage.programs.records import Kind, Task
from floodstage.programs.store.store import Store
from floodstage.programs.validate import ValidateConfig, cores, validate

CANDIDATES = "candidates.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class MutantsConfig:
    """`tasks` is the folder of ARC's training tasks; `count` mutants of the gallery's solvers."""

    tasks: Path
    count: int = 10_000
    changes: int = 2
    seed: int = 0
    workers: int = field(default_factory=cores)
    rounds: int = 0  # of timed runs: with one worker, with two, with Ray

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"count must be at least 1, got {self.count!r}.")


@dataclass(frozen=True, slots=True)
class MutantsSummary:
    """What the mutants came to. Duplicates are of an earlier program's text, or of its normal
    form where the text is another; `cpu_s` is what the programs that ran took."""

    programs: int
    parents: int
    tasks: int
    solved: int
    same_text: int
    same_form: int
    shared: int  # programs with a normal form of one node per distinct expression
    verdicts: dict[str, int]
    cpu_s: float


def arc_mutants(config: MutantsConfig, out: Path) -> MutantsSummary:
    """Make, validate and sum up into the run folder `out`; goes on where it was stopped.
    Raises InputError, SandboxError, RunError."""
    tasks = read_tasks(config.tasks)
    write_gallery(out)
    library = out / LIBRARY
    parents = list(read_candidates(out / "solvers/arc.py", tasks))
    mutation = Mutation(
        parents,
        config.seed,
        {library.stem: text_of(library)},
        most_changes=config.changes,
        keep_equal=True,
    )
    rows = "".join(json.dumps(mutant.row()) + "\n" for mutant in mutation.take(config.count))
    write_whole(out / CANDIDATES, rows)
    (out / "env.json").write_text(json.dumps(environment("cpu"), indent=1) + "\n")
    given = read_candidates(out / CANDIDATES, tasks)
    validating = ValidateConfig(workers=config.workers, preload=(library,), tuples=True)
    validate(given, tasks, out, validating, Spans())
    found = _summed(out, config.count, tasks, len(parents))
    write_whole(out / "summary.json", json.dumps(asdict(found), indent=1) + "\n")
    text = markdown(found)
    if config.rounds:
        words = [str(out / CANDIDATES), "--tasks", str(config.tasks), "--preload", str(library)]
        table = timed_runs([*words, "--tuples"], out, config.rounds)
        write_whole(out / "timed.json", json.dumps(asdict(table), indent=1) + "\n")
        text += f"\n**{table.title}**\n\n{table_markdown(table)}"
    write_whole(out / "summary.md", text)
    return found


def _summed(out: Path, count: int, tasks: Mapping[str, Task], parents: int) -> MutantsSummary:
    with Store(out) as store:
        verdicts = [v for v in store.verdicts() if int(v.candidate_id) < count]
    whys = Counter(v.detail.partition(" as ")[0] for v in verdicts if v.kind is Kind.DUPLICATE)
    return MutantsSummary(
        programs=len(verdicts),
        parents=parents,
        tasks=len(tasks),
        solved=len({v.task_id for v in verdicts if v.passed}),
        same_text=whys["the same text"],
        same_form=whys["the same form"],
        shared=sum(v.form == "shared" for v in verdicts),
        verdicts=dict(Counter(str(v.kind) for v in verdicts).most_common()),
        cpu_s=sum(v.cpu_s for v in verdicts),
    )


def markdown(x: MutantsSummary) -> str:
    """The summary as Markdown."""
    rows = [
        (kind if kind != Kind.DUPLICATE else "duplicate, not run", f"{count:,}")
        for kind, count in x.verdicts.items()
    ]
    rows.append(("all", f"{x.programs:,}"))
    return markdown_table(("verdict", "programs"), rows) + (
        f"\n{x.parents} solvers, each for one of {x.tasks} tasks; mutants of {x.solved} of them "
        f"pass every sample. Duplicates: {x.same_text:,} of an earlier text, {x.same_form:,} of an "
        f"earlier normal form under another text. {x.shared:,} programs have a normal form of "
        f"shared nodes. CPU time of all that ran: {x.cpu_s:.1f} s.\n"
    )
