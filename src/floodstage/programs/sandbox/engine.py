"""The engine: one process per core, exec'd with an empty environment, that runs jobs one by one.

It forks its two zygotes before it has read anything but its setup, so that neither holds a program
or a check. Any failure of its own is said in the reply and ends it; the driver starts another.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import NoReturn

from floodstage.programs.sandbox.candidate import run_candidate
from floodstage.programs.sandbox.checks import run_checks
from floodstage.programs.sandbox.jobs import run_data, run_split
from floodstage.programs.sandbox.lockdown import Level
from floodstage.programs.sandbox.ward import EngineFault, Zygote
from floodstage.programs.sandbox.watch import DriverGone
from floodstage.programs.sandbox.wire import Job, Reply, Setup, frame, pack, take_frame, unpack
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
    try:
        setup = unpack(frames.next(), Setup)
        zygote = _zygote(driver, setup.level, setup.preload, run_candidate)
        checker = _zygote(driver, setup.level, (), run_checks, zygote.control)
        driver.sendall(frame(pack({"ready": os.getpid()})))
        while True:
            _serve_one(unpack(frames.next(), Job), zygote, checker, driver)
    except EngineFault as fault:
        driver.sendall(frame(pack({"fault": str(fault)})))
        os._exit(1)
    except (DriverGone, OSError):
        os._exit(0)


def _serve_one(job: Job, zygote: Zygote, checker: Zygote, driver: socket.socket) -> None:
    began = time.monotonic()
    try:
        if job.checks is None:
            trials = run_data(job, zygote, driver.fileno())
        else:
            trials = run_split(job, zygote, checker, driver.fileno())
        reply = Reply(job.id, trials, time.monotonic() - began)
    except (EngineFault, OSError, ValueError, KeyError, TypeError) as fault:
        reply = Reply(job.id, fault=f"{type(fault).__name__}: {fault}")
    driver.sendall(frame(pack(asdict(reply))))
    if reply.fault:
        os._exit(1)


def _zygote(
    driver: socket.socket,
    level: str,
    preload: Sequence[str],
    child: Child,
    *foreign: socket.socket,
) -> Zygote:
    """Fork a zygote, which holds no descriptor but its own. Raises EngineFault."""
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
    word = take_word(ours.recv(4096))
    if "ready" not in word:
        raise EngineFault(word.get("fault", "a zygote did not start"))
    return Zygote(ours, pid)


def take_word(message: bytes) -> dict[str, str]:
    return unpack(message, dict) if message else {}


class _Frames:
    """What the driver sends, frame by frame."""

    def __init__(self, driver: socket.socket) -> None:
        self.driver, self.buffer = driver, bytearray()

    def next(self) -> bytes:
        """The next whole frame. Raises DriverGone."""
        while (payload := take_frame(self.buffer)) is None:
            block = self.driver.recv(BLOCK)
            if not block:
                raise DriverGone
            self.buffer += block
        return payload


if __name__ == "__main__":
    sys.exit(main())
