"""Measure everything that the README and docs/experiments state, and write their tables.

    make bench                     measure what is missing under runs/bench, then write the tables
    make bench FRESH=1             forget earlier runs first
    make bench ONLY=math-greedy    only these (comma-separated)
    make bench FLOODSTAGE_DATA=dir  ARC and HumanEval, which are not shipped, lie there

Summaries, plots and `env.json` of every run are kept under benchmarks/results; the records, which
are large, stay under runs/bench.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from floodstage.bench import sweep
from floodstage.bench.analysis import analyze
from floodstage.bench.canvas import CanvasBenchConfig, canvas_bench
from floodstage.bench.canvas_study import CanvasStudyConfig, canvas_study
from floodstage.bench.compare import BenchConfig, bench, bench_batches
from floodstage.bench.flood import LadderConfig, ladder
from floodstage.bench.flood_study import StudyConfig, run_study
from floodstage.bench.jacobi import JacobiConfig, run_jacobi
from floodstage.bench.program_mutants import MutantsConfig, arc_mutants
from floodstage.bench.program_samples import SampleConfig, sample_programs
from floodstage.bench.programs import ProgramsBenchConfig, programs_bench
from floodstage.bench.replay import markdown
from floodstage.bench.report import write_report
from floodstage.bench.trace import read_trace
from floodstage.programs.inputs.tasks import read_tasks

ROOT = Path(__file__).resolve().parent.parent
RUNS, RESULTS = ROOT / "runs/bench", ROOT / "benchmarks/results"
EXPERIMENTS = ROOT / "docs/experiments"
README, LENGTHS = ROOT / "README.md", EXPERIMENTS / "block-length.md"
FLOOD, CANVAS = EXPERIMENTS / "flash-flood.md", EXPERIMENTS / "canvas.md"
PROGRAMS = EXPERIMENTS / "programs.md"
DATA = Path(os.environ.get("FLOODSTAGE_DATA", "data"))
"""Where ARC and HumanEval lie; what `needs` them is left out, and says so, where they do not."""
HUMANEVAL = DATA / "humaneval/HumanEval.jsonl.gz"
KEPT = ("summary.md", "summary.json", "summary.csv", "env.json", "trace.json", "costs.json",
        "timed.json")  # fmt: skip
THREADS = 2


class Measurement(Protocol):
    """What is measured under a name and shown as a table in a page."""

    @property
    def name(self) -> str: ...
    @property
    def page(self) -> Path: ...
    @property
    def command(self) -> str: ...
    def measure(self, out: Path) -> None:
        """Leave `summary.md` in `out`, from what is there already if it is."""


def words(c: BenchConfig) -> str:
    """The options of a workload as typed."""
    out = [f"--target {c.target} --workload {c.workload} --prompts {c.prompts}"]
    if c.max_new_tokens:
        out.append(f"--max-new-tokens {c.max_new_tokens}")
    if c.temperature:
        out.append(f"--temperature {c.temperature}")
    return " ".join([*out, f"--threads {c.threads}"])


@dataclass(frozen=True)
class Bench:
    """Arms side by side; `slots` > 1 compares a batch with one at a time."""

    name: str
    config: BenchConfig
    slots: int = 1
    page: Path = README

    @property
    def command(self) -> str:
        c = self.config
        more = f" --assistant {c.assistant}" if c.assistant else ""
        more += f" --slots {self.slots}" if self.slots > 1 else ""
        arms = ",".join(c.arms)
        return f"floodstage bench {words(c)} --arms '{arms}'{more} --out runs/bench/{self.name}"

    def measure(self, out: Path) -> None:
        if self.slots == 1:
            bench(self.config, out)
        elif not (out / "summary.md").is_file():
            bench_batches(self.config, out, slots=self.slots)


@dataclass(frozen=True)
class Sweep:
    """Draft lengths and policies of a target's own drafter, and their analysis."""

    name: str
    config: BenchConfig
    draft_len: str
    policies: str = ""
    page: Path = LENGTHS

    @property
    def command(self) -> str:
        return (
            f"floodstage sweep {words(self.config)} --draft-len {self.draft_len!r} "
            f"--policies '{self.policies}' --out runs/bench/{self.name}"
        )

    def measure(self, out: Path) -> None:
        arms = sweep.sweep_arms(
            "auto", self.draft_len, list(filter(None, self.policies.split(",")))
        )
        bench(replace(self.config, arms=arms), out, keep_going=True)
        found = read_trace(out)
        write_report(found, analyze(found), out / "analysis")
        for plot in ("tau_vs_draft_len", "cost_curve", "survival", "tokens_per_s", "reliability"):
            show(out / "analysis", self.name, f"{plot}.png")


