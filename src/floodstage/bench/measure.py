"""Run arms over a workload, interleaved, and write every answer down.

For each prompt all arms answer in order and then again in reverse (A B C C B A), so that a
machine that slows down slows every arm alike. A run folder holds `env.json`, `records.jsonl` and
what `summary` makes of them. An answer that is on disk is not measured again: a killed run goes on.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from floodstage.bench.arms import Answer, Arm
from floodstage.bench.workloads import Item, Workload
from floodstage.core.errors import RunError
from floodstage.core.metrics import repeated_ngrams
from floodstage.core.types import Request

SCHEMA = 2
FIELDS = {
    *("arm", "lossless", "prompt", "pass", "group", "ids", "finish", "right"),
    *("ttft_s", "wall_s", "repeated_4grams", "cycles"),
}
"""What every record holds, its schema_version apart."""
CYCLE = ("drafted", "verified", "reach", "accepted", "gained", "seeded", "rows",
         "draft_s", "verify_s", "judge_s")  # fmt: skip
"""The figures of a cycle, `confidence` apart: attributes of `core.types.StepRecord`."""
Ask = Callable[[Item, int], Request]


def measure(
    arms: Sequence[Arm],
    workload: Workload,
    ask: Ask,
    out: Path,
    *,
    settings: dict[str, Any],
    progress: bool = True,
) -> Path:
    """Measure; the path of the records. `ask` turns item i into a request."""
    out.mkdir(parents=True, exist_ok=True)
    _write_env(out, workload, settings)
    path = out / "records.jsonl"
    known = {(r["arm"], r["prompt"], r["pass"]) for r in read_records(path)}
    names = [arm.name for arm in arms]
    todo = [i for i in range(len(workload.items))]
    for arm in (
        arms if any((n, i, p) not in known for n in names for i in todo for p in (0, 1)) else ()
    ):
        for _ in range(2):  # a warm-up of every shape that the first prompt brings
            arm.answer(ask(workload.items[0], 0))
    with path.open("a", encoding="utf-8") as file:
        for i in track(todo, "measuring", disable=not progress, console=Console(stderr=True)):
            item = workload.items[i]
            for turn, order in enumerate((list(arms), list(reversed(arms)))):
                for arm in order:
                    if (arm.name, i, turn) in known:
                        continue
                    answer = arm.answer(ask(item, i))
                    row = as_row(arm, i, turn, item, answer)
                    file.write(json.dumps(row) + "\n")
                    file.flush()
    return path


def as_row(arm: Arm, prompt: int, turn: int, item: Item, answer: Answer) -> dict[str, Any]:
    """One answer as one JSON line. `cycles` holds a list per figure, an entry per cycle, the
    prefill left out; `confidence` is empty where the arm's scheduler does not look at it."""
    cycles = [r for r in answer.records if not r.prefill]
    return {
        "schema_version": SCHEMA,
        "arm": arm.name,
        "lossless": arm.lossless,
        "prompt": prompt,
        "pass": turn,
        "group": item.group,
        "ids": list(answer.ids),
        "finish": answer.finish,
        "right": None if item.right is None else item.right(answer.text),
        "ttft_s": answer.ttft_s,
        "wall_s": answer.wall_s,
        "repeated_4grams": repeated_ngrams(answer.ids),
        "cycles": {name: [getattr(r, name) for r in cycles] for name in CYCLE}
        | {"confidence": [[round(c, 4) for c in r.confidence] for r in cycles]},
    }


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a records file. A last line that was cut off is left out (and cut off the file,
    so that what follows begins on a line of its own); any other broken line is an error."""
    if not path.is_file():
        return
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RunError(f"{str(path)!r} line {number} is not JSON: {error}.") from error
        version = row.get("schema_version") if isinstance(row, dict) else None
        if version != SCHEMA:
            raise RunError(
                f"{str(path)!r} line {number} has schema_version {version!r}, expected {SCHEMA}."
            )
        if lacking := sorted(FIELDS - set(row)):
            raise RunError(f"{str(path)!r} line {number} lacks {lacking[0]!r}.")
        yield row


def _write_env(out: Path, workload: Workload, settings: dict[str, Any]) -> None:
    env = environment(str(settings.get("device", "cpu"))) | {
        "workload": workload.name,
        "prompts": len(workload.items),
        "prompt_hash": workload.digest,
        "settings": settings,
    }
    path = out / "env.json"
    if path.is_file():
        try:
            old = dict(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise RunError(f"{str(path)!r} cannot be read: {error}.") from error
        for key in ("prompt_hash", "settings"):
            if old.get(key) != env[key]:
                raise RunError(
                    f"{str(out)!r} holds a run of another {key.replace('_', ' ')}: "
                    "choose another folder."
                )
        return
    path.write_text(json.dumps(env, indent=1) + "\n")


def environment(device: str) -> dict[str, Any]:
    """Versions, the device that was used, threads and commit."""
    packages = ("floodstage", "torch", "transformers", "tokenizers")
    return {
        "versions": {name: metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "commit": _commit(),
    }


def _commit() -> str:
    """The commit of floodstage itself; empty where it was installed without one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # no git here
        return ""
    return done.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
