"""A node of a cluster: a pool of engines that takes batches and streams replies back. Not Ray.

It lives in one Ray actor, or anywhere else. Programs run below its engines, which are started with
an empty environment, never in the process of the node. Only durations leave: clocks differ.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from floodstage.core.errors import SandboxError
from floodstage.programs.sandbox.lockdown import Level
from floodstage.programs.sandbox.pool import Pool
from floodstage.programs.sandbox.selftest import selftest
from floodstage.programs.sandbox.tickets import Ticket, Work
from floodstage.programs.sandbox.wire import Job, Reply, Setup

CHUNK, CHUNK_S = 50, 0.1
"""Replies go back when there are so many, or after so long."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a node must be like: the level to reach, trusted modules as (name, source) in the order
    of import, and the interpreter and floodstage that the verdicts depend on."""

    level: str
    library: tuple[tuple[str, str], ...]
    interpreter: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Settled:
    """A job that is done. `held_s` is from its arrival on the node to its leaving."""

    id: int
    attempts: int
    queue_s: float
    reply_s: float
    held_s: float
    reply: Reply


def interpreter() -> str:
    """What runs the programs, as far as a verdict may depend on it."""
    return f"{platform.python_implementation()} {platform.python_version()} {platform.machine()}"


@cache
def fingerprint() -> str:
    """The content address of the code that runs programs."""
    folder = Path(__file__).parent.parent
    texts = [path.read_bytes() for path in sorted(folder.rglob("*.py"))]
    return sha256(b"\0".join(texts)).hexdigest()[:16]


class Node:
    """`work` with a batch gives its replies and those of earlier batches, as they come."""

    def __init__(self, workers: int, plan: Plan) -> None:
        """Raises SandboxError where this machine is not like the plan."""
        here = interpreter(), fingerprint()
        if here != (plan.interpreter, plan.fingerprint):
            raise SandboxError(
                f"A node runs {here[0]}, floodstage {here[1]}; the driver runs {plan.interpreter}, "
                f"floodstage {plan.fingerprint}: verdicts could differ. Install the same."
            )
        selftest(Level(plan.level), Level(plan.level))
        self.folder = tempfile.TemporaryDirectory(prefix="floodstage-")
        paths = [Path(self.folder.name, f"{name}.py") for name, _ in plan.library]
        for path, (_, source) in zip(paths, plan.library, strict=True):
            path.write_text(source)
        self.pool = Pool(workers, Setup(plan.level, tuple(map(str, paths))))
        self.arrived_s: dict[int, float] = {}

    def work(self, jobs: Sequence[Job], leave: int) -> Iterator[list[Settled]]:
        """Take jobs, and go on until no more than `leave` are unfinished; replies in chunks."""
        now = time.monotonic()
        for job in jobs:
            self.arrived_s[job.id] = now
            self.pool.submit(job)
        chunk: list[Settled] = []
        since_s = now
        while self.pool.unfinished > leave:
            chunk += [
                self._settled(ticket, reply)
                for ticket, reply in self.pool.step(CHUNK_S if chunk else 1.0)
            ]
            if len(chunk) >= CHUNK or (chunk and time.monotonic() - since_s >= CHUNK_S):
                yield chunk
                chunk, since_s = [], time.monotonic()
        if chunk:
            yield chunk

    def _settled(self, ticket: Ticket, reply: Reply) -> Settled:
        held_s = time.monotonic() - self.arrived_s.pop(ticket.job.id)
        return Settled(
            ticket.job.id, ticket.attempts, ticket.queue_s, ticket.reply_s, held_s, reply
        )

    def about(self) -> dict[str, Any]:
        """Where this is, for people."""
        return {"host": platform.node(), "engines": [e.process.pid for e in self.pool.engines]}

    def end(self) -> Work:
        """End the engines; what they did."""
        self.pool.close()
        self.folder.cleanup()
        return self.pool.work
