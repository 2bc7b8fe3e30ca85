"""What flows through the pipeline: tasks, candidates, trials, verdicts. Values only.

A *task* asks for a function and says how it is judged: by samples whose outputs trusted code
compares (`DataTask`), or by checks that call the function (`CheckTask`). A *candidate* is the
source of one program for one task; a *trial* is its run on one sample; a *verdict* is what all its
trials come to. Nothing here knows how a program is run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any, TypeAlias


class Kind(StrEnum):
    """What became of a program. `infra` is a failure of ours: retried, never the program's."""

    PASSED = "passed"
    WRONG = "wrong"
    EXCEPTION = "exception"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    CRASH = "crash"
    OUTPUT_LIMIT = "output_limit"
    INVALID_OUTPUT = "invalid_output"
    SYNTAX = "syntax"
    DUPLICATE = "duplicate"
    NOT_RUN = "not_run"
    INFRA = "infra"


OPEN_KINDS = frozenset({Kind.NOT_RUN, Kind.INFRA})
"""Kinds that say nothing about the program: it is run again when a run goes on."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One input and, where it is known, what must come out. `expected` never leaves the driver."""

    inputs: tuple[Any, ...]
    expected: Any  # None: not known, so the output is kept and not judged
    part: str  # "demo" may rank programs, "test" may not


@dataclass(frozen=True, slots=True)
class DataTask:
    """A task by example: the function gets `inputs`, trusted code compares what comes out."""

    id: str
    samples: tuple[Sample, ...]
    entries: tuple[str, ...]  # names the function may have; the first that is defined is called


@dataclass(frozen=True, slots=True)
class CheckTask:
    """A task with checks: Python that calls the candidate's functions and asserts."""

    id: str
    prompt: str  # what a completion follows; trusted code, given to the checks as well
    checks: str
    entries: tuple[str, ...]  # the names by which the checks call the candidate
    calls_check: bool  # whether the checks are a function `check(candidate)`
    answer: str = ""  # a right program, where the file has one
    question: str = ""  # what a model is asked where that is no prompt; no candidate gets it


Task: TypeAlias = DataTask | CheckTask


@dataclass(frozen=True, slots=True)
class Candidate:
    """One program for one task. `id` is unique in its file, `origin` says where it was read."""

    id: str
    task_id: str
    source: str
    origin: str
    entry: str | None = None  # the function's own name, where the reader knows it

    @property
    def digest(self) -> str:
        """The address of the source in a store."""
        return source_digest(self.source)


def source_digest(source: str) -> str:
    """The content address of a text, lone surrogates included."""
    return sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Trial:
    """A program on one sample, or under all checks of its task.

    `cpu_s` is the kernel's count for the process, its start left out; `start_s` is from the request
    to the moment the program may begin, `run_s` from there to the end; both are wall time.
    `cells`, `shape` and `palette` say how near a grid is to the expected one, from 0 to 1
    (`scores.py`): 1 if it is that one, 0 if there is none or the answer is not known.
    """

    kind: Kind
    detail: str = ""
    error: str = ""  # the type of the exception
    line: int = 0  # of the program, 0 where there is none
    signal: int = 0
    output: str = ""  # as tagged JSON; data tasks only
    cpu_s: float = 0.0
    start_s: float = 0.0
    run_s: float = 0.0
    rss_bytes: int = 0
    cells: float = 0.0
    shape: float = 0.0
    palette: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a candidate came to. Times are sums over its trials, memory is the largest. `queue_s`
    is from being handed out to its start in an engine, `reply_s` from its end there until the
    driver has the reply. `cells`, `shape` and `palette` are means over the demo samples, so that
    they may rank."""

    candidate_id: str
    task_id: str
    kind: Kind
    detail: str = ""
    error: str = ""
    line: int = 0
    signal: int = 0
    duplicate_of: str = ""
    demo_passed: int = 0
    demo_total: int = 0
    test_passed: int = 0
    test_total: int = 0
    cpu_s: float = 0.0
    queue_s: float = 0.0
    start_s: float = 0.0
    run_s: float = 0.0
    reply_s: float = 0.0
    rss_bytes: int = 0
    attempts: int = 1  # more than 1: our own failures were retried
    cells: float = 0.0
    shape: float = 0.0
    palette: float = 0.0
    form: str = ""  # "shared" for a normal form with shared nodes, else why the program is raw

    @property
    def passed(self) -> bool:
        return self.kind is Kind.PASSED


def verdicts_digest(verdicts: Iterable[Verdict]) -> str:
    """Equal for runs whose verdicts are the same: what each program came to, why and on how many
    samples; neither times nor order nor words."""
    told = sorted(
        repr(
            (
                *(v.candidate_id, v.task_id, str(v.kind), v.error, v.line, v.signal),
                *(v.duplicate_of, v.demo_passed, v.demo_total, v.test_passed, v.test_total),
            )
        )
        for v in verdicts
    )
    return source_digest("\n".join(told))[:16]
