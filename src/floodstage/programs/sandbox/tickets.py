"""Jobs on their way: what a backend takes and gives, and jobs that are divided by sample.

A job whose samples may run apart comes back with its first trials when it takes long; the rest
goes to whoever is free, in parts, and is put together as if it had run in one piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from floodstage.programs.sandbox.jobs import SLICE_S, first_costly, not_run
from floodstage.programs.sandbox.wire import Job, Reply


@dataclass(slots=True, eq=False)
class Ticket:
    """A job on its way. `queue_s` is from being handed out to its start in an engine, `reply_s`
    from its end there until the reply is in hand; of a divided job both are sums over its parts.
    """

    job: Job
    attempts: int = 0
    sent_s: float = 0.0
    queue_s: float = 0.0
    reply_s: float = 0.0
    number: int = 0  # under which it is known to engines
    first: int = 0  # of a part: which sample of the whole job its first one is
    whole: Whole | None = None

    @property
    def heavy(self) -> bool:
        """Known to take long: it goes to an engine that has nothing else, and stays alone."""
        return self.whole is not None


@dataclass(slots=True)
class Work:
    """What engines did, in seconds of wall time, each a sum over engines. An engine starts, then
    is busy or idle until it is ended; what a lost one did since its last reply is `lost_s`."""

    starting_s: float = 0.0
    busy_s: float = 0.0
    idle_s: float = 0.0
    lost_s: float = 0.0
    killing_s: float = 0.0  # part of busy_s: from SIGKILL to the end of a program
    workers: int = 0  # engines at a time
    engines: int = 0  # ever
    replaced: int = 0
    parts: int = 0
    taken_back: int = 0

    def add(self, other: Work) -> None:
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))


class Backend(Protocol):
    """Where jobs run. `with` it, then every job comes back once, in the order of their ends."""

    work: Work
    workers: int

    def __enter__(self) -> Backend: ...
    def __exit__(self, *error: object) -> None: ...
    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Ticket, Reply]]: ...
    def close(self) -> None: ...


class Whole:
    """A divided job: trials by sample, as its parts bring them."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.trials: dict[int, dict[str, Any]] = {}
        self.busy_s = self.killing_s = 0.0
        self.done = False

    def take(self, part: Ticket, reply: Reply, workers: int) -> list[Ticket]:
        """Keep what a part came to; the parts that its rest is cut into."""
        self.trials |= {part.first + i: trial for i, trial in enumerate(reply.trials)}
        self.busy_s += reply.busy_s
        self.killing_s += reply.killing_s
        if part is not self.ticket:
            self.ticket.queue_s += part.queue_s
            self.ticket.reply_s += part.reply_s
            self.ticket.attempts = max(self.ticket.attempts, part.attempts)
        left = len(part.job.inputs) - len(reply.trials)
        if not left:
            return []
        each_s = reply.busy_s / max(1, len(reply.trials))
        size = max(1, min(int(SLICE_S / max(each_s, 1e-9)), -(-left // workers)))
        start = len(reply.trials)
        return [
            Ticket(
                replace(part.job, inputs=part.job.inputs[at : at + size]),
                first=part.first + at,
                whole=self,
            )
            for at in range(start, start + left, size)
        ]

    def needs(self, part: Ticket) -> bool:
        """Whether a part that waits still matters."""
        return not self.done and part.first < self._wanted()

    def reply(self) -> Reply | None:
        """The reply as of one piece, when all that matters is here; once."""
        wanted, total = self._wanted(), len(self.ticket.job.inputs)
        if self.done or any(i not in self.trials for i in range(wanted)):
            return None
        self.done = True
        trials = [self.trials[i] for i in range(wanted)]
        if wanted < total:
            trials += not_run(trials[-1], total - wanted)
        return Reply(self.ticket.job.id, trials, 0.0, self.busy_s, self.killing_s)

    def _wanted(self) -> int:
        """So many samples count: up to the first that stops the job."""
        known = sorted(self.trials)
        costly = first_costly([self.trials[i] for i in known])
        if costly is None or not self.ticket.job.stop:
            return len(self.ticket.job.inputs)
        return known[costly] + 1