@dataclass(frozen=True)
class Replay:
    """Dense traces of one or several workloads, mixed in turns, and policies scored on them."""

    name: str
    configs: tuple[BenchConfig, ...]
    traces: tuple[str, ...]
    policies: tuple[str, ...] = ("fixed:1-15", "rolling", "ewma", "adl", "confidence", "cost",
                                 "oracle")  # fmt: skip
    page: Path = LENGTHS

    @property
    def command(self) -> str:
        folders = [f"runs/bench/{name}" for name in self.traces]
        made = [
            f"floodstage trace {words(c)} --out {out}"
            for c, out in zip(self.configs, folders, strict=True)
        ]
        policies = ",".join(self.policies)
        return "\n    ".join(
            [*made, f"floodstage replay {' '.join(folders)} --policies '{policies}'"]
        )

    def measure(self, out: Path) -> None:
        folders = [RUNS / name for name in self.traces]
        for config, folder in zip(self.configs, folders, strict=True):
            sweep.trace(config, "auto", folder)
        out.mkdir(parents=True, exist_ok=True)
        (out / "summary.md").write_text(markdown(sweep.replay_run(folders, self.policies)))


@dataclass(frozen=True)
class Ladder:
    """From one at a time to flood."""

    name: str
    config: LadderConfig
    page: Path = FLOOD

    @property
    def command(self) -> str:
        c = self.config
        sizes = ",".join(map(str, c.roots))
        return (
            f"floodstage flood bench --roots {sizes} --k {c.k} --repeats {c.repeats} "
            f"--chars {c.chars} --threads {c.threads} --out runs/bench/{self.name}"
        )

    def measure(self, out: Path) -> None:
        ladder(self.config, out)
        show(out, self.name)


@dataclass(frozen=True)
class Study:
    """When best-of-K pays."""

    name: str
    config: StudyConfig
    page: Path = FLOOD

    @property
    def command(self) -> str:
        c = self.config
        return (
            f"floodstage flood study --renderer {c.renderer} --k {','.join(map(str, c.k))} "
            f"--steps {','.join(map(str, c.steps))} --temperature {c.temperature:g} "
            f"--parents {c.parents} --threads {c.threads} --out runs/bench/{self.name}"
        )

    def measure(self, out: Path) -> None:
        run_study(self.config, out)
        show(out, self.name)


@dataclass(frozen=True)
class CanvasRuns:
    """Grids filled at once beside the twin that writes them."""

    name: str
    config: CanvasBenchConfig
    page: Path = CANVAS

    @property
    def command(self) -> str:
        c = self.config
        sizes = ",".join(f"{h}x{w}" for h, w in c.sizes)
        batches = ",".join(map(str, c.batches))
        return (
            f"floodstage canvas bench --task {c.task} --size {sizes} --batch {batches} "
            f"--repeats {c.repeats} --exact {c.exact} --threads {c.threads} "
            f"--out runs/bench/{self.name}"
        )

    def measure(self, out: Path) -> None:
        canvas_bench(self.config, out)
        show(out, self.name)


@dataclass(frozen=True)
class Passes:
    """Puzzles solved against passes."""

    name: str
    config: CanvasStudyConfig
    page: Path = CANVAS

    @property
    def command(self) -> str:
        c = self.config
        return (
            f"floodstage canvas study --task {c.task} --side {c.size} --puzzles {c.puzzles} "
            f"--threads {c.threads} --out runs/bench/{self.name}"
        )

    def measure(self, out: Path) -> None:
        canvas_study(self.config, out)
        show(out, self.name)


@dataclass(frozen=True)
class JacobiTrace:
    """How a whole answer settles under Jacobi iteration."""

    name: str
    config: JacobiConfig
    page: Path = CANVAS

    @property
    def command(self) -> str:
        c = self.config
        return (
            f"floodstage jacobi --target {c.target} --workload {c.workload} --prompts {c.prompts} "
            f"--tokens {c.tokens} --sketch {','.join(map(str, c.sketch))} --threads {c.threads} "
            f"--out runs/bench/{self.name}"
        )

    def measure(self, out: Path) -> None:
        run_jacobi(self.config, out)
        show(out, self.name)


