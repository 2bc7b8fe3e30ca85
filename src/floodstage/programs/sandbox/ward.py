"""One child, seen from outside: its pipes, its clocks, its end. Trusted, single-threaded.

Knows nothing of what the lines mean that a child writes, the first one apart.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodstage.programs.sandbox.limits import Limits
from floodstage.programs.sandbox.wire import Order, pack, shallow

BLOCK = 1 << 16
START_S = 20.0
"""A child that is not locked up by then is a failure of ours."""


class EngineFault(Exception):
    """A failure of the sandbox itself: never the program's."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: exit code or -signal, and what the kernel counted for it."""

    status: int
    cpu_s: float
    rss_bytes: int


class Zygote:
    """The engine's end of one zygote. `killing_s` is the time that its children took to die."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        self.control, self.pid = control, pid
        self.killing_s = 0.0
        self.memory_kills = memory_kills()

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed for memory since this was last asked: on the whole
        machine, so it explains a SIGKILL that nobody here sent, and proves nothing by itself."""
        before, self.memory_kills = self.memory_kills, memory_kills()
        return self.memory_kills > before

    def fork(self, order: Order, descriptors: Sequence[int]) -> tuple[int, int]:
        """A child with these descriptors: its pid and its pidfd. Raises EngineFault."""
        socket.send_fds(self.control, [pack(shallow(order))], list(descriptors))
        if not select.select([self.control], [], [], START_S)[0]:
            raise EngineFault("the zygote does not answer")
        message, handles, _, _ = socket.recv_fds(self.control, 4096, 1)
        if not message or len(handles) != 1:
            raise EngineFault("the zygote is gone")
        return _json(message)["pid"], handles[0]


