"""Read a run folder into arrays, an arm at a time, without ever changing it.

A line that cannot be used is left out and named with its number; nothing is repaired and nothing
is guessed. Knows what a record looks like, not what any of its figures is good for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from floodstage.bench.records import CYCLE, FIELDS, SCHEMA
from floodstage.core.errors import RunError

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

SECONDS = ("draft_s", "verify_s", "judge_s")
COUNTS = tuple(name for name in CYCLE if name not in SECONDS)
NUMBER = (int, float)


@dataclass(frozen=True, slots=True)
class Fault:
    """A line of the records that was left out, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Cycles:
    """All cycles of an arm, in the order of the records; n of them."""

    answer: Ints  # [n] which of the arm's answers
    number: Ints  # [n] from 0 within the answer
    before: Ints  # [n] tokens of the answer before it; the prefill gave the first
    cut: npt.NDArray[np.bool_]  # [n] the answer's last, or its draft filled all that the limit left
    drafted: Ints
    verified: Ints
    reach: Ints  # the deepest position that could have been accepted
    accepted: Ints
    gained: Ints
    seeded: Ints
    rows: Ints  # of the whole batch in that target pass
    draft_s: Floats
    verify_s: Floats
    judge_s: Floats
    confidence: Floats  # [m] of all traced positions, one cycle after another
    traced: Ints  # [n] how many of them are this cycle's

    def __len__(self) -> int:
        return len(self.gained)

    @property
    def cycle_s(self) -> Floats:
        return self.draft_s + self.verify_s + self.judge_s


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, its cycles apart."""

    prompt: int
    half: int  # the pass: 0 in the order of the arms, 1 in reverse
    turn: int  # of a conversation
    group: str
    ids: tuple[int, ...]
    finish: str
    right: bool | None
    ttft_s: float | None
    wall_s: float
    repeated_4grams: float
    first_draft_s: float | None  # None: no cycle was recorded

    @property
    def decode_s(self) -> float | None:
        """Wall time after the first token; None where that was not seen or is the only one."""
        return None if self.ttft_s is None or len(self.ids) < 2 else self.wall_s - self.ttft_s


@dataclass(frozen=True, slots=True, eq=False)
class ArmTrace:
    """What one arm did: its answers and, where it recorded any, their cycles."""

    name: str
    lossless: bool
    answers: tuple[Answer, ...]
    cycles: Cycles


@dataclass(frozen=True, slots=True, eq=False)
class RunTrace:
    """A run folder as read. `errors` holds the sentences of arms that failed."""

    name: str
    env: dict[str, Any]
    env_fault: str  # why `env` is empty; "" where it is not
    arms: dict[str, ArmTrace]
    errors: dict[str, tuple[str, ...]]
    faults: tuple[Fault, ...]


def read_trace(run: Path) -> RunTrace:
    """Read a run folder. RunError where it holds no records at all."""
    path = run / "records.jsonl"
    if not path.is_file():
        raise RunError(
            f"{str(run)!r} holds no 'records.jsonl': give a folder that `floodstage bench` wrote."
        )
    faults: list[Fault] = []
    errors: dict[str, list[str]] = {}
    answers: dict[str, dict[tuple[int, int, int], _Parsed]] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = _row(line)
            if "error" in row:
                errors.setdefault(row["arm"], []).append(str(row["error"]))
                continue
            parsed = _parse(row)
            key = (parsed.answer.prompt, parsed.answer.half, parsed.answer.turn)
            if answers.setdefault(row["arm"], {}).setdefault(key, parsed) is not parsed:
                raise _Unusable(f"arm {row['arm']!r}, prompt, pass, turn {key} is there twice")
        except _Unusable as fault:
            faults.append(Fault(number, str(fault)))
    if not answers and not errors:
        broken = f" {len(faults)} lines cannot be used, {_said(faults[0])}." if faults else ""
        raise RunError(f"{str(path)!r} holds no record to analyse.{broken} Run the bench again.")
    env, env_fault = _read_env(run / "env.json")
    return RunTrace(
        name=run.resolve().name,
        env=env,
        env_fault=env_fault,
        arms={name: _arm(name, list(known.values())) for name, known in answers.items()},
        errors={name: tuple(said) for name, said in errors.items()},
        faults=tuple(faults),
    )


def describe(trace: RunTrace) -> Iterator[str]:
    """What could not be used, a sentence for every reason, with the numbers of its lines."""
    if trace.env_fault:
        yield f"{trace.env_fault}."
    lines: dict[str, list[int]] = {}
    for fault in trace.faults:
        lines.setdefault(fault.reason, []).append(fault.line)
    for reason, numbers in lines.items():
        word = "line" if len(numbers) == 1 else "lines"
        yield f"records.jsonl {word} {', '.join(map(str, numbers))} left out: {reason}."


class _Unusable(Exception):
    """Why a line cannot be used."""


@dataclass(frozen=True, slots=True, eq=False)
class _Parsed:
    answer: Answer
    lossless: bool
    counts: Ints  # [len(COUNTS), cycles]
    seconds: Floats  # [len(SECONDS), cycles]
    confidence: list[list[float]]


def _said(fault: Fault) -> str:
    return f"the first is line {fault.line}: {fault.reason}"


def _read_env(path: Path) -> tuple[dict[str, Any], str]:
    """`env.json`; empty, with the reason, where it cannot be read: no figure needs it."""
    try:
        env = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, "env.json is missing"
    except (OSError, ValueError) as error:
        return {}, f"env.json cannot be read: {error}"
    return (env, "") if isinstance(env, dict) else ({}, "env.json holds no object")


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:  # also bytes that are no text
        raise _Unusable(f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise _Unusable("not a JSON object")
    if row.get("schema_version") != SCHEMA:
        raise _Unusable(f"schema_version {row.get('schema_version')!r}, expected {SCHEMA}")
    if not isinstance(row.get("arm"), str):
        raise _Unusable("no name of an arm")
    return row


def _parse(row: Mapping[str, Any]) -> _Parsed:
    row = {"turn": 0, **row}  # it was left out while there were no conversations
    if lacking := sorted(FIELDS - set(row)):
        raise _Unusable(f"lacks {lacking[0]!r}")
    for name, kinds in _KINDS.items():
        if not isinstance(row[name], kinds):
            raise _Unusable(f"{name} is {row[name]!r}")
    if not row["ids"] or not all(type(i) is int for i in row["ids"]):
        raise _Unusable("ids are not a list of token ids")
    if not (math.isfinite(row["wall_s"]) and row["wall_s"] > 0):
        raise _Unusable(f"wall_s is {row['wall_s']!r}")
    if row["ttft_s"] is not None and not 0 <= row["ttft_s"] <= row["wall_s"]:
        raise _Unusable(f"ttft_s is {row['ttft_s']!r} of a wall_s of {row['wall_s']!r}")
    counts, seconds, confidence = _columns(row["cycles"])
    first = float(seconds[SECONDS.index("draft_s"), 0]) if seconds.shape[1] else None
    answer = Answer(
        prompt=row["prompt"],
        half=row["pass"],
        turn=row["turn"],
        group=row["group"],
        ids=tuple(row["ids"]),
        finish=row["finish"],
        right=row["right"],
        ttft_s=row["ttft_s"],
        wall_s=row["wall_s"],
        repeated_4grams=row["repeated_4grams"],
        first_draft_s=first,
    )
    return _Parsed(answer, row["lossless"], counts, seconds, confidence)


_KINDS: dict[str, Any] = {
    **{"lossless": bool, "prompt": int, "pass": int, "turn": int, "group": str},
    **{"ids": list, "finish": str},
    **{"right": (bool, type(None)), "ttft_s": (*NUMBER, type(None)), "wall_s": NUMBER},
    **{"repeated_4grams": NUMBER, "cycles": dict},
}


def _columns(cycles: Mapping[str, Any]) -> tuple[Ints, Floats, list[list[float]]]:
    """The columns as two arrays, and the confidences. A peer has none, or empty ones."""
    if not all(isinstance(column, list) for column in cycles.values()):
        raise _Unusable("a column of cycles is no list")
    n = len(cycles.get("gained", ()))
    if n and (lacking := [name for name in CYCLE if name not in cycles]):
        raise _Unusable(f"cycles lack {lacking[0]!r}")
    try:
        counts = np.array([cycles.get(name, ()) for name in COUNTS])
        seconds = np.array([cycles.get(name, ()) for name in SECONDS])
    except ValueError as error:
        raise _Unusable("the columns of cycles differ in length") from error
    confidence = cycles.get("confidence") or [[]] * n
    if counts.shape[1:] != (n,) or seconds.shape[1:] != (n,) or len(confidence) != n:
        raise _Unusable("the columns of cycles differ in length")
    if n and (counts.dtype.kind != "i" or seconds.dtype.kind not in "if" or counts.min() < 0):
        raise _Unusable("a column of cycles holds what is no count or no time")
    if not np.isfinite(seconds.astype(np.float64)).all():
        raise _Unusable("a column of cycles holds what is no time")
    counts = counts.astype(np.int64)
    if (counts[COUNTS.index("accepted")] > counts[COUNTS.index("reach")]).any():
        raise _Unusable("a cycle accepted more than its reach")
    if not all(isinstance(c, list) and all(_probability(p) for p in c) for c in confidence):
        raise _Unusable("a cycle's confidence is no list of probabilities")
    return counts, seconds.astype(np.float64), confidence


def _probability(value: object) -> bool:
    return isinstance(value, NUMBER) and 0 <= value <= 1


def _arm(name: str, parsed: Sequence[_Parsed]) -> ArmTrace:
    counts = np.concatenate([p.counts for p in parsed], axis=1)
    seconds = np.concatenate([p.seconds for p in parsed], axis=1)
    sizes = [p.counts.shape[1] for p in parsed]
    traced = [len(c) for p in parsed for c in p.confidence]
    every = chain.from_iterable(chain.from_iterable(p.confidence for p in parsed))
    answer = np.repeat(np.arange(len(parsed)), sizes)
    gained, drafted = counts[COUNTS.index("gained")], counts[COUNTS.index("drafted")]
    given = np.cumsum(gained) - gained  # by the cycles of all answers before, and of this one
    number = np.concatenate([np.arange(size) for size in sizes])
    before = given - np.repeat(given[number == 0], [size for size in sizes if size]) + 1
    ends = np.array([len(p.answer.ids) for p in parsed])[answer]
    full = np.array([p.answer.finish == "length" for p in parsed])[answer]
    last = np.append(answer[1:] != answer[:-1], True)[: len(answer)]
    known = {
        "answer": answer,
        "number": number,
        "before": before,
        "cut": last | (full & (before + drafted + 1 >= ends)),
        "confidence": np.fromiter(every, np.float64, sum(traced)),
        "traced": np.array(traced, np.int64),
        **dict(zip(COUNTS, counts, strict=True)),
        **dict(zip(SECONDS, seconds, strict=True)),
    }
    return ArmTrace(
        name=name,
        lossless=all(p.lossless for p in parsed),
        answers=tuple(p.answer for p in parsed),
        cycles=Cycles(**{f.name: known[f.name] for f in fields(Cycles)}),
    )
