"""Is a program really kept apart here? Asked of a child that tries to get out. States the level.

The attempts run as a job like any other, through the same engine; what must be denied at a level
and is not, is a reason to refuse that level.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from floodstage.core.errors import SandboxError
from floodstage.programs.sandbox.limits import Limits
from floodstage.programs.sandbox.lockdown import Level, best_level
from floodstage.programs.sandbox.pool import Pool
from floodstage.programs.sandbox.values import encode, loads
from floodstage.programs.sandbox.wire import Job, Setup

ATTEMPTS: dict[str, tuple[Level, str]] = {
    "fork": (Level.SECCOMP, "os.fork()"),
    "start a thread": (Level.SECCOMP, "import _thread; _thread.start_new_thread(print, ())"),
    "execute a program": (Level.SECCOMP, "os.execv('/bin/true', ['true'])"),
    "open a socket": (Level.SECCOMP, "import _socket; _socket.socket()"),
    "open a socket pair": (Level.SECCOMP, "import _socket; _socket.socketpair()"),
    "signal its parent": (Level.SECCOMP, "os.kill(os.getppid(), 0)"),
    "signal everybody": (Level.SECCOMP, "os.kill(-1, 0)"),
    "open a file to write": (Level.SECCOMP, "os.open(path, os.O_WRONLY)"),
    "make a file": (Level.SECCOMP, "os.open(path + 'new', os.O_CREAT | os.O_RDONLY, 0o600)"),
    "make a folder": (Level.SECCOMP, "os.mkdir(path + 'dir')"),
    "remove a file": (Level.SECCOMP, "os.unlink(path)"),
    "rename a file": (Level.SECCOMP, "os.rename(path, path + 'moved')"),
    "link a file": (Level.SECCOMP, "os.symlink(path, path + 'link')"),
    "change a mode": (Level.SECCOMP, "os.chmod(path, 0o777)"),
    "make memory files": (Level.SECCOMP, "os.memfd_create('x')"),
    "raise its limits": (Level.LIMITS, "import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1))"),
    "change its user": (Level.LIMITS, "os.setuid(12345)"),
    "change its priority": (Level.LIMITS, "os.setpriority(os.PRIO_PROCESS, 0, -20)"),
    "read a file": (Level.STRICT, "open(path).read(1)"),
    "read accounts": (Level.STRICT, "open('/etc/passwd').read(1)"),
    "list the root": (Level.STRICT, "os.listdir('/')"),
    "read its parent's memory": (Level.LIMITS, "open(f'/proc/{os.getppid()}/mem', 'rb').read(1)"),
    "read another's environment": (Level.STRICT, "open('/proc/1/environ').read(1)"),
    "see the environment": (Level.LIMITS, "os.environ['PATH']"),
}  # fmt: skip
"""What is tried, from which level on it must fail, and how it is tried. `path` is a file that its
owner could read and write."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """The level that holds here, and what each attempt came to ("done" or the error)."""

    level: Level
    attempts: dict[str, str]

    def holes(self, level: Level) -> list[str]:
        """What was done and should have been denied at a level."""
        return [
            name
            for name, (needed, _) in ATTEMPTS.items()
            if self.attempts[name] == "done" and needed.rank <= level.rank
        ]


def selftest(least: Level = Level.STRICT, level: Level | None = None) -> Isolation:
    """What isolation is reached at `level`, by default the best that the kernel offers.
    Raises SandboxError below `least`, or where an attempt that must fail does not."""
    level = level or best_level()
    if level.rank < least.rank:
        raise SandboxError(
            f"This machine isolates programs at the level {level.value!r}, {least.value!r} was "
            f"asked for. Use a Linux with {'Landlock' if level is Level.SECCOMP else 'seccomp'}, "
            f"or accept less with --isolation {level.value}."
        )
    found = Isolation(level, _attempted(level))
    if holes := found.holes(level):
        raise SandboxError(
            f"The self-test of the level {level.value!r} failed: a program could {holes[0]}"
            f"{f' and {len(holes) - 1} more' if len(holes) > 1 else ''}. Nothing is run."
        )
    return found


def _attempted(level: Level) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder, Pool(1, Setup(level.value)) as pool:
        path = Path(folder, "secret")
        path.write_text("secret")
        os.chmod(folder, 0o755)  # noqa: PTH101
        inputs = tuple(encode((code, str(path))) for _, code in ATTEMPTS.values())
        job = Job(0, PROGRAM, ("attempt",), asdict(Limits()), inputs, stop=False)
        replies: list[Any] = [reply for _, reply in pool.run([job])]
    if replies[0].fault:
        raise SandboxError(f"The self-test could not run: {replies[0].fault}.")
    return {
        name: loads(trial["output"]) if trial.get("output") else trial["detail"]
        for name, trial in zip(ATTEMPTS, replies[0].trials, strict=True)
    }


PROGRAM = """import os

def attempt(code, path):
    before = os.getpid()
    try:
        exec(code, {"os": os, "path": path})
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    if os.getpid() != before:
        os._exit(0)
    return "done"
"""
