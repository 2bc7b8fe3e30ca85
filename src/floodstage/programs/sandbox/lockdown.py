"""How a process locks itself up before it reads a program, and how far that goes on this machine.

Three levels: `strict` is a seccomp allow-list, Landlock, no capabilities, no new privileges and
resource limits; `seccomp` lacks Landlock, so that files can be read; `limits` lacks both and stops
accidents, not attacks. A level that was asked for is reached or the process does not go on.
"""

from __future__ import annotations

import os
import platform
import resource
import signal
import sysconfig
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from floodstage.programs.sandbox import kernel
from floodstage.programs.sandbox.seccomp import ARCHITECTURES, NOBODY, Filter, allow_list

STACK_BYTES = 8 << 20
OPEN_FILES = 64
"""Of one process: those of the checks hold two for each program of a shift."""


class Level(StrEnum):
    """How far a program is kept apart, the weakest first."""

    LIMITS = "limits"
    SECCOMP = "seccomp"
    STRICT = "strict"

    @property
    def rank(self) -> int:
        return list(Level).index(self)


def best_level() -> Level:
    """What kernel and architecture offer here. The self-test says whether it holds."""
    if platform.machine() not in ARCHITECTURES or not _knows_filters():
        return Level.LIMITS
    return Level.STRICT if kernel.landlock_abi() > 0 else Level.SECCOMP


def _knows_filters() -> bool:
    """Whether seccomp filters are built in. Asked by a call that must fail for its pointer."""
    try:
        kernel.prctl(kernel.PR_SET_SECCOMP, kernel.SECCOMP_MODE_FILTER)
    except OSError as error:
        return error.errno == 14  # EFAULT: it would have looked at the filter
    return False


@dataclass(frozen=True, slots=True)
class Cell:
    """What a zygote has prepared for its children, each of which closes it around itself."""

    parent: int  # the zygote
    base_bytes: int  # address space of the zygote, on top of which a program gets its memory
    filter: Filter | None

    def close(self, memory_bytes: int, cpu_s: float) -> None:
        """Lock this process up; there is no way back. `cpu_s` is for the whole process, a net
        below the limit that is held from outside. Raises OSError."""
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.parent:
            os._exit(1)  # the zygote died before it could be noticed
        os.setsid()
        _limit(resource.RLIMIT_AS, self.base_bytes + memory_bytes)
        _limit(resource.RLIMIT_CPU, int(cpu_s) + 2)
        _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
        _limit(resource.RLIMIT_NPROC, 0)
        if self.filter:
            self.filter.install(os.getpid())


def prepare_cell(level: Level) -> Cell:
    """Lock this process, a zygote, up as far as one may be that still forks, and prepare the rest
    for its children: what it has given up they never had, at no cost. Raises OSError."""
    machine, base_bytes = platform.machine(), _address_space_bytes()
    for what, most in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_STACK, STACK_BYTES),
    ):
        _limit(what, most)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if machine in kernel.CAPSET:
        kernel.drop_capabilities(machine)
    if level is Level.STRICT:
        rules = kernel.landlock_ruleset(kernel.landlock_abi(), readable_paths())
        kernel.landlock_restrict(rules)
        os.close(rules)
    filter = Filter(allow_list(machine, NOBODY)) if level is not Level.LIMITS else None
    return Cell(os.getpid(), base_bytes, filter)


def readable_paths() -> list[str]:
    """Where a program may read: Python's own library and time zones."""
    paths = sysconfig.get_paths()
    library = {paths["stdlib"], paths["platstdlib"], sysconfig.get_config_var("DESTSHARED") or ""}
    return [*sorted(library - {""}), "/usr/share/zoneinfo", "/dev/null", "/dev/urandom"]


def _limit(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
