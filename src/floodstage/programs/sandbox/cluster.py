"""Many nodes by Ray: one actor on each, which starts engines; the driver alone judges and stores.

Batches go out, two to a node, so that it never waits; replies stream back. A job that was sent
twice, because its node died, counts once. Ray is an extra: `pip install floodstage[ray]`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from floodstage.core.errors import SandboxError
from floodstage.core.spans import Spans
from floodstage.programs.inputs.files import text_of
from floodstage.programs.sandbox.node import Node, Plan, Settled, fingerprint, interpreter
from floodstage.programs.sandbox.pool import MOST
from floodstage.programs.sandbox.tickets import Ticket, Work
from floodstage.programs.sandbox.wire import Job, Reply, Setup

BATCH = 64
CALLS = 2
"""Batches that are with a node."""
DEATHS = 5
"""So often in a row may a node die without a reply."""
LEAVE_S = 10.0


@dataclass(slots=True, eq=False)
class Member:
    """One actor, seen from the driver."""

    name: str
    actor: Any
    calls: deque[Any] = field(default_factory=deque)  # generators of chunks, the oldest first
    held: dict[int, Ticket] = field(default_factory=dict)
    heard_s: float = 0.0


class Cluster:
    """A `Backend` over the nodes of the cluster that RAY_ADDRESS names, or of a small one that is
    started here. `nodes` actors of `workers` engines each; 0: one for each node of the cluster."""

    def __init__(self, nodes: int, workers: int, setup: Setup, spans: Spans) -> None:
        """Raises SandboxError where Ray is not installed or the cluster is too small."""
        self.spans, self.workers = spans, workers
        with spans("imports"):
            self.ray = _imported()
        library = tuple((Path(p).stem, text_of(Path(p))) for p in setup.preload)
        self.plan = Plan(setup.level, library, interpreter(), fingerprint())
        with spans("start cluster"):
            self.started = self._connect(nodes)
            alive = sum(bool(node["Alive"]) for node in self.ray.nodes())
            self.nodes = nodes or alive
            self._check_room()
            self.members = [self._member(i) for i in range(self.nodes)]
        self.work = Work()
        self.waiting: deque[Ticket] = deque()
        self.deaths = 0

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- the cluster --------------------------------------------------------------------------

    def _connect(self, nodes: int) -> bool:
        """Join a cluster, or start one on this machine; whether it was started here."""
        if self.ray.is_initialized():
            return False
        quiet = {"log_to_driver": False, "configure_logging": False}
        if os.environ.get("RAY_ADDRESS"):
            self.ray.init(**quiet)
            return False
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        here = {"env_vars": {"PYTHONPATH": str(Path(__file__).parents[3])}}
        cpus = max(1, nodes) * self.workers
        self.ray.init(num_cpus=cpus, include_dashboard=False, runtime_env=here, **quiet)
        return True

    def _check_room(self) -> None:
        cpus = float(self.ray.cluster_resources().get("CPU", 0.0))
        if cpus < self.nodes * self.workers:
            raise SandboxError(
                f"The cluster has {cpus:g} CPUs, {self.nodes} nodes of {self.workers} workers need "
                f"{self.nodes * self.workers}. Ask for fewer with --nodes or --workers."
            )

    def _member(self, number: int) -> Member:
        options = {
            **{"num_cpus": self.workers, "scheduling_strategy": "SPREAD"},
            **{"max_restarts": 0, "max_task_retries": 0},  # the driver retries: it knows what came
        }
        actor = self.ray.remote(Node).options(**options).remote(self.workers, self.plan)
        return Member(f"node {number}", actor, heard_s=time.monotonic())

    def close(self) -> None:
        """End every node, and the cluster if it was started here. Twice is once."""
        for member in self.members:
            try:
                self.work.add(self.ray.get(member.actor.end.remote(), timeout=LEAVE_S))
            except self.ray.exceptions.RayError:
                self.work.replaced += 1  # it has died, or does not leave
            self.ray.kill(member.actor)
        self.members.clear()
        self.work.workers = self.nodes * self.workers
        if self.started:
            self.started = False
            self.ray.shutdown()

    # -- jobs ---------------------------------------------------------------------------------

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Ticket, Reply]]:
        """Every job once, in the order in which they are done. Raises SandboxError where nodes
        cannot work or die all the time."""
        source, more = iter(jobs), True
        while True:
            for member in sorted(self.members, key=lambda m: len(m.held)):
                while (more or self.waiting) and len(member.calls) < CALLS:
                    with self.spans("prepare"):
                        room = max(0, BATCH - len(self.waiting))
                        taken = [Ticket(job) for job in islice(source, room)]
                        self.waiting.extend(taken)
                        more = more and len(taken) == room
                    with self.spans("send"):
                        self._send(member, final=not more)
            for member in self.members:
                if member.held and not member.calls:  # what an earlier batch left unfinished
                    self._send(member, final=True)
            if not any(member.calls for member in self.members):
                return
            for member in self._heard():
                with self.spans("receive"):
                    done = self._receive(member)
                yield from done

    def _send(self, member: Member, *, final: bool) -> None:
        batch = [self.waiting.popleft() for _ in range(min(BATCH, len(self.waiting)))]
        now = time.monotonic()
        for ticket in batch:
            ticket.sent_s = now
            member.held[ticket.job.id] = ticket
        call = member.actor.work.options(num_returns="streaming")
        leave = 0 if final else MOST * self.workers
        member.calls.append(call.remote([ticket.job for ticket in batch], leave))

    def _heard(self) -> list[Member]:
        """The members from which something has come, after waiting for it."""
        first = {member.calls[0]: member for member in self.members if member.calls}
        with self.spans("wait"):
            ready, _ = self.ray.wait(list(first), num_returns=1, timeout=1.0)
        return [first[generator] for generator in ready]

    def _receive(self, member: Member) -> list[tuple[Ticket, Reply]]:
        """A chunk of a member, or the end of one of its calls, or of itself."""
        try:
            chunk: list[Settled] = self.ray.get(next(member.calls[0]))
        except StopIteration:
            member.calls.popleft()
            return []
        except self.ray.exceptions.RayTaskError as error:
            raise SandboxError(f"A node cannot work: {error.cause or error}") from error
        except self.ray.exceptions.RayError as error:
            self._replace(member, error)
            return []
        now, self.deaths = time.monotonic(), 0
        self.spans.picture(member.name, f"{len(chunk)} replies", member.heard_s, now)
        member.heard_s = now
        done: list[tuple[Ticket, Reply]] = []
        for settled in chunk:
            ticket = member.held.pop(settled.id)
            on_the_way_s = max(0.0, now - ticket.sent_s - settled.held_s)
            ticket.queue_s = settled.queue_s + on_the_way_s
            ticket.reply_s, ticket.attempts = settled.reply_s, settled.attempts
            done.append((ticket, settled.reply))
        return done

    def _replace(self, member: Member, error: BaseException) -> None:
        """A member has died: another one takes its place, and what it held waits again."""
        if getattr(error, "actor_init_failed", False):
            why = str(error).strip().splitlines()[-1].partition("SandboxError: ")
            raise SandboxError(why[2] or why[0]) from error
        self.deaths += 1
        if self.deaths >= DEATHS:
            raise SandboxError(f"A node died {DEATHS} times in a row, the last: {error}") from error
        self.waiting.extendleft(reversed(member.held.values()))
        self.ray.kill(member.actor)
        number = self.members.index(member)
        self.members[number] = self._member(number)
        self.work.replaced += 1


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        raise SandboxError(
            "The backend 'ray' needs Ray, which is not installed: pip install 'floodstage[ray]'."
        ) from error
    return ray
