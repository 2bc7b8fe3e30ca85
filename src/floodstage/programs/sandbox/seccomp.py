"""The allow-list of system calls, as a BPF program for x86_64 and aarch64.

From (architecture, process id) to bytes. What is not listed gives EPERM, calls whose
arguments BPF cannot look at (clone3, openat2) ENOSYS, another architecture kills.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

from floodstage.programs.sandbox import kernel

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32 = 0x40000000
"""Numbers from here on are the same calls in another dress (x86 only)."""


class Numbers(NamedTuple):
    """One call's number; None where the architecture lacks it."""

    x86_64: int | None
    aarch64: int | None


CALLS: dict[str, Numbers] = {
    name: Numbers(*numbers)
    for name, *numbers in (
        ("read", 0, 63), ("write", 1, 64), ("close", 3, 57), ("mmap", 9, 222), ("munmap", 11, 215),
        ("brk", 12, 214), ("newfstatat", 262, 79), ("fstat", 5, 80), ("lseek", 8, 62),
        ("madvise", 28, 233), ("mprotect", 10, 226), ("mremap", 25, 216), ("futex", 202, 98),
        ("rt_sigaction", 13, 134), ("rt_sigprocmask", 14, 135), ("rt_sigreturn", 15, 139),
        ("sigaltstack", 131, 132), ("stat", 4, None), ("lstat", 6, None), ("statx", 332, 291),
        ("pread64", 17, 67), ("readv", 19, 65), ("writev", 20, 66), ("access", 21, None),
        ("faccessat", 269, 48), ("faccessat2", 439, 439), ("readlink", 89, None),
        ("readlinkat", 267, 78), ("getcwd", 79, 17), ("getdents64", 217, 61), ("dup", 32, 23),
        ("dup2", 33, None), ("poll", 7, None), ("ppoll", 271, 73), ("select", 23, None),
        ("pselect6", 270, 72), ("nanosleep", 35, 101), ("clock_nanosleep", 230, 115),
        ("clock_gettime", 228, 113), ("clock_getres", 229, 114), ("gettimeofday", 96, 169),
        ("time", 201, None), ("getrandom", 318, 278), ("getpid", 39, 172), ("getppid", 110, 173),
        ("gettid", 186, 178), ("getuid", 102, 174), ("geteuid", 107, 175), ("getgid", 104, 176),
        ("getegid", 108, 177), ("getrlimit", 97, 163), ("getrusage", 98, 165), ("uname", 63, 160),
        ("sysinfo", 99, 179), ("sched_yield", 24, 124), ("sched_getaffinity", 204, 123),
        ("restart_syscall", 219, 128), ("exit", 60, 93), ("exit_group", 231, 94),
    )
}  # fmt: skip
"""Allowed with any arguments: they reach nothing but the process itself and what it may open."""
OPEN, OPENAT = Numbers(2, None), Numbers(257, 56)
IOCTL, FCNTL, PRLIMIT = Numbers(16, 29), Numbers(72, 25), Numbers(302, 261)
KILL, TGKILL = Numbers(62, 129), Numbers(234, 131)
UNSEEN = {"clone3": Numbers(435, 435), "openat2": Numbers(437, 437), "rseq": Numbers(334, 293)}
"""Said to be missing, so that the C library falls back to what can be looked at."""

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0o20000000
"""Flags of open(2) that write or make files; the last is __O_TMPFILE."""
IOCTLS = (0x5401, 0x5450, 0x5451)  # is it a terminal; inherit or not
FCNTLS = (0, 1, 2, 3, 1030)  # duplicate, descriptor flags, status flags as they are

ALLOW, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, AND, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # places in struct seccomp_data; little endian

Code = tuple[int, int, int, int]


NOBODY = 0x7FFF_F1FE
"""No process has this id, and no line of the filter this number by accident."""


class Filter:
    """The filter of `NOBODY`, ready to be made that of a process in place: whatever else a child
    did to it would cost more than all the rest of its lockdown."""

    def __init__(self, template: bytes) -> None:
        mark = struct.pack("<I", NOBODY)
        self.program = bytearray(template)
        self.pointer = kernel.filter_pointer(self.program)
        self.places = [i for i in range(4, len(template), 8) if template[i : i + 4] == mark]

    def install(self, pid: int) -> None:
        """Hold this thread, of the process `pid`, to the filter, for good. Raises OSError."""
        for place in self.places:
            struct.pack_into("<I", self.program, place, pid)
        kernel.install_filter(self.pointer)


def allow_list(machine: str, pid: int) -> bytes:
    """The filter for the process `pid`, which may signal nobody else. Raises KeyError for an
    architecture that is not known."""
    index = Numbers._fields.index(machine)
    code: list[Code] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, ARCHITECTURES[machine]),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, NUMBER),
    ]
    if machine == "x86_64":
        code += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, ERRNO | errno.EPERM)]
    allowed = (RETURN, 0, 0, ALLOW)
    for numbers in CALLS.values():
        code += _for(numbers[index], [allowed])
    for numbers in UNSEEN.values():
        code += _for(numbers[index], [(RETURN, 0, 0, ERRNO | errno.ENOSYS)])
    code += _for(OPENAT[index], _without(2, WRITING))
    code += _for(OPEN[index], _without(1, WRITING))
    code += _for(IOCTL[index], _one_of(1, IOCTLS))
    code += _for(FCNTL[index], _one_of(1, FCNTLS))
    code += _for(KILL[index], _one_of(0, (pid,)))
    code += _for(TGKILL[index], _one_of(0, (pid,)))
    code += _for(PRLIMIT[index], _reading_own_limits(pid))
    code.append((RETURN, 0, 0, ERRNO | errno.EPERM))
    return b"".join(struct.pack("<HBBI", *line) for line in code)


def _for(number: int | None, block: list[Code]) -> list[Code]:
    """`block`, which returns, for one call; nothing for one that is not there."""
    return [] if number is None else [(EQUAL, 0, len(block), number), *block]


def _low(argument: int) -> int:
    return ARGUMENTS + 8 * argument


def _without(argument: int, flags: int) -> list[Code]:
    """Allow if none of the flags is set."""
    return [
        (LOAD, 0, 0, _low(argument)),
        (AND, 0, 0, flags),
        (EQUAL, 0, 1, 0),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, ERRNO | errno.EPERM),
    ]


def _one_of(argument: int, values: Sequence[int]) -> list[Code]:
    """Allow if the low half of an argument is one of the values."""
    code: list[Code] = [(LOAD, 0, 0, _low(argument))]
    for value in values:
        code += [(EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW)]
    return [*code, (RETURN, 0, 0, ERRNO | errno.EPERM)]


def _reading_own_limits(pid: int) -> list[Code]:
    """prlimit64(0 or pid, any, NULL, any)."""
    refuse = (RETURN, 0, 0, ERRNO | errno.EPERM)
    return [
        (LOAD, 0, 0, _low(0)),
        (EQUAL, 2, 0, 0),
        (EQUAL, 1, 0, pid),
        refuse,
        (LOAD, 0, 0, _low(2)),
        (EQUAL, 1, 0, 0),
        refuse,
        (LOAD, 0, 0, _low(2) + 4),
        (EQUAL, 0, 1, 0),
        (RETURN, 0, 0, ALLOW),
        refuse,
    ]