@dataclass(frozen=True)
class Mutants:
    """Mutants of our own solvers on ARC's training tasks."""

    name: str
    config: MutantsConfig
    page: Path = PROGRAMS

    @property
    def needs(self) -> Path:
        return self.config.tasks

    @property
    def command(self) -> str:
        c, out = self.config, f"runs/bench/{self.name}"
        return "\n    ".join(
            (
                "floodstage programs demo --mutants 0 --out gallery",
                f"floodstage programs mutate gallery/solvers/arc.py --preload gallery/grids.py "
                f"--count {c.count} --changes {c.changes} --keep-equal --out mutants.jsonl",
                "floodstage programs validate mutants.jsonl --tasks arc/training "
                f"--preload gallery/grids.py --tuples --workers {c.workers} --out {out}",
            )
        )

    def measure(self, out: Path) -> None:
        arc_mutants(self.config, out)


@dataclass(frozen=True)
class Samples:
    """Programs by a model, on HumanEval."""

    name: str
    config: SampleConfig
    problems: Path
    page: Path = PROGRAMS

    @property
    def needs(self) -> Path:
        return self.problems

    @property
    def command(self) -> str:
        c = self.config
        return (
            f"floodstage programs sample --target {c.target} --drafter {c.drafter} "
            f"--tasks {self.problems.name} -n {c.n} --temperature {c.temperature:g} "
            f"--threads {c.threads} --out runs/bench/{self.name}"
        )

    def measure(self, out: Path) -> None:
        sample_programs(self.config, read_tasks(self.problems), out)


@dataclass(frozen=True)
class Programs:
    """Programs checked per second, beside a process for each sample."""

    name: str
    config: ProgramsBenchConfig
    page: Path = PROGRAMS

    @property
    def needs(self) -> Path:
        return Path(self.config.problems)

    @property
    def command(self) -> str:
        c = self.config
        return (
            f"floodstage programs bench --problems {Path(c.problems).name} --repeats {c.repeats} "
            f"--copies {c.copies} --trivial {c.trivial} --workers {c.workers} "
            f"--out runs/bench/{self.name}"
        )

    def measure(self, out: Path) -> None:
        programs_bench(self.config, out)


def show(out: Path, name: str, plots: str = "*.png") -> None:
    """Put the plots of a run where the pages find them."""
    folder = EXPERIMENTS / name
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(out.glob(plots))
    if not found:
        raise SystemExit(f"{name} has drawn no {plots}.")
    for plot in found:
        shutil.copy(plot, folder / plot.name)


