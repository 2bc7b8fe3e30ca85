"""The driver's side: engines, jobs to them, replies from them, as a stream. Knows no task.

An engine that fails or dies is replaced, and what it held is given to another one; a job that was
running in `ATTEMPTS` failures is given up and says so. An engine has some small jobs ahead, so
that it never waits for the driver; what is known to take long it gets alone. Jobs that wait behind
a long one go back to whoever is free.
"""

from __future__ import annotations

import selectors
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from floodstage.core.errors import SandboxError
from floodstage.core.spans import Spans
from floodstage.programs.sandbox.engines import STUCK_S, Engine, patience_s, start_engine
from floodstage.programs.sandbox.tickets import Ticket, Whole, Work
from floodstage.programs.sandbox.wire import Job, Reply, Setup, unpack

ATTEMPTS = 3
AHEAD_S = 0.02
"""An engine has jobs for so long, by the mean of the last ones."""
FEWEST, MOST = 2, 16
"""Jobs with an engine, the running one included."""
RECENT = 0.1
"""Weight of the last job in the mean."""


class Pool:
    """`with Pool(2, Setup("strict")) as pool:` then `for ticket, reply in pool.run(jobs):`

    Or `submit` jobs and `step` until none is `unfinished`.
    """

    def __init__(self, workers: int, setup: Setup, spans: Spans | None = None) -> None:
        self.workers, self.setup = workers, setup
        self.spans = spans or Spans()
        self.engines: list[Engine] = []
        self.waiting: deque[Ticket] = deque()
        self.selector = selectors.DefaultSelector()
        self.work = Work(workers=workers)
        self.numbers = 0
        self.mean_s = AHEAD_S / FEWEST
        self.failed_starts = 0  # in a row

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Ticket, Reply]]:
        """Every job once, in the order in which they are done. Jobs are taken as they are needed.
        A reply with a `fault` is given up. Raises SandboxError where no engine can be started."""
        source, more = iter(jobs), True
        while True:
            with self.spans("prepare"):
                for _ in range(self.workers):  # few at a time: a reply may be there meanwhile
                    if more and self.wants() and (job := next(source, None)) is not None:
                        self.submit(job)
                    elif self.wants():
                        more = False
                longest_s = 0.0 if more and self.wants() else 1.0
                if not more and not self.unfinished:
                    return
            yield from self.step(longest_s)

    # -- jobs ---------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Take a job. It starts with the next `step`."""
        self.waiting.append(Ticket(job))

    @property
    def unfinished(self) -> int:
        """Jobs and parts of jobs that have not come back."""
        return len(self.waiting) + sum(len(engine.tickets) for engine in self.engines)

    def wants(self) -> bool:
        """Whether there is room for another job."""
        return self.unfinished < self.workers * self._depth()

    def step(self, longest_s: float = 1.0) -> Iterator[tuple[Ticket, Reply]]:
        """Start, send, and give what has come back, after waiting for something to come."""
        with self.spans("start engines"):
            self._start_engines()
        with self.spans("send"):
            self._hand_out()
            stuck = self._relieve()
        with self.spans("wait"):
            come = self.selector.select(min(longest_s, STUCK_S) if stuck else longest_s)
        for key, events in come:
            with self.spans("receive"):
                done = self._attend(key.data, events)
            yield from done
        with self.spans("receive"):
            done = [x for engine in list(self.engines) for x in self._overdue(engine)]
        yield from done

    def _attend(self, engine: Engine, events: int) -> list[tuple[Ticket, Reply]]:
        """Send to an engine and take from it what can be; what is done."""
        alive, replies = self._exchange(engine, events)
        done = [x for reply in replies for x in self._settle(engine, reply)]
        if not alive and engine in self.engines:
            done += self._drop(engine)
        return done

    def _overdue(self, engine: Engine) -> Iterator[tuple[Ticket, Reply]]:
        if (engine.tickets or not engine.ready) and time.monotonic() > engine.due_s:
            yield from self._drop(engine)

    def _depth(self) -> int:
        return max(FEWEST, min(MOST, round(AHEAD_S / self.mean_s)))

    def _hand_out(self) -> None:
        """Long ones to engines that have nothing, small ones to those that have least. While a
        long one waits no engine gets more, so that one of them comes free."""
        while self.waiting and self.engines:
            now = time.monotonic()
            engine = min(self.engines, key=lambda e: (e.alone, e.stuck(now), len(e.tickets)))
            room = FEWEST if engine.stuck(now) else self._depth()
            if engine.alone or len(engine.tickets) >= (1 if self.waiting[0].heavy else room):
                return
            self._hand(engine, self.waiting.popleft())

    def _hand(self, engine: Engine, ticket: Ticket) -> None:
        self.numbers += 1
        ticket.number = self.numbers
        engine.hand(ticket, apart=self.workers > 1)
        self._watch(engine)

    def _relieve(self) -> bool:
        """Jobs behind one that runs long go to an engine that has nothing to do. Whether there
        may be some to look after soon."""
        if self.waiting or all(engine.tickets for engine in self.engines):
            return False
        crowded = [e for e in self.engines if e.ready and len(e.tickets) > 1]
        now = time.monotonic()
        for engine in crowded:
            if engine.stuck(now):
                behind = list(engine.tickets)[1:]
                engine.take_back(behind)
                self._watch(engine)
                self.work.taken_back += len(behind)
                self.waiting.extend(behind)
        self._hand_out()
        return bool(crowded)

    # -- engines ------------------------------------------------------------------------------

    def _start_engines(self) -> None:
        while self.waiting and len(self.engines) < self.workers:
            self.work.engines += 1
            engine = start_engine(self.setup, f"engine {self.work.engines}")
            events = selectors.EVENT_READ | selectors.EVENT_WRITE
            self.selector.register(engine.line, events, engine)
            self.engines.append(engine)

    def _drop(self, engine: Engine, *, blame: bool = True) -> Iterator[tuple[Ticket, Reply]]:
        """Take a dead or faulty engine away; its jobs wait again, the running one once more."""
        with self.spans("kill engines"):
            self.selector.unregister(engine.line)
            status = engine.kill()
            self.engines.remove(engine)
            self.work.replaced += 1
            self._count(engine, lost=True)
        self.failed_starts += not engine.ready
        if self.failed_starts >= ATTEMPTS:
            raise SandboxError(
                f"{ATTEMPTS} engines in a row did not start, the last with status {status}."
            )
        held = list(engine.tickets)
        if held and engine.ready and blame:
            held[0].attempts += 1
        for ticket in reversed(held):
            if ticket.attempts < ATTEMPTS:
                self.waiting.appendleft(ticket)
            else:
                yield from self._give_up(ticket, "its engine died every time")

    def _count(self, engine: Engine, *, lost: bool) -> None:
        """Add what an engine did to the sums, when it is over."""
        now, work = time.monotonic(), self.work
        ready_s = engine.ready_s if engine.ready_s is not None else now
        lost_s = now - engine.replied_s if lost and engine.ready and engine.tickets else 0.0
        work.starting_s += ready_s - engine.started_s
        work.lost_s += lost_s
        work.busy_s += engine.busy_s
        work.idle_s += max(0.0, now - ready_s - engine.busy_s - lost_s)

    def close(self) -> None:
        """End every engine; by force if it does not leave."""
        for engine in self.engines:
            self._count(engine, lost=False)
            engine.line.close()
        for engine in self.engines:
            engine.leave()
        self.engines.clear()
        self.selector.close()

    def _watch(self, engine: Engine) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if engine.out else 0)
        self.selector.modify(engine.line, events, engine)

    # -- replies ------------------------------------------------------------------------------

    def _exchange(self, engine: Engine, events: int) -> tuple[bool, list[Reply]]:
        """Send and receive what can be; whether the engine is there, and what it replied.
        Raises SandboxError for an engine that cannot start."""
        alive, replies = True, list[Reply]()
        if events & selectors.EVENT_WRITE and (alive := engine.send()):
            self._watch(engine)
        if alive and events & selectors.EVENT_READ:
            alive = engine.receive()
            for payload in engine.payloads():
                if engine.ready:
                    replies.append(unpack(payload, Reply))
                else:
                    self._greet(engine, unpack(payload, dict))
        return alive, replies

    def _greet(self, engine: Engine, word: dict[str, Any]) -> None:
        if "fault" in word:
            raise SandboxError(f"An engine cannot start: {word['fault']}.")
        engine.ready_s = engine.replied_s = now = time.monotonic()
        self.failed_starts = 0
        self.spans.picture(engine.name, "start", engine.started_s, now)
        if engine.tickets:
            engine.due_s = now + patience_s(engine.tickets[0].job)

    def _settle(self, engine: Engine, reply: Reply) -> Iterator[tuple[Ticket, Reply]]:
        now = time.monotonic()
        ticket = next((t for t in engine.tickets if t.number == reply.id), None)
        if not reply.fault:
            engine.busy_s += reply.busy_s
            engine.replied_s = now
            self.work.killing_s += reply.killing_s
            self.mean_s += RECENT * (min(reply.busy_s, AHEAD_S) - self.mean_s)
            self.spans.picture(engine.name, f"job {reply.id}", reply.began_s, reply.ended_s)
        if ticket is None:  # it was taken back, too late
            if reply.fault:
                yield from self._drop(engine, blame=False)
            return
        engine.tickets.remove(ticket)
        ticket.attempts += 1
        if reply.fault:
            yield from self._fail(engine, ticket, reply.fault)
            return
        reply = replace(reply, id=ticket.job.id)
        ticket.queue_s = max(0.0, reply.began_s - ticket.sent_s)
        ticket.reply_s = max(0.0, now - reply.ended_s)
        if engine.tickets:
            engine.due_s = now + patience_s(engine.tickets[0].job)
        if ticket.whole is None and len(reply.trials) >= len(ticket.job.inputs):
            yield ticket, reply
        else:
            yield from self._join(ticket, reply)

    def _join(self, ticket: Ticket, reply: Reply) -> Iterator[tuple[Ticket, Reply]]:
        """A part of a divided job came back, or the first piece of one that is to be divided."""
        whole = ticket.whole or Whole(ticket)
        rest = whole.take(ticket, reply, self.workers)
        self.work.parts += len(rest)
        self.waiting.extendleft(reversed(rest))
        self._forget_needless()
        if (joined := whole.reply()) is not None:
            yield whole.ticket, joined

    def _forget_needless(self) -> None:
        self.waiting = deque(t for t in self.waiting if t.whole is None or t.whole.needs(t))

    def _fail(self, engine: Engine, ticket: Ticket, why: str) -> Iterator[tuple[Ticket, Reply]]:
        """An engine said that it failed, and ends."""
        yield from self._drop(engine, blame=False)
        if ticket.attempts < ATTEMPTS:
            self.waiting.appendleft(ticket)
        else:
            yield from self._give_up(ticket, why)

    def _give_up(self, ticket: Ticket, why: str) -> Iterator[tuple[Ticket, Reply]]:
        whole = ticket.whole
        if whole is None:
            yield ticket, Reply(ticket.job.id, fault=why)
        elif not whole.done:
            whole.done = True
            self._forget_needless()
            yield whole.ticket, Reply(whole.ticket.job.id, fault=why)
