"""One engine process, seen from the driver: started, spoken to, ended. Knows no schedule."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from floodstage.programs.sandbox.family import sweep_marked
from floodstage.programs.sandbox.lockdown import Level
from floodstage.programs.sandbox.tickets import Ticket
from floodstage.programs.sandbox.watch import STARVED
from floodstage.programs.sandbox.wire import Job, Setup, frame, pack, shallow, take_frame

BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from floodstage.programs.sandbox.engine import main; main()"
)
ENVIRONMENT = {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
"""All that an engine is told about the world; it forgets even this."""
START_S = 60.0
STUCK_S = 0.02
"""A job that runs for longer loses those behind it to an engine that is free."""
BLOCK = 1 << 16


@dataclass(slots=True, eq=False)
class Engine:
    """Its process, the line to it, and the jobs that it has: the first is running."""

    process: subprocess.Popen[bytes]
    line: socket.socket
    level: str
    mark: str  # its last argument, and so that of all that is forked from it
    name: str
    started_s: float
    out: bytearray = field(default_factory=bytearray)
    incoming: bytearray = field(default_factory=bytearray)
    tickets: deque[Ticket] = field(default_factory=deque)
    ready_s: float | None = None
    due_s: float = 0.0  # the running job's reply must be here by then
    replied_s: float = 0.0  # when it last replied, or was ready
    busy_s: float = 0.0

    @property
    def ready(self) -> bool:
        return self.ready_s is not None

    @property
    def alone(self) -> bool:
        """Whether it runs something that is known to take long."""
        return any(ticket.heavy for ticket in self.tickets)

    def stuck(self, now: float) -> bool:
        """Whether its running job takes long."""
        if not self.ready or not self.tickets:
            return False
        return now - max(self.replied_s, self.tickets[0].sent_s) >= STUCK_S

    def hand(self, ticket: Ticket, *, apart: bool) -> None:
        """Queue a job for sending."""
        ticket.sent_s = time.monotonic()
        if self.ready and not self.tickets:
            self.due_s = ticket.sent_s + patience_s(ticket.job)
        self.tickets.append(ticket)
        words = shallow(ticket.job) | {"id": ticket.number, "apart": apart and ticket.job.apart}
        self.out += frame(pack(words))

    def take_back(self, tickets: Iterable[Ticket]) -> None:
        """Queue the word that these need not be run here. If it comes too late they run twice,
        and the reply that is not waited for is left aside."""
        gone = list(tickets)
        self.tickets = deque(t for t in self.tickets if t not in gone)
        self.out += frame(pack({"forget": [t.number for t in gone]}))

    def send(self) -> bool:
        """Send what can be sent; whether the engine is there."""
        try:
            del self.out[: self.line.send(self.out) if self.out else 0]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def receive(self) -> bool:
        """Take in what has come; whether the engine is there."""
        try:
            block = self.line.recv(BLOCK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.incoming += block
        return bool(block)

    def payloads(self) -> Iterable[bytes]:
        """The whole frames that have come in."""
        while (payload := take_frame(self.incoming)) is not None:
            yield payload

    def kill(self) -> int:
        """End it by force, with all that it started; its status."""
        self.line.close()
        self.process.kill()
        status = self.process.wait()
        if self.level == Level.LIMITS:  # elsewhere a program has no children
            sweep_marked(self.mark)
        return status

    def leave(self) -> None:
        """Wait for it to end after its line was closed; by force if it does not."""
        try:
            self.process.wait(2.0)
        except subprocess.TimeoutExpired:
            self.kill()


def start_engine(setup: Setup, name: str) -> Engine:
    """A new engine, with nothing but its setup to be sent."""
    ours, theirs = socket.socketpair()
    flags = ["-S", "-s", "-B", "-P", "-X", "utf8"]
    root, mark = str(Path(__file__).parents[3]), secrets.token_hex(8)
    now = time.monotonic()
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [sys.executable, *flags, "-c", BOOT, root, mark],
        stdin=theirs.fileno(),
        stdout=subprocess.DEVNULL,
        env=dict(ENVIRONMENT),
        cwd="/",
        start_new_session=True,
    )
    theirs.close()
    ours.setblocking(False)
    engine = Engine(process, ours, setup.level, mark, name, now, due_s=now + START_S)
    engine.out += frame(pack(asdict(setup)))
    return engine


def patience_s(job: Job) -> float:
    """Wall seconds after which an engine that has not replied is given up. The engine itself
    gives up earlier; this is for one that cannot."""
    samples = max(1, len(job.inputs))
    return START_S + 2 * samples * (STARVED * float(job.limits["idle_s"]) + START_S)
