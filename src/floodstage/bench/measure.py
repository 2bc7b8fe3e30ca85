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
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import torch
from rich.console import Console
from rich.progress import track

from floodstage.bench.arms import Arm
from floodstage.bench.records import as_row, error_row, read_records
from floodstage.bench.workloads import Item, Workload
from floodstage.core.errors import RunError
from floodstage.core.types import Request
from floodstage.text.tokenizer import Prompt

Ask = Callable[[Prompt, int], Request]


def measure(
    arms: Sequence[Arm],
    workload: Workload,
    ask: Ask,
    out: Path,
    *,
    settings: dict[str, Any],
    progress: bool = True,
) -> Path:
    """Measure; the path of the records. `ask` turns what is asked in item i into a
    request; a later turn goes on from the arm's own answer."""
    out.mkdir(parents=True, exist_ok=True)
    _write_env(out, workload, settings)
    path = out / "records.jsonl"
    known = {
        (r["arm"], r["prompt"], r["pass"], r["turn"])
        for r in read_records(path)
        if "error" not in r
    }
    todo = range(len(workload.items))
    with path.open("a", encoding="utf-8") as file:
        run = _Run(list(arms), workload, ask, known, file)
        if any(run.lacking(arm, i, half) for arm in arms for i in todo for half in (0, 1)):
            run.warm_up()
        for i in track(todo, "measuring", disable=not progress, console=Console(stderr=True)):
            run.answer_all(i)
    return path


@dataclass(slots=True)
class _Run:
    """A run folder that is being filled."""

    able: list[Arm]  # those that have not failed
    workload: Workload
    ask: Ask
    known: set[tuple[str, int, int, int]]  # arm, prompt, pass, turn
    file: TextIO

    def lacking(self, arm: Arm, prompt: int, half: int) -> set[int]:
        """The turns that are not on disk."""
        turns = range(len(self.workload.items[prompt].turns))
        return {turn for turn in turns if (arm.name, prompt, half, turn) not in self.known}

    def warm_up(self) -> None:
        """Every shape that the first prompt brings, twice."""
        request = self.ask(self.workload.items[0].prompt, 0)
        for arm in [arm for arm in self.able for _ in range(2)]:
            self._attempt(arm, lambda arm: arm.answer(request))

    def answer_all(self, prompt: int) -> None:
        """Every arm in order, and again in reverse."""
        for half, order in enumerate((list(self.able), list(reversed(self.able)))):
            for arm in order:
                self._attempt(arm, partial(self._answer, prompt, half))

    def _answer(self, prompt: int, half: int, arm: Arm) -> None:
        item, wanted = self.workload.items[prompt], self.lacking(arm, prompt, half)
        for row in _rows(arm, prompt, half, item, self.ask, wanted):
            self._write(row)

    def _attempt(self, arm: Arm, work: Callable[[Arm], object]) -> None:
        """For an arm that fails an error row and no more work; the other arms go on."""
        if arm not in self.able:
            return
        try:
            work(arm)
        except Exception as error:
            self.able.remove(arm)
            self._write(error_row(arm.name, error))

    def _write(self, row: dict[str, Any]) -> None:
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()


def _rows(
    arm: Arm, prompt: int, half: int, item: Item, ask: Ask, wanted: set[int]
) -> Iterator[dict[str, Any]]:
    """The rows of the wanted turns of an item. Earlier turns are asked again even where they are
    on disk: what follows goes on from the arm's own words."""
    said: list[str] = []
    for turn in range(max(wanted, default=-1) + 1):
        answer = arm.answer(ask(item.asked(said), prompt))
        said.append(answer.text)
        if turn in wanted:
            yield as_row(arm, prompt, half, turn, item, answer)


def _write_env(out: Path, workload: Workload, settings: dict[str, Any]) -> None:
    identity = {"prompt_hash": workload.digest, "settings": settings}
    more = {"workload": workload.name, "prompts": len(workload.items)}
    same_settings(out, identity, environment(str(settings.get("device", "cpu"))) | more)


def same_settings(out: Path, identity: dict[str, Any], about: dict[str, Any]) -> None:
    """Write `env.json` of a new run: what it is and where it ran. Raises RunError if `out` holds a
    run of another identity."""
    identity = json.loads(json.dumps(identity))  # as it will be read back
    path = out / "env.json"
    if not path.is_file():
        path.write_text(json.dumps({**about, **identity}, indent=1) + "\n")
        return
    try:
        old = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}.") from error
    for key, value in identity.items():
        if old.get(key) != value:
            raise RunError(
                f"{str(out)!r} holds a run of another {key.replace('_', ' ')}: "
                "choose another folder."
            )


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
