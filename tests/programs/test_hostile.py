"""Hostile programs, each a file of hostile/: its first line says which verdicts are right, the rest
is the program. All want to give 2 for 1, and none may leave anything behind."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from floodstage.programs.sandbox.limits import Limits
from floodstage.programs.sandbox.lockdown import Level, best_level
from floodstage.programs.sandbox.pool import Pool
from floodstage.programs.sandbox.values import encode, loads
from floodstage.programs.sandbox.wire import Job, Setup

from .test_sandbox import descendants, nothing_left

HOSTILE = sorted((Path(__file__).parent / "hostile").glob("*.txt"))
LIMITS = asdict(Limits(cpu_s=0.3, idle_s=0.6))

pytestmark = pytest.mark.skipif(
    best_level() is not Level.STRICT, reason="this kernel lacks seccomp or Landlock"
)


def read(path: Path) -> tuple[set[str], str]:
    kinds, _, source = path.read_text().partition("\n")
    return set(kinds.split()), source


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with nothing_left(), Pool(1, Setup(Level.STRICT.value)) as pool:
        yield pool


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.stem)
def test_a_hostile_program_gets_its_verdict(pool: Pool, path: Path) -> None:
    kinds, source = read(path)
    job = Job(0, source, ("f",), LIMITS, (encode((1,)),))
    ((ticket, reply),) = pool.run([job])
    assert reply.fault == ""
    assert ticket.attempts == 1
    (trial,) = reply.trials
    kind = trial["kind"]
    if kind == "passed" and loads(trial["output"]) != 2:
        kind = "wrong"
    assert kind in kinds, trial
    assert len(descendants(pool.engines[0].process.pid)) == 2  # its zygotes


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.stem)
def test_no_hostile_program_passes_checks_it_should_not(pool: Pool, path: Path) -> None:
    """Under checks that no value can meet."""
    _, source = read(path)
    checks = "def check(f):\n    assert f(1) == 'what nobody gives'\n"
    ((_, reply),) = pool.run([Job(0, source, ("f",), LIMITS, checks=checks)])
    assert reply.fault == ""
    assert reply.trials[0]["kind"] not in {"passed", "infra"}, reply.trials


def test_there_are_sixty_of_them() -> None:
    assert len(HOSTILE) >= 60


@pytest.mark.slow
def test_a_soak_leaves_no_descriptor_process_or_memory_behind() -> None:
    sources = [read(path)[1] for path in HOSTILE]
    cheap = asdict(Limits(cpu_s=0.02, idle_s=0.05))
    jobs = [Job(i, sources[i % len(sources)], ("f",), cheap, (encode((1,)),)) for i in range(3000)]

    def state(pool: Pool) -> dict[int, tuple[int, int]]:
        engine = pool.engines[0].process.pid
        return {pid: held(pid) for pid in [engine, *sorted(descendants(engine))]}

    def held(pid: int) -> tuple[int, int]:
        statm = Path(f"/proc/{pid}/statm").read_text().split()
        pages = int(statm[1]) * resource.getpagesize()
        return len(os.listdir(f"/proc/{pid}/fd")), pages  # noqa: PTH208

    with nothing_left(), Pool(1, Setup(Level.STRICT.value)) as pool:
        assert sum(not reply.fault for _, reply in pool.run(jobs[:100])) == 100
        before = state(pool)
        assert sum(not reply.fault for _, reply in pool.run(jobs[100:])) == 2900
        after = state(pool)
    assert list(before) == list(after)  # no engine and no zygote was replaced
    for pid, (descriptors, bytes_held) in before.items():
        assert after[pid][0] == descriptors
        assert after[pid][1] < bytes_held + (4 << 20)
