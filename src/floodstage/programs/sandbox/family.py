"""Processes below this one, and those that have lost their parent: found, killed, reaped."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path


def sweep() -> None:
    """Kill and reap every child, and what falls to this process when a child dies, if it is a
    subreaper; where forks are denied there is nothing."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            for left in _children():
                os.kill(left, signal.SIGKILL)
            time.sleep(0.0005)


def sweep_marked(mark: str) -> None:
    """Kill every process that was started with this last argument, or forked from one that was."""
    word = mark.encode() + b"\0"
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdecimal() and (process / "cmdline").read_bytes().endswith(word):
                os.kill(int(process.name), signal.SIGKILL)


def _children() -> list[int]:
    try:
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:  # a kernel without that list: look at every process
        text = " ".join(p.name for p in Path("/proc").iterdir() if _is_child(p))
    return [int(pid) for pid in text.split()]


def _is_child(process: Path) -> bool:
    try:
        after_name = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return process.name.isdecimal() and int(after_name[1]) == os.getpid()
