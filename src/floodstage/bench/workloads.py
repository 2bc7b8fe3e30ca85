"""What is measured: prompts, and where there is one, the check of an answer.

Built in are held-out worked mathematics and held-out source code; a JSONL file works always, the
data sets of `bench.datasets` from the hub or from a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from floodstage.bench.datasets import (
    DATASETS,
    Row,
    load_rows,
    question,
    read_jsonl,
    text_of,
    turns_of,
)
from floodstage.core.errors import ConfigError, unknown
from floodstage.text import mathematics, source_code
from floodstage.text.tokenizer import Message, Prompt

BUILT_IN = ("mathematics", "mathematics-phrasings", "code")


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt and, in a conversation, what is asked `later`, each after the answer to the last.

    `right` judges the last answer, or is None where nothing can.
    """

    prompt: str
    right: Callable[[str], bool] | None = None
    group: str = ""
    later: tuple[str, ...] = ()

    @property
    def turns(self) -> tuple[str, ...]:
        """All that the user says."""
        return (self.prompt, *self.later)

    def asked(self, answers: Sequence[str] = ()) -> Prompt:
        """What `Engine.request` is asked after `answers` to the first turns: the prompt itself,
        or the conversation so far, which ends in the next turn."""
        if not answers:
            return self.prompt
        said: list[Message] = []
        for turn, answer in zip(self.turns, answers, strict=False):
            said.append({"role": "user", "content": turn})
            said.append({"role": "assistant", "content": answer})
        said.append({"role": "user", "content": self.turns[len(answers)]})
        return said


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    items: tuple[Item, ...]

    @property
    def digest(self) -> str:
        """A hash of all prompts, for the run's `env.json`."""
        joined = "\0".join("\x1e".join(item.turns) for item in self.items)
        return hashlib.sha256(joined.encode()).hexdigest()[:16]


def load_workload(name: str, count: int, *, seed: int = 0) -> Workload:
    """`count` prompts of a built-in workload, a data set (`gsm8k`, or `gsm8k=rows.jsonl` for rows
    of its columns) or a JSONL file with `prompt`, `question` or `turns`.

    The built-in ones hold nothing that the shipped models were trained on. `seed` draws the
    built-in ones and shuffles a data set that has more rows; a plain file is asked from its top.
    """
    kind, given, path = name.partition("=")
    if name in ("mathematics", "mathematics-phrasings"):
        split: mathematics.Split = "heldout" if name == "mathematics" else "heldout-phrasing"
        items = [_problem(p) for p in islice(mathematics.problems(split, seed=seed), count)]
    elif name == "code":
        items = [Item(text) for text in source_code.prompts(count, seed=seed)]
    elif kind in DATASETS:
        items = _of_data_set(kind, Path(path).expanduser() if given else None, count, seed)
    elif Path(name).is_file():
        items = _from_file(Path(name), count)
    elif given:
        raise unknown("data set", kind, DATASETS)
    else:
        raise unknown("workload (nor a file of that name)", name, (*BUILT_IN, *DATASETS))
    if not items:
        raise ConfigError(f"The workload {name!r} holds no prompts.")
    return Workload(name, tuple(items))


def _problem(problem: mathematics.Problem) -> Item:
    def right(text: str) -> bool:
        return mathematics.is_right(problem, text)

    return Item(problem.prompt, right, problem.family)


def _of_data_set(name: str, path: Path | None, count: int, seed: int) -> list[Item]:
    items: list[Item] = []
    for where, row in load_rows(name, path, count, seed=seed):
        asked = question(name, where, row)
        items.append(Item(asked.turns[0], asked.right, asked.group, asked.turns[1:]))
    return items


def _from_file(path: Path, count: int) -> list[Item]:
    items: list[Item] = []
    for number, row in enumerate(islice(read_jsonl(path), count), start=1):
        try:
            turns = _spelt(row)
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"{str(path)!r} line {number}: expected a JSON object with 'prompt', 'question' "
                f"or 'turns' ({error})."
            ) from error
        items.append(Item(turns[0], later=turns[1:]))
    return items


def _spelt(row: Row) -> tuple[str, ...]:
    if row.get("turns"):
        return turns_of(row, "turns")
    return (text_of(row, "prompt" if row.get("prompt") else "question"),)
