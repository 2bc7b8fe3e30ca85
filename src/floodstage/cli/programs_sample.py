"""What `floodstage programs sample` does and prints. Imports the engine, unlike its siblings."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from floodstage.bench.program_samples import SampleConfig, sample_programs
from floodstage.core.errors import unknown
from floodstage.programs.inputs.tasks import read_tasks


def run_sample(
    config: SampleConfig, tasks_at: Path, out: Path, only: tuple[str, ...], *, as_json: bool
) -> None:
    """Sample, validate and print what it came to."""
    tasks = read_tasks(tasks_at)
    for name in only:
        if name not in tasks:
            raise unknown("task", name, tasks)
    chosen = {name: tasks[name] for name in only} or tasks
    found = sample_programs(config, chosen, out)
    if as_json:
        print(json.dumps(asdict(found)))
        return
    print(
        f"{found.samples} samples of {found.problems} problems by {found.target}, drafted by "
        f"{found.drafter}: {found.tokens} tokens, {found.tau:.2f} for each target pass."
    )
    if found.too_long:
        print(f"Left out, too long for the context: {', '.join(found.too_long)}.")
    for kind, count in found.verdicts.items():
        print(f"{count:8}  {kind}")
    for name, rate in found.pass_at.items():
        print(f"{100 * rate:7.1f}%  {name}")
    print(f"{found.solved} of {found.problems} problems solved. Written: {out}")
