"""Many nodes: the same rows and the same digest as here. With Ray where it is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from floodstage.core.errors import SandboxError
from floodstage.programs.sandbox.engines import ENVIRONMENT
from floodstage.programs.sandbox.limits import Limits
from floodstage.programs.sandbox.lockdown import best_level
from floodstage.programs.sandbox.node import CHUNK, Node, Plan, fingerprint, interpreter
from floodstage.programs.sandbox.values import encode
from floodstage.programs.sandbox.wire import Job

from .conftest import FLIP
from .test_kills import WAYS, command
from .test_sandbox import descendants, nothing_left

Write = Callable[[str, Any], Path]
ROOT = Path(__file__).resolve().parents[2]
PLAN = Plan(
    best_level().value, (("dsl", "def inc(x): return x + 1\n"),), interpreter(), fingerprint()
)

with_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray is not installed (the extra floodstage[ray])",
)


def job(number: int, source: str = "from dsl import *\ndef f(x): return inc(x)") -> Job:
    return Job(number, source, ("f",), asdict(Limits(cpu_s=0.5)), (encode((number,)),))


def test_a_node_gives_every_job_back_once_over_several_batches() -> None:
    with nothing_left():
        node = Node(2, PLAN)
        first = [x for chunk in node.work([job(i) for i in range(100)], 20) for x in chunk]
        assert 80 <= len(first) < 100
        last = [x for chunk in node.work([job(i) for i in range(100, 110)], 0) for x in chunk]
        found = first + last
        assert sorted(x.id for x in found) == list(range(110))
        assert all(x.reply.trials[0]["output"] == str(x.id + 1) for x in found)
        assert all(0.0 <= x.queue_s + x.reply.busy_s + x.reply_s <= x.held_s + 1e-3 for x in found)
        work = node.end()
    assert (work.engines, work.workers) == (2, 2)


def test_a_node_sends_what_it_has_while_it_works() -> None:
    node = Node(1, PLAN)
    jobs = [*map(job, range(5)), job(5, "def f(x):\n  while True: pass")]
    chunks = [[x.id for x in chunk] for chunk in node.work(jobs, 0)]
    node.end()
    assert len(chunks) >= 2
    assert chunks[-1] == [5]
    assert max(map(len, chunks)) <= CHUNK


def test_a_node_of_another_kind_is_refused() -> None:
    for change in ({"interpreter": "CPython 2.7"}, {"fingerprint": "0"}):
        with pytest.raises(SandboxError, match="verdicts could differ"):
            Node(1, replace(PLAN, **change))


# -- the command ------------------------------------------------------------------------------


def start(*words: object, code: str = "") -> subprocess.Popen[str]:
    code += "from floodstage.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "programs", "validate", *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def said(*words: object, code: str = "") -> tuple[int, str, str]:
    process = start(*words, code=code)
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


@pytest.fixture
def words(write: Write) -> list[object]:
    tasks = write("tasks/flip.json", FLIP).parent
    write("dsl.py", "def turn(I): return I[::-1]\n")
    for i in range(150):
        source = WAYS[i % len(WAYS)].format(n=50 + i)
        many = write(f"many/flip_{i:03}.py", f"from dsl import *\n{source}").parent
    library = many.parent / "dsl.py"
    return [
        many,
        "--tasks",
        tasks,
        "--isolation",
        best_level(),
        "--preload",
        library,
        "--workers",
        1,
    ]


@with_ray
def test_ray_gives_the_same_rows(words: list[object], tmp_path: Path) -> None:
    code, out, err = said(*words, "--out", tmp_path / "here", "--json")
    assert code == 0, err
    here = json.loads(out)
    process = start(*words, "--out", tmp_path / "ray", "--backend", "ray", "--nodes", 2, "--json")
    engines = {}
    while process.poll() is None and len(engines) < 2:
        time.sleep(0.05)
        for pid in descendants(process.pid):
            with suppress(OSError):
                parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                if b"sandbox.engine" in command(pid) and command(parent).startswith(b"ray::Node"):
                    engines[pid] = Path(f"/proc/{pid}/environ").read_bytes()
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    there = json.loads(out.splitlines()[-1])
    assert (there["digest"], there["verdicts"]) == (here["digest"], here["verdicts"])
    assert (there["workers"], there["engines"]["engines"]) == (2, 2)
    rows = [
        (tmp_path / run / "many_results.jsonl").read_text().splitlines() for run in ("here", "ray")
    ]
    assert [plain(row) for row in rows[0]] == [plain(row) for row in rows[1]]
    assert len(engines) == 2
    for environ in engines.values():
        assert dict(x.split("=", 1) for x in environ.decode().split("\0") if x) == ENVIRONMENT


def plain(row: str) -> dict[str, Any]:
    """A row without its times and sizes."""
    return {k: v for k, v in json.loads(row).items() if not k.endswith(("_s", "_bytes"))}


@with_ray
@pytest.mark.slow
def test_a_node_that_cannot_work_says_why(
    words: list[object], tmp_path: Path, write: Write
) -> None:
    write("dsl.py", "1 / 0\n")
    code, _, err = said(*words, "--out", tmp_path / "x", "--backend", "ray", "--nodes", 1)
    assert (code, "ZeroDivisionError" in err, "Traceback" in err) == (1, True, False), err


def test_without_ray_the_error_says_what_to_install(words: list[object], tmp_path: Path) -> None:
    given = (*words, "--out", tmp_path / "x", "--backend")
    code, _, err = said(*given, "ray", code="import sys; sys.modules['ray'] = None\n")
    assert (code, "floodstage[ray]" in err, "Traceback" in err) == (1, True, False), err
    code, _, err = said(*given, "rai")
    assert (code, "Did you mean 'ray'" in err) == (2, True), err
