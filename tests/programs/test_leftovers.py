"""Programs that the kernel kills for memory, children of children, users other than root."""

# ruff: noqa: E501  (programs as data)

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from floodstage.programs.sandbox.limits import Limits
from floodstage.programs.sandbox.lockdown import Level, best_level
from floodstage.programs.sandbox.pool import Pool
from floodstage.programs.sandbox.values import encode
from floodstage.programs.sandbox.wire import Job, Setup

from .test_sandbox import descendants

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
CGROUP = Path("/sys/fs/cgroup/memory")
FORKS = (
    "import os, time\ndef f(x):\n  for _ in range(2):\n    if not os.fork():\n      os.setsid()\n"
    "      time.sleep(60)\n      os._exit(0)\n  while True: pass"
)
"""Leaves children in sessions of their own, and computes on."""

as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def job(source: str, *inputs: Any, **limits: Any) -> Job:
    given = asdict(Limits(**{"cpu_s": 30.0, "idle_s": 30.0, **limits}))
    return Job(0, source, ("f",), given, tuple(encode((x,)) for x in inputs))


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A memory group of 80 MB to which processes may be moved."""
    group = CGROUP / f"floodstage-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no memory groups of the first kind can be made here")
    (group / "memory.limit_in_bytes").write_text(str(80 << 20))
    yield group
    until = time.monotonic() + 5
    while time.monotonic() < until:
        with suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.05)


@as_root
def test_a_kill_for_memory_is_memory_and_any_other_a_crash(small_group: Path) -> None:
    grow = "def f(x):\n  a = bytearray(x << 20)\n  for i in range(0, len(a), 4096): a[i] = 1\n  return 1"
    kill = "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGKILL)"
    with Pool(1, Setup(best_level().value)) as pool:
        ((_, reply),) = pool.run([job(grow, 1)])
        assert [t["kind"] for t in reply.trials] == ["passed"]
        for pid in [pool.engines[0].process.pid, *descendants(pool.engines[0].process.pid)]:
            (small_group / "cgroup.procs").write_text(str(pid))
        ((ticket, reply),) = pool.run([job(grow, 180)])
        if reply.fault or ticket.attempts > 1:
            pytest.skip("the kernel chose a process of ours to kill")
        assert [(t["kind"], t["signal"]) for t in reply.trials] == [("memory", signal.SIGKILL)]
        ((_, reply),) = pool.run([job(kill, 1)])
        assert [(t["kind"], t["signal"]) for t in reply.trials] == [("crash", signal.SIGKILL)]


def running(pool: Pool, count: int) -> set[int]:
    """So many processes below an engine: its two zygotes, a program, children of the program."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for _ in pool.step(0.05):
            pass
        family = descendants(pool.engines[0].process.pid)
        if pool.engines[0].ready and len(family) >= count:
            return family
    raise AssertionError(f"fewer than {count} processes")


def gone(pids: set[int], within_s: float = 5.0) -> set[int]:
    until = time.monotonic() + within_s
    while time.monotonic() < until and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.02)
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


def test_a_program_does_not_outlive_a_killed_engine() -> None:
    """Where nobody looks for it afterwards: the kernel ends it with its zygote."""
    with Pool(1, Setup(best_level().value)) as pool:
        pool.submit(job("def f(x):\n  while True: pass", 1))
        family = running(pool, 3)
        os.kill(pool.engines[0].process.pid, signal.SIGKILL)
        assert gone(family) == set()


@as_root
def test_children_of_programs_do_not_outlive_a_killed_engine() -> None:
    with Pool(1, Setup(Level.LIMITS.value)) as pool:
        pool.submit(job(FORKS, 1))
        family = running(pool, 5)
        os.kill(pool.engines[0].process.pid, signal.SIGKILL)
        until = time.monotonic() + 5
        while pool.work.replaced == 0 and time.monotonic() < until:
            for _ in pool.step(0.05):
                pass
        assert gone(family) == set()


@as_root
def test_children_of_programs_do_not_outlive_a_killed_driver() -> None:
    pid = os.fork()
    if pid == 0:
        try:
            pool = Pool(1, Setup(Level.LIMITS.value))
            for _ in pool.run([job(FORKS, 1)]):
                pass
        finally:
            os._exit(1)
    until = time.monotonic() + 20
    while len(family := descendants(pid)) < 6 and time.monotonic() < until:
        time.sleep(0.02)
    assert len(family) >= 6
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    left = gone(family)
    for each in left:
        os.kill(each, signal.SIGKILL)
    assert left == set()


@pytest.fixture
def everyone_reads(tmp_path: Path) -> tuple[str, Path]:
    """An interpreter and the sources where a user without rights can read them."""
    setpriv, python = shutil.which("setpriv"), "/usr/bin/python3"
    if setpriv is None:
        pytest.skip("no setpriv here")
    able = (
        "import subprocess, sys; assert sys.version_info >= (3, 11)\n"
        "subprocess.run([sys.executable, '-c', ''], check=True)"
    )
    for path in (sys.executable, python):
        words = [*nobody(setpriv), path, "-c", able]
        done = subprocess.run(words, capture_output=True, check=False)
        if done.returncode == 0:
            shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("assets"))
            shutil.copytree(ROOT / "tests", tmp_path / "tests")
            for folder in (tmp_path, *tmp_path.parents):
                with suppress(OSError):
                    folder.chmod(folder.stat().st_mode | 0o055)
            return path, tmp_path
    pytest.skip("no interpreter of 3.11 or later that an ordinary user can run")


def nobody(setpriv: str) -> list[str]:
    return [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


@as_root
def test_an_ordinary_user_reaches_the_same_level(everyone_reads: tuple[str, Path]) -> None:
    """The self-test, and programs with each kind of ending, without any right."""
    python, root = everyone_reads
    code = f"""
import os, sys
sys.path.insert(0, {str(root / "src")!r})
from dataclasses import asdict
from floodstage.programs.sandbox.selftest import selftest
from floodstage.programs.sandbox.limits import Limits
from floodstage.programs.sandbox.pool import Pool
from floodstage.programs.sandbox.values import encode
from floodstage.programs.sandbox.wire import Job, Setup
assert os.getuid() == {NOBODY}
found = selftest()
limits = asdict(Limits(cpu_s=0.3, idle_s=1.0))
sources = ["def f(x): return x", "def f(x):\\n  while True: pass", "import os\\ndef f(x): os.abort()",
           "def f(x): return bytearray(1 << 40)", "import time\\ndef f(x): time.sleep(9)"]
jobs = [Job(i, s, ("f",), limits, (encode((1,)),)) for i, s in enumerate(sources)]
checks = Job(9, "def f(x): return x + 1", ("f",), limits, checks="def check(f):\\n    assert f(1) == 2\\n")
with Pool(2, Setup(found.level.value)) as pool:
    told = dict((t.job.id, r.fault or r.trials[0]["kind"]) for t, r in pool.run([*jobs, checks]))
print(found.level.value, [told[i] for i in sorted(told)])
"""
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    done = subprocess.run(
        [*nobody(setpriv), python, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(" ", 1)[0] == best_level().value
    assert "['passed', 'timeout', 'crash', 'memory', 'timeout', 'passed']" in done.stdout
