"""The driver's side: engines, jobs to them, replies from them, as a stream. Knows no task.

An engine that fails or dies is replaced, and what it held is given to another one; a job that was
running in `ATTEMPTS` failures is given up and says so. Two jobs are with each engine, so that none
waits for the driver.
"""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from floodstage.core.errors import SandboxError
from floodstage.core.spans import Spans
from floodstage.programs.sandbox.watch import STARVED
from floodstage.programs.sandbox.wire import (
    Job,
    Reply,
    Setup,
    frame,
    pack,
    shallow,
    take_frame,
    unpack,
)

BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from floodstage.programs.sandbox.engine import main; main()"
)
ENVIRONMENT = {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
"""All that an engine is told about the world; it forgets even this."""
ATTEMPTS = 3
AT_ONCE = 2
START_S = 60.0
BLOCK = 1 << 16


@dataclass(slots=True)
class Ticket:
    """A job on its way. `queue_s` is from being handed out to its start in the engine."""

    job: Job
    attempts: int = 0
    sent_s: float = 0.0
    queue_s: float = 0.0


@dataclass(slots=True)
class Engine:
    """One engine process, seen from the driver."""

    process: subprocess.Popen[bytes]
    line: socket.socket
    out: bytearray = field(default_factory=bytearray)
    incoming: bytearray = field(default_factory=bytearray)
    tickets: deque[Ticket] = field(default_factory=deque)
    ready: bool = False
    due_s: float = 0.0  # the running job's reply must be here by then
    replied_s: float = 0.0


class Pool:
    """`with Pool(2, Setup("strict")) as pool:` then `for ticket, reply in pool.run(jobs):`"""

    def __init__(self, workers: int, setup: Setup, spans: Spans | None = None) -> None:
        self.workers, self.setup = workers, setup
        self.spans = spans or Spans()
        self.engines: list[Engine] = []
        self.selector = selectors.DefaultSelector()
        self.replaced = 0
        self.failed_starts = 0  # in a row

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Ticket, Reply]]:
        """Every job once, in the order in which they are done. Jobs are taken as they are needed.
        A reply with a `fault` is given up. Raises SandboxError where no engine can be started."""
        source, waiting = iter(jobs), deque[Ticket]()
        more = True
        while True:
            while more and len(waiting) < AT_ONCE * self.workers:
                job = next(source, None)
                more = job is not None
                if job is not None:
                    waiting.append(Ticket(job))
            if not waiting and not any(engine.tickets for engine in self.engines):
                return
            with self.spans("start engines"):
                self._start_engines(bool(waiting))
            with self.spans("send"):
                self._hand_out(waiting)
            yield from self._collect(waiting)

    def close(self) -> None:
        """End every engine; by force if it does not leave."""
        for engine in self.engines:
            engine.line.close()
        for engine in self.engines:
            try:
                engine.process.wait(2.0)
            except subprocess.TimeoutExpired:
                engine.process.kill()
                engine.process.wait()
        self.engines.clear()
        self.selector.close()

    # -- engines ------------------------------------------------------------------------------

    def _start_engines(self, work: bool) -> None:
        while work and len(self.engines) < self.workers:
            ours, theirs = socket.socketpair()
            flags = ["-S", "-s", "-B", "-P", "-X", "utf8"]
            root = str(Path(__file__).parents[3])
            process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, *flags, "-c", BOOT, root],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=dict(ENVIRONMENT),
                cwd="/",
                start_new_session=True,
            )
            theirs.close()
            ours.setblocking(False)
            engine = Engine(process, ours, due_s=time.monotonic() + START_S)
            engine.out += frame(pack(asdict(self.setup)))
            self.selector.register(ours, selectors.EVENT_READ | selectors.EVENT_WRITE, engine)
            self.engines.append(engine)

    def _drop(self, engine: Engine, waiting: deque[Ticket]) -> Iterator[tuple[Ticket, Reply]]:
        """Take a dead or faulty engine away; its jobs wait again, the running one once more."""
        self.selector.unregister(engine.line)
        engine.line.close()
        engine.process.kill()
        status = engine.process.wait()
        self.engines.remove(engine)
        self.replaced += 1
        self.failed_starts += not engine.ready
        if self.failed_starts >= ATTEMPTS:
            raise SandboxError(
                f"{ATTEMPTS} engines in a row did not start, the last with status {status}."
            )
        for position, ticket in enumerate(reversed(engine.tickets), start=1):
            ticket.attempts += engine.ready and position == len(engine.tickets)
            if ticket.attempts < ATTEMPTS:
                waiting.appendleft(ticket)
            else:
                yield ticket, Reply(ticket.job.id, fault="its engine died every time")

    # -- jobs and replies ---------------------------------------------------------------------

    def _hand_out(self, waiting: deque[Ticket]) -> None:
        for depth in range(AT_ONCE):
            for engine in self.engines:
                if waiting and len(engine.tickets) == depth:
                    ticket = waiting.popleft()
                    ticket.sent_s = time.monotonic()
                    if engine.ready and not engine.tickets:
                        engine.due_s = ticket.sent_s + _patience_s(ticket.job)
                    engine.tickets.append(ticket)
                    engine.out += frame(pack(shallow(ticket.job)))
                    self._watch(engine)

    def _watch(self, engine: Engine) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if engine.out else 0)
        self.selector.modify(engine.line, events, engine)

    def _collect(self, waiting: deque[Ticket]) -> Iterator[tuple[Ticket, Reply]]:
        """What has come in; waits for something to come."""
        with self.spans("wait"):
            come = self.selector.select(1.0)
        for key, events in come:
            engine: Engine = key.data
            with self.spans("exchange"):
                alive, replies = self._exchange(engine, events)
            for reply in replies:
                yield from self._settle(engine, reply, waiting)
            if not alive and engine in self.engines:
                yield from self._drop(engine, waiting)
        for engine in list(self.engines):
            if (engine.tickets or not engine.ready) and time.monotonic() > engine.due_s:
                yield from self._drop(engine, waiting)

    def _exchange(self, engine: Engine, events: int) -> tuple[bool, list[Reply]]:
        """Send and receive what can be; whether the engine is there, and what it replied.
        Raises SandboxError for an engine that cannot start."""
        alive, replies = True, list[Reply]()
        if events & selectors.EVENT_WRITE:
            alive = self._send(engine)
        if alive and events & selectors.EVENT_READ:
            alive = self._receive(engine)
            while (payload := take_frame(engine.incoming)) is not None:
                if engine.ready:
                    replies.append(unpack(payload, Reply))
                else:
                    self._greet(engine, unpack(payload, dict))
        return alive, replies

    def _greet(self, engine: Engine, word: dict[str, Any]) -> None:
        if "fault" in word:
            raise SandboxError(f"An engine cannot start: {word['fault']}.")
        engine.ready, self.failed_starts = True, 0
        engine.replied_s = time.monotonic()
        if engine.tickets:
            engine.due_s = engine.replied_s + _patience_s(engine.tickets[0].job)

    def _settle(
        self, engine: Engine, reply: Reply, waiting: deque[Ticket]
    ) -> Iterator[tuple[Ticket, Reply]]:
        if reply.fault:
            yield from self._fail(engine, reply, waiting)
            return
        now, ticket = time.monotonic(), engine.tickets.popleft()
        ticket.queue_s = max(0.0, now - reply.busy_s - ticket.sent_s)
        ticket.attempts += 1
        engine.replied_s = now
        if engine.tickets:
            engine.due_s = now + _patience_s(engine.tickets[0].job)
        yield ticket, reply

    def _fail(
        self, engine: Engine, reply: Reply, waiting: deque[Ticket]
    ) -> Iterator[tuple[Ticket, Reply]]:
        """An engine said that it failed; it ends by itself."""
        ticket = engine.tickets.popleft()
        ticket.attempts += 1
        if ticket.attempts < ATTEMPTS:
            waiting.appendleft(ticket)
        else:
            yield ticket, reply
        while engine.tickets:
            waiting.appendleft(engine.tickets.pop())

    def _send(self, engine: Engine) -> bool:
        try:
            sent = engine.line.send(engine.out) if engine.out else 0
        except BlockingIOError:
            return True
        except OSError:
            return False
        del engine.out[:sent]
        self._watch(engine)
        return True

    def _receive(self, engine: Engine) -> bool:
        try:
            block = engine.line.recv(BLOCK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        engine.incoming += block
        return bool(block)


def _patience_s(job: Job) -> float:
    """Wall seconds after which an engine that has not replied is given up. The engine itself
    gives up earlier; this is for one that cannot."""
    samples = max(1, len(job.inputs))
    return START_S + 2 * samples * (STARVED * float(job.limits["idle_s"]) + START_S)
