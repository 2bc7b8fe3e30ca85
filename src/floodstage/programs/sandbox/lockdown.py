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
from floodstage.programs.sandbox.limits import Limits
from floodstage.programs.sandbox.seccomp import ARCHITECTURES, NOBODY, allow_list, for_process

STACK_BYTES = 8 << 20
OPEN_FILES = 32


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
    """What a zygote prepares once and each of its children applies to itself."""

    level: Level
    rules: int  # descriptor of the Landlock ruleset, -1 where there is none
    base_bytes: int  # address space of the zygote, on top of which a program gets its memory
    parent: int  # the zygote
    machine: str
    filter: bytes  # the seccomp filter of nobody in particular, empty where there is none

    def close(self, limits: Limits, cpu_s: float) -> None:
        """Lock this process up; there is no way back. `cpu_s` is for the whole process, a net
        below the limit that is held from outside. Raises OSError."""
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.parent:
            os._exit(1)  # the zygote died before it could be noticed
        os.setsid()
        _limit(limits, self.base_bytes, cpu_s)
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        if self.machine in kernel.CAPSET:
            kernel.drop_capabilities(self.machine)
        if self.level is Level.STRICT:
            kernel.landlock_restrict(self.rules)
            os.close(self.rules)
        if self.filter:
            kernel.install_filter(for_process(self.filter, os.getpid()))


def prepare_cell(level: Level) -> Cell:
    """A cell for the children of this process. Raises OSError."""
    rules = -1
    if level is Level.STRICT:
        rules = kernel.landlock_ruleset(kernel.landlock_abi(), readable_paths())
    machine = platform.machine()
    filter = allow_list(machine, NOBODY) if level is not Level.LIMITS else b""
    return Cell(level, rules, _address_space_bytes(), os.getpid(), machine, filter)


def readable_paths() -> list[str]:
    """Where a program may read: Python's own library and time zones."""
    paths = sysconfig.get_paths()
    library = {paths["stdlib"], paths["platstdlib"], sysconfig.get_config_var("DESTSHARED") or ""}
    return [*sorted(library - {""}), "/usr/share/zoneinfo", "/dev/null", "/dev/urandom"]


def _limit(limits: Limits, base_bytes: int, cpu_s: float) -> None:
    seconds = int(cpu_s) + 2
    for what, value in (
        (resource.RLIMIT_AS, base_bytes + limits.memory_bytes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_STACK, STACK_BYTES),
    ):
        hard = resource.getrlimit(what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
