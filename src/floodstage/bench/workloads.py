"""What is measured: prompts, and where there is one, the check of an answer.

Built in are held-out worked mathematics and held-out source code; a JSONL file works always.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from floodstage.core.errors import ConfigError, unknown
from floodstage.text import mathematics, source_code

BUILT_IN = ("mathematics", "mathematics-phrasings", "code")


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt; `right` judges an answer, or is None where nothing can."""

    prompt: str
    right: Callable[[str], bool] | None = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    items: tuple[Item, ...]

    @property
    def digest(self) -> str:
        """A hash of all prompts, for the run's `env.json`."""
        joined = "\0".join(item.prompt for item in self.items)
        return hashlib.sha256(joined.encode()).hexdigest()[:16]


def load_workload(name: str, count: int, *, seed: int = 0) -> Workload:
    """`count` prompts of a built-in workload or of a JSONL file with `prompt`, `question` or
    `turns`. The built-in ones hold nothing that the shipped models were trained on."""
    if name in ("mathematics", "mathematics-phrasings"):
        split: mathematics.Split = "heldout" if name == "mathematics" else "heldout-phrasing"
        items = [_problem(p) for p in islice(mathematics.problems(split, seed=seed), count)]
    elif name == "code":
        items = [Item(text) for text in source_code.prompts(count, seed=seed)]
    elif Path(name).is_file():
        try:
            items = _from_file(Path(name), count)
        except UnicodeDecodeError as error:
            raise ConfigError(f"{name!r} is not UTF-8 text: {error}.") from error
    else:
        raise unknown("workload (nor a file of that name)", name, BUILT_IN)
    if not items:
        raise ConfigError(f"The workload {name!r} holds no prompts.")
    return Workload(name, tuple(items))


def _problem(problem: mathematics.Problem) -> Item:
    def right(text: str) -> bool:
        return mathematics.is_right(problem, text)

    return Item(problem.prompt, right, problem.family)


def _from_file(path: Path, count: int) -> list[Item]:
    items: list[Item] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(islice(lines, count), start=1):
            try:
                row = json.loads(line)
                turns = row.get("turns")
                text = turns[0] if turns else row.get("prompt") or row["question"]
            except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                raise ConfigError(
                    f"{str(path)!r} line {number}: expected a JSON object with 'prompt', "
                    f"'question' or 'turns' ({error!r})."
                ) from error
            items.append(Item(str(text)))
    return items
