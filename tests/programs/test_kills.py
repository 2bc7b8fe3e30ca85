"""kill -9 of whatever takes part, at random moments: no verdict is lost or doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from floodstage.programs.sandbox.lockdown import best_level

from .conftest import FLIP
from .test_sandbox import children, descendants

Write = Callable[[str, Any], Path]
ROOT = Path(__file__).resolve().parents[2]
WAYS = (
    "def solve(I):\n    for _ in range({n}): pass\n    return I[::-1]",
    "def solve(I):\n    for _ in range({n}): pass\n    return I",
    "def solve(I):\n    return I[{n}]",
    "N = []\ndef solve(I):\n    N.append({n})\n    return [[len(N)]]",
    "def solve(I):\n    t = 0\n    for i in range(3000000 + {n}): t += i\n    return I[::-1]",
)
"""Programs that are right, wrong, raise, remember, or take so long that they are divided."""


class Run:
    """A command that is started again as often as it is killed."""

    def __init__(self, many: Path, tasks: Path, out: Path, *more: str) -> None:
        self.words = [
            *(sys.executable, "-c", "from floodstage.cli.main import main; main()"),
            *("programs", "validate", str(many), "--tasks", str(tasks), "--out", str(out)),
            *("--workers", "2", "--isolation", best_level().value, "--json", *more),
        ]
        self.env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.words, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def end(self) -> dict[str, Any]:
        out, err = self.process.communicate(timeout=200)
        assert self.process.returncode == 0, err
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found

    def victims(self) -> dict[str, list[int]]:
        """Who takes part now, by what it is."""
        engines, nodes = [], []
        for pid in descendants(self.process.pid):
            with suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                if b"sandbox.engine" in line and b"sandbox.engine" not in command(parent):
                    engines.append(pid)
                if line.startswith(b"ray::Node"):
                    nodes.append(pid)
        zygotes = [child for engine in engines for child in children(engine)]
        return {"driver": [self.process.pid], "engine": engines, "zygote": zygotes, "node": nodes}


def command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def kills(
    run: Run, count: int, kinds: list[str], pause_s: tuple[float, float], seed: int
) -> list[str]:
    """Kill so many, of all kinds in turn, as long as the run lasts; what was killed."""
    rng, done = random.Random(seed), []
    while len(done) < count:
        time.sleep(rng.uniform(*pause_s))
        if run.process.poll() is not None:
            break
        kind = kinds[len(done) % len(kinds)]
        if found := run.victims()[kind]:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(found), signal.SIGKILL)
                done.append(kind)
        if kind == "driver" and done and done[-1] == kind:
            run.process.wait()
            run.process.communicate()
            run.start()
    return done


def programs(write: Write, count: int) -> tuple[Path, Path]:
    tasks = write("tasks/flip.json", FLIP).parent
    for i in range(count):
        many = write(f"many/flip_{i:04}.py", WAYS[i % len(WAYS)].format(n=50 + i)).parent
    return many, tasks


def undisturbed_and_disturbed(
    write: Write, tmp_path: Path, count: int, times: int, kinds: list[str],
    pause_s: tuple[float, float], *more: str,
) -> Iterator[Any]:  # fmt: skip
    many, tasks = programs(write, count)
    calm = Run(many, tasks, tmp_path / "calm").end()
    assert set(calm["verdicts"]) == {"passed", "wrong", "exception"}
    run = Run(many, tasks, tmp_path / "run", *more)
    killed = kills(run, times, kinds, pause_s, seed=times)
    found = run.end()
    yield killed
    assert found["digest"] == calm["digest"]
    assert found["verdicts"] == calm["verdicts"]
    with sqlite3.connect(tmp_path / "run" / "verdicts.sqlite") as base:
        counts = base.execute("SELECT count(*), count(DISTINCT candidate_id) FROM verdicts")
        assert counts.fetchone() == (count, count)
        assert base.execute("SELECT count(*) FROM trials").fetchone() == (2 * count,)
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    base.close()


def test_a_few_kills_change_no_verdict(write: Write, tmp_path: Path) -> None:
    kinds = ["engine", "zygote", "driver"]
    for killed in undisturbed_and_disturbed(write, tmp_path, 60, 4, kinds, (0.5, 1.5)):
        assert {"engine", "zygote"} <= set(killed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_change_no_verdict(write: Write, tmp_path: Path) -> None:
    kinds = ["engine", "zygote", "engine", "driver", "zygote"]
    for killed in undisturbed_and_disturbed(write, tmp_path, 1200, 20, kinds, (0.7, 2.0)):
        assert len(killed) == 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_nodes_of_ray_change_no_verdict(write: Write, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (the extra floodstage[ray])")
    more = ("--backend", "ray", "--nodes", "2", "--workers", "1")
    kinds = ["node", "engine", "zygote"]
    for killed in undisturbed_and_disturbed(write, tmp_path, 500, 6, kinds, (4.0, 7.0), *more):
        assert "node" in killed