MATH = {"target": "math-mini", "threads": THREADS}
CODE = {"target": "code-mini", "workload": "code", "max_new_tokens": 128, "threads": THREADS}
# The lengths that were fastest on training problems; the assistant is so with its defaults.
PEERS = ("transformers", "transformers-lookup:3", "transformers-assistant")
POLICIES = (
    "fixed(trace=true),rolling,ewma,adl,confidence,cost,seed-sparse,seed-dense,seed-aligned,"
    "seed-branch,beam,adaptive-beam,prefix-rank,uncertain-sparse,best-first,best-first+cost"
)
TRACED = BenchConfig(**MATH)
HARD = BenchConfig(**MATH, workload="mathematics-phrasings", temperature=1.0)
CODED = BenchConfig(**CODE, prompts=32)
GRIDS = ((1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (32, 32), (64, 64), (100, 100))
MEASUREMENTS: list[Measurement] = [
    Bench(
        "math-greedy",
        BenchConfig(
            **MATH, arms=("none", "ngram:4", "math-nano:12", "auto", *PEERS), assistant="math-nano"
        ),
    ),
    Bench("math-sampled", BenchConfig(**MATH, arms=("none", "ngram:4", "auto"), temperature=0.7)),
    Bench(
        "math-phrasings",
        BenchConfig(**MATH, workload="mathematics-phrasings", arms=("none", "auto")),
    ),
    Bench(
        "code-sampled",
        BenchConfig(**CODE, arms=("none", "ngram:4", "auto"), prompts=32, temperature=0.7),
    ),
    Bench("code-greedy", BenchConfig(**CODE, arms=("none", "ngram:4", "auto"), prompts=32)),
    Bench("math-batch", BenchConfig(**MATH, arms=("none", "auto", "auto+cost")), slots=8),
    Sweep("sweep-math", BenchConfig(**MATH, max_new_tokens=64), "4,8,12,15,16,20,24", POLICIES),
    Sweep("sweep-code", BenchConfig(**CODE, prompts=8), "1,2,4,8,15", "cost,best-first"),
    Replay("replay-math", (TRACED,), ("trace-math",)),
    Replay("replay-code", (CODED,), ("trace-code",)),
    Replay("replay-mixed", (TRACED, HARD), ("trace-math", "trace-hard")),
    Ladder("flood-ladder", LadderConfig(repeats=3, threads=THREADS)),
    Bench(
        "flood-plan",
        BenchConfig(target="flood-manager", threads=THREADS, arms=("none", "ngram:4", "auto")),
        page=FLOOD,
    ),
    Study("flood-study", StudyConfig(parents=32, steps=(1, 2, 4), threads=THREADS)),
    Study(
        "flood-study-early",
        StudyConfig(
            renderer="runs/flood-early/model", parents=32, steps=(1, 2, 4), threads=THREADS
        ),
    ),
    CanvasRuns("canvas-sum", CanvasBenchConfig(sizes=GRIDS, repeats=2, exact=100, threads=THREADS)),
    CanvasRuns(
        "canvas-affine",
        CanvasBenchConfig(
            task="affine",
            sizes=((8, 8), (32, 32), (64, 64), (100, 100)),
            repeats=2,
            exact=100,
            threads=THREADS,
        ),
    ),
    CanvasRuns(
        "canvas-batches",
        CanvasBenchConfig(sizes=GRIDS[3:6], batches=(1, 4, 16), repeats=2, threads=THREADS),
    ),
    CanvasRuns(
        "canvas-sudoku",
        CanvasBenchConfig(
            task="sudoku", sizes=((9, 9),), batches=(1, 4, 16), repeats=4, threads=THREADS
        ),
    ),
    CanvasRuns(
        "canvas-latin",
        CanvasBenchConfig(
            task="latin", sizes=((9, 9),), batches=(1, 16), repeats=2, threads=THREADS
        ),
    ),
    Passes("passes-sudoku", CanvasStudyConfig(puzzles=100, threads=THREADS)),
    Passes("passes-latin", CanvasStudyConfig(task="latin", puzzles=100, threads=THREADS)),
    JacobiTrace("settling-math", JacobiConfig(threads=THREADS)),
    JacobiTrace(
        "settling-code", JacobiConfig(target="code-mini", workload="code", threads=THREADS)
    ),
    Bench(
        "jacobi-math",
        BenchConfig(
            **MATH, prompts=16, arms=("none", "ngram:8", "jacobi:4", "jacobi:8", "lookahead:8")
        ),
        page=CANVAS,
    ),
    Bench(
        "jacobi-code",
        BenchConfig(
            **CODE | {"max_new_tokens": 96},
            prompts=8,
            temperature=0.7,
            arms=("none", "ngram:4", "jacobi:8", "lookahead:8"),
        ),
        page=CANVAS,
    ),
    Mutants("programs-arc", MutantsConfig(tasks=DATA / "arc/training", workers=2, rounds=1)),
    Samples(
        "programs-samples",
        SampleConfig(n=2, threads=THREADS),
        HUMANEVAL,
    ),
    Programs("programs", ProgramsBenchConfig(problems=str(HUMANEVAL))),
]


def keep(run: Measurement, out: Path) -> None:
    """What is small goes where it is committed."""
    kept = RESULTS / run.name
    kept.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (out / name).is_file():
            shutil.copy(out / name, kept / name)


def write_tables() -> None:
    """Put every kept summary between its markers in its page."""
    for run in MEASUREMENTS:
        text = run.page.read_text()
        begin, end = f"<!-- table {run.name} -->", f"<!-- end {run.name} -->"
        if begin not in text or end not in text:
            raise SystemExit(f"{run.page.name} has no place for the table {run.name!r}.")
        head, rest = text.split(begin, 1)
        _, tail = rest.split(end, 1)
        summary = RESULTS / run.name / "summary.md"
        if summary.is_file():
            table = summary.read_text()
            run.page.write_text(f"{head}{begin}\n\n    {run.command}\n\n{table}\n{end}{tail}")


def main() -> None:
    if os.environ.get("FRESH"):
        shutil.rmtree(RUNS, ignore_errors=True)
    only = set(filter(None, os.environ.get("ONLY", "").split(",")))
    for run in MEASUREMENTS:
        if not only or run.name in only:
            needs = getattr(run, "needs", None)
            if needs is not None and not needs.exists():
                print(f"== {run.name} left out: no {needs} (FLOODSTAGE_DATA)", file=sys.stderr)
                continue
            print(f"== {run.name}", file=sys.stderr)
            run.measure(RUNS / run.name)
            keep(run, RUNS / run.name)
    write_tables()


if __name__ == "__main__":
    main()
