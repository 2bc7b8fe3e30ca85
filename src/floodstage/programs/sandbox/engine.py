"""The engine: one process per core, exec'd with an empty environment, that runs jobs one by one.

It forks its two zygotes before it has read anything but its setup, so that neither holds a program
or a check. Any failure of its own is said in the reply and ends it; the driver starts another.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import NoReturn

from floodstage.programs.sandbox import kernel
from floodstage.programs.sandbox.candidate import run_candidate
from floodstage.programs.sandbox.checker import Checker
from floodstage.programs.sandbox.checks import run_checks
from floodstage.programs.sandbox.family import sweep
from floodstage.programs.sandbox.jobs import run_data, run_split
from floodstage.programs.sandbox.lockdown import Level
from floodstage.programs.sandbox.ward import EngineFault, Zygote
from floodstage.programs.sandbox.watch import DriverGone
from floodstage.programs.sandbox.wire import (
    FORGET,
    FRAME,
    Job,
    Reply,
    Setup,
    frame,
    pack,
    shallow,
    take_frame,
    unpack,
)
from floodstage.programs.sandbox.zygote import Child, serve

BLOCK = 1 << 16


def main() -> NoReturn:
    """Serve the driver on descriptor 0, a socket, until it hangs up."""
    os.environ.clear()
    driver = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)
    os.close(null)
    frames = _Frames(driver)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    try:
        setup = unpack(frames.first(), Setup)
        zygote = _fork_zygote(driver, setup.level, setup.preload, run_candidate)
        checker = _fork_zygote(driver, setup.level, (), run_checks, zygote.control)
        for each in (zygote, checker):
            _greet(each)
        driver.sendall(frame(pack({"ready": os.getpid()})))
        checks = Checker(checker)
        while True:
            _serve_one(frames.next_job(), zygote, checks, driver)
    except EngineFault as fault:
        driver.sendall(frame(pack({"fault": str(fault)})))
        _leave(1)
    except (DriverGone, OSError):
        _leave(0)


def _leave(status: int) -> NoReturn:
    """End, and take along what a program may have left behind where forks are not denied."""
    sweep()
    os._exit(status)


def _serve_one(job: Job, zygote: Zygote, checker: Checker, driver: socket.socket) -> None:
    began_s = time.monotonic()
    killing_s = zygote.killing_s
    try:
        if job.checks is None:
            trials = run_data(job, zygote, driver.fileno())
        else:
            trials = run_split(job, zygote, checker, driver.fileno())
        killing_s = zygote.killing_s - killing_s
        reply = Reply(job.id, trials, began_s, time.monotonic(), killing_s)
    except (EngineFault, OSError, ValueError, KeyError, TypeError) as fault:
        reply = Reply(job.id, fault=f"{type(fault).__name__}: {fault}")
    driver.sendall(frame(pack(shallow(reply))))
    if reply.fault:
        _leave(1)


def _fork_zygote(
    driver: socket.socket,
    level: str,
    preload: Sequence[str],
    child: Child,
    *foreign: socket.socket,
) -> Zygote:
    """A zygote that warms up, and holds no descriptor but its own."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        for other in (driver, ours, *foreign):
            other.close()
        try:
            serve(theirs, Level(level), preload, child)
        finally:
            os._exit(1)
    theirs.close()
    return Zygote(ours, pid)


def _greet(zygote: Zygote) -> None:
    """Wait until a zygote is warm. Raises EngineFault where it cannot be, ConnectionError where
    it died: another engine may have better luck."""
    message = zygote.control.recv(4096)
    if not message:
        raise ConnectionError("a zygote died while it started")
    word: dict[str, str] = unpack(message, dict)
    if "ready" not in word:
        raise EngineFault(word["fault"])


class _Frames:
    """What the driver sends, frame by frame. A job that it takes back before its start is not
    seen: the word that does so overtakes the jobs that wait here."""

    def __init__(self, driver: socket.socket) -> None:
        self.driver, self.buffer = driver, bytearray()
        self.jobs: deque[Job] = deque()

    def first(self) -> bytes:
        """The first frame and not a byte more: whatever is read before the zygotes are forked, jobs
        and their checks, would be in the memory of every program. Raises DriverGone."""
        head = self._exactly(FRAME.size)
        return self._exactly(*FRAME.unpack(head))

    def _exactly(self, size: int) -> bytes:
        block = self.driver.recv(size, socket.MSG_WAITALL)
        if len(block) < size:
            raise DriverGone
        return block

    def next(self) -> bytes:
        """The next whole frame. Raises DriverGone."""
        while (payload := take_frame(self.buffer)) is None:
            self._receive(0)
        return payload

    def next_job(self) -> Job:
        """The next job that was not taken back. Raises DriverGone."""
        while True:
            while not self.jobs:
                self._sort(self.next())
            try:
                while True:
                    self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass
            while (payload := take_frame(self.buffer)) is not None:
                self._sort(payload)
            if self.jobs:
                return self.jobs.popleft()

    def _sort(self, payload: bytes) -> None:
        if payload.startswith(FORGET):
            taken = set(unpack(payload, dict)["forget"])
            self.jobs = deque(job for job in self.jobs if job.id not in taken)
        else:
            self.jobs.append(unpack(payload, Job))

    def _receive(self, flags: int) -> None:
        block = self.driver.recv(BLOCK, flags)
        if not block:
            raise DriverGone
        self.buffer += block


if __name__ == "__main__":
    sys.exit(main())
