"""The records of a run: one JSON line per answer, and how they are read back.

Knows what an arm gave, not how it was measured, and imports no tensors: tables come at once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floodstage.core.errors import RunError
from floodstage.core.metrics import repeated_ngrams

if TYPE_CHECKING:
    from floodstage.bench.arms import Answer, Arm
    from floodstage.bench.workloads import Item

log = logging.getLogger("floodstage")
SCHEMA = 2
FIELDS = {
    *("arm", "lossless", "prompt", "turn", "pass", "group", "ids", "finish", "right"),
    *("ttft_s", "wall_s", "repeated_4grams", "cycles"),
}
"""What every record holds, its schema_version apart."""
CYCLE = ("drafted", "verified", "reach", "accepted", "gained", "seeded", "rows",
         "draft_s", "verify_s", "judge_s")  # fmt: skip
"""The figures of a cycle, `confidence` apart: attributes of `core.types.StepRecord`."""


def as_row(
    arm: Arm, prompt: int, half: int, turn: int, item: Item, answer: Answer
) -> dict[str, Any]:
    """One answer as one JSON line. `cycles` holds a list per figure, an entry per cycle, the
    prefill left out; `confidence` is empty where the arm's scheduler does not look at it."""
    cycles = [r for r in answer.records if not r.prefill]
    judge = item.right if turn == len(item.turns) - 1 else None
    return {
        "schema_version": SCHEMA,
        "arm": arm.name,
        "lossless": arm.lossless,
        "prompt": prompt,
        "turn": turn,
        "pass": half,
        "group": item.group,
        "ids": list(answer.ids),
        "finish": answer.finish,
        "right": None if judge is None else judge(answer.text),
        "ttft_s": answer.ttft_s,
        "wall_s": answer.wall_s,
        "repeated_4grams": repeated_ngrams(answer.ids),
        "cycles": {name: [getattr(r, name) for r in cycles] for name in CYCLE}
        | {"confidence": [[round(c, 4) for c in r.confidence] for r in cycles]},
    }


def error_row(arm: str, error: BaseException) -> dict[str, Any]:
    """An arm that could not go on, as one JSON line."""
    log.warning("The arm %r failed and is left out: %s", arm, error)
    return {"schema_version": SCHEMA, "arm": arm, "error": f"{type(error).__name__}: {error}"}


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a records file. A last line that was cut off is left out (and cut off the file,
    so that what follows begins on a line of its own); any other broken line is an error."""
    if not path.is_file():
        return
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RunError(f"{str(path)!r} line {number} is not JSON: {error}.") from error
        version = row.get("schema_version") if isinstance(row, dict) else None
        if version != SCHEMA:
            raise RunError(
                f"{str(path)!r} line {number} has schema_version {version!r}, expected {SCHEMA}."
            )
        if "error" not in row and (lacking := sorted(FIELDS - set(row))):
            raise RunError(f"{str(path)!r} line {number} lacks {lacking[0]!r}.")
        yield row


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file that grows by lines. A last one that was cut off is said, left out and
    cut off the file, so that what follows begins on a line of its own."""
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        log.warning("%s: the last line was cut off (a killed run) and is left out.", path)
        path.write_bytes(whole)
    return whole.splitlines()


Rows = Callable[[list[dict[str, Any]]], Iterator[dict[str, Any]]]


def keep_rows(path: Path, more: Rows) -> list[dict[str, Any]]:
    """The rows of a file, and those that `more` adds to them, kept as they come."""
    rows = [json.loads(line) for line in whole_lines(path)] if path.is_file() else []
    with path.open("a", encoding="utf-8") as file:
        for row in more(rows):
            file.write(json.dumps(row) + "\n")
            file.flush()
            rows.append(row)
    return rows
