"""Measure everything that the README states, and write its tables.

    make bench            measure what is missing under runs/bench, then write the tables
    make bench FRESH=1    forget earlier runs first

Summaries and `env.json` of every run are kept under benchmarks/results; the records, which are
large, stay under runs/bench.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from floodstage.bench.compare import BenchConfig, bench, bench_batches

ROOT = Path(__file__).resolve().parent.parent
RUNS, RESULTS, README = ROOT / "runs/bench", ROOT / "benchmarks/results", ROOT / "README.md"
THREADS = 2


@dataclass(frozen=True)
class Run:
    """A measurement: `slots` > 1 compares a batch with one at a time."""

    name: str
    config: BenchConfig
    slots: int = 1

    @property
    def command(self) -> str:
        c = self.config
        words = [f"floodstage bench --target {c.target} --workload {c.workload}"]
        words.append(f"--arms {','.join(c.arms)}")
        if c.assistant:
            words.append(f"--assistant {c.assistant}")
        words.append(f"--prompts {c.prompts}")
        if self.slots > 1:
            words.append(f"--slots {self.slots}")
        if c.max_new_tokens:
            words.append(f"--max-new-tokens {c.max_new_tokens}")
        if c.temperature:
            words.append(f"--temperature {c.temperature}")
        return " ".join([*words, f"--threads {c.threads} --out runs/bench/{self.name}"])


MATH = {"target": "math-mini", "threads": THREADS}
BENCHES = [
    Run(
        "math-greedy",
        BenchConfig(
            **MATH, arms=("none", "ngram", "auto", "transformers", "transformers-lookup:10")
        ),
    ),
    Run("math-batch", BenchConfig(**MATH, arms=("none", "auto"), prompts=32), slots=8),
]


def measure(run: Run) -> None:
    """Run it, and keep what is small."""
    print(f"== {run.name}", file=sys.stderr)
    out = RUNS / run.name
    if run.slots > 1:
        if not (out / "summary.md").is_file():
            bench_batches(run.config, out, slots=run.slots)
    else:
        bench(run.config, out)
    kept = RESULTS / run.name
    kept.mkdir(parents=True, exist_ok=True)
    for name in ("summary.md", "summary.json", "summary.csv", "env.json"):
        if (out / name).is_file():
            shutil.copy(out / name, kept / name)


def write_tables() -> None:
    """Put every summary between its markers in the README."""
    text = README.read_text()
    for run in BENCHES:
        begin, end = f"<!-- table {run.name} -->", f"<!-- end {run.name} -->"
        if begin not in text or end not in text:
            raise SystemExit(f"README.md has no place for the table {run.name!r}.")
        head, rest = text.split(begin, 1)
        _, tail = rest.split(end, 1)
        table = (RESULTS / run.name / "summary.md").read_text()
        text = f"{head}{begin}\n\n    {run.command}\n\n{table}\n{end}{tail}"
    README.write_text(text)


def main() -> None:
    if os.environ.get("FRESH"):
        shutil.rmtree(RUNS, ignore_errors=True)
    for run in BENCHES:
        measure(run)
    write_tables()


if __name__ == "__main__":
    main()