class Ward:
    """One child under watch. `lines` are those of its result pipe after it was ready.

    `stays`: it is fed one program after the other, each a line, and lives until it is ended.
    """

    def __init__(
        self,
        zygote: Zygote,
        program: bytes,
        limits: Limits,
        talk: Sequence[int] = (),
        *,
        total_cpu_s: float,
        most_lines: int,
        stays: bool = False,
    ) -> None:
        self.most_lines, self.stays = most_lines, stays
        self.limits, self.control, self.zygote = limits, zygote.control, zygote
        self.lines: list[bytes] = []
        self.buffer = bytearray()
        self.rest = memoryview(program)
        self.read_bytes = self.printed_bytes = 0
        self.over = ""  # why it was killed: cpu, idle, output, result, done
        self.all_said = False  # nothing of it is wanted any more but its end
        self.killed_s: float | None = None
        self.ended: Ended | None = None
        self.ready_s: float | None = None  # when it was locked up, on the monotonic clock
        self.start_cpu_s = self.mark_cpu_s = self.mark_waited_s = 0.0
        self.forked_s = time.monotonic()
        reading, self.program = _pipe()
        self.result, writing = _pipe()
        self.output, printing = _pipe()
        theirs = (printing, reading, writing)
        try:
            order = Order(limits.memory_bytes, total_cpu_s)
            self.pid, self.handle = zygote.fork(order, [*theirs, *talk])
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        for descriptor in (self.program, self.result, self.output):
            os.set_blocking(descriptor, False)
        self.feed()

    # -- clocks -------------------------------------------------------------------------------

    def cpu_s(self) -> float:
        """CPU time of the whole process so far."""
        if self.ended is not None:
            return self.ended.cpu_s
        try:
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:  # it has just ended
            return self.mark_cpu_s

    def waited_s(self) -> float:
        """Time spent waiting for a core; 0 where the kernel does not say."""
        try:  # without a file object, which would cost more than all the rest of a mark
            descriptor = os.open(f"/proc/{self.pid}/schedstat", os.O_RDONLY)
        except OSError:
            return 0.0
        try:
            return int(os.read(descriptor, 200).split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            return 0.0
        finally:
            os.close(descriptor)

    # -- what happens to it -------------------------------------------------------------------

    def kill(self, why: str) -> None:
        """SIGKILL to it and to its group. The first reason stays."""
        self.over = self.over or why
        if self.ended is not None:
            return
        if self.killed_s is None:
            self.killed_s = time.monotonic()
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def sources(self) -> dict[int, Callable[[], None]]:
        """Descriptors to wait for, and what to do then."""
        waiting = {self.control.fileno(): self.reap}
        if not self.all_said and self.killed_s is None:  # else what is left is read at its end
            waiting = {self.output: self.read_output, self.result: self.read_result} | waiting
        return {fd: act for fd, act in waiting.items() if fd >= 0}

    def give(self, program: bytes) -> None:
        """The next program, for one that stays and has read all of the last one."""
        self.rest = memoryview(program)
        self.feed()

    def feed(self) -> None:
        """Write on with the program."""
        try:
            while self.rest:
                self.rest = self.rest[os.write(self.program, self.rest) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not want to know the rest
            self.rest = memoryview(b"")
        if not self.stays:
            os.close(self.program)
            self.program = -1

    def read_result(self) -> None:
        block = self._read("result")
        self.buffer += block
        *lines, rest = self.buffer.split(b"\n")
        self.buffer = bytearray(rest)
        if self.ready_s is None and lines:
            self._is_ready(_json(bytes(lines.pop(0))))
        self.lines += map(bytes, lines)
        longest = max(len(self.buffer), *map(len, lines), 0)
        if longest > self.limits.result_bytes or len(self.lines) > self.most_lines:
            self.kill("result")

    def _is_ready(self, word: dict[str, Any]) -> None:
        """The first line is ours: no program has been read yet."""
        if "ready" not in word:
            raise EngineFault(f"a child could not lock itself up: {word.get('lockdown')}")
        self.ready_s = time.monotonic()
        self.start_cpu_s = self.mark_cpu_s = word["ready"]

    def read_output(self) -> None:
        self.printed_bytes += len(self._read("output"))
        if self.printed_bytes > self.limits.output_bytes:
            self.kill("output")

    def _read(self, name: str) -> bytes:
        """What there is; at the end the descriptor is closed."""
        descriptor: int = getattr(self, name)
        try:
            block = os.read(descriptor, BLOCK)
        except BlockingIOError:
            return b""
        if not block:
            os.close(descriptor)
            setattr(self, name, -1)
        self.read_bytes += len(block)
        return block

    def reap(self) -> None:
        """Take the zygote's word that it has ended. Raises EngineFault."""
        message = self.control.recv(4096)
        if not message:
            raise EngineFault("the zygote is gone")
        self.ended = Ended(**_json(message))
        if self.killed_s is not None:
            self.zygote.killing_s += time.monotonic() - self.killed_s
        for name, read in (("output", self.read_output), ("result", self.read_result)):
            before = -1
            while getattr(self, name) >= 0 and self.read_bytes != before:
                before = self.read_bytes
                read()
        if self.ready_s is None:
            raise EngineFault(f"a child ended with status {self.ended.status} before it was ready")

    def end(self) -> None:
        """Kill it, if it lives, and wait until it has ended. Raises EngineFault."""
        if self.ended is None:
            self.kill("done")
        while self.ended is None:
            if not select.select([self.control], [], [], START_S)[0]:
                raise EngineFault("the zygote does not answer")
            self.reap()

    def close(self) -> None:
        for descriptor in (self.program, self.result, self.output, self.handle):
            if descriptor >= 0:
                os.close(descriptor)


def memory_kills() -> int:
    """How often the kernel has killed a process for memory since it started; 0 if it says not."""
    try:
        _, _, after = Path("/proc/vmstat").read_text().partition("oom_kill ")
    except OSError:
        return 0
    return int(after.split(maxsplit=1)[0]) if after else 0


def _pipe() -> tuple[int, int]:
    return os.pipe2(os.O_CLOEXEC)


def _json(message: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(message)
    return value
