"""Real processes: what comes back, what is held, what is left. No mocks."""

# ruff: noqa: E501  (programs as data)

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from floodstage.core.errors import ConfigError, SandboxError
from floodstage.programs.sandbox import selftest as tested
from floodstage.programs.sandbox.checker import SHIFT
from floodstage.programs.sandbox.limits import Limits
from floodstage.programs.sandbox.lockdown import Level, best_level
from floodstage.programs.sandbox.pool import Pool
from floodstage.programs.sandbox.seccomp import CALLS, UNSEEN, allow_list
from floodstage.programs.sandbox.selftest import selftest
from floodstage.programs.sandbox.values import Malformed, Unsendable, dumps, encode, loads
from floodstage.programs.sandbox.wire import Job, Reply, Setup

LIMITS = asdict(Limits(cpu_s=0.3, idle_s=1.0))
CHECKS = "def check(f):\n    assert f(1) == 2\n    assert f(2) == 3\n"

strict = pytest.mark.skipif(
    best_level() is not Level.STRICT, reason="this kernel lacks seccomp or Landlock"
)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(1, Setup(best_level().value)) as pool:
        yield pool


def data(source: str, *inputs: Any, stop: bool = True) -> Job:
    return Job(0, source, ("f",), LIMITS, tuple(encode((x,)) for x in inputs), stop)


def split(source: str, checks: str = CHECKS, prompt: str = "") -> Job:
    return Job(0, source, ("f",), LIMITS, prompt=prompt, checks=checks)


def trials(pool: Pool, job: Job) -> list[dict[str, Any]]:
    ((_, reply),) = pool.run([job])
    assert reply.fault == ""
    return reply.trials


def kinds(pool: Pool, job: Job) -> list[str]:
    return [trial["kind"] for trial in trials(pool, job)]


def descendants(pid: int) -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(stat.parent.name)] = int(fields[1])
    found, grew = {pid}, True
    while grew:
        more = {child for child, parent in parents.items() if parent in found} - found
        found, grew = found | more, bool(more)
    return found - {pid}


def children(engine: int) -> list[int]:
    """The zygotes of an engine; a program that is killed from outside has crashed, not ours."""
    text = Path(f"/proc/{engine}/task/{engine}/children")
    return [int(x) for x in text.read_text().split()] if text.is_file() else []


@contextmanager
def nothing_left() -> Iterator[None]:
    """No process and no descriptor of this one more than before."""
    before = descendants(os.getpid()), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    yield
    until = time.monotonic() + 5
    while descendants(os.getpid()) - before[0] and time.monotonic() < until:
        time.sleep(0.02)
    assert descendants(os.getpid()) - before[0] == set()
    assert len(os.listdir("/proc/self/fd")) == before[1]  # noqa: PTH208


# -- values -----------------------------------------------------------------------------------

VALUES = [
    *(None, True, 0, -1, 2**70, -(10**5000), 1.5, -0.0, float("inf"), float("-inf")),
    *("é\0\ud800", b"\x00a", bytearray(b"x"), 1 + 2j, range(3, 9, 2), [], (), {}, set()),
    *([1, (2, [3])], {(1, 2): {"a": [None]}}, {1, 2}, frozenset({"a"}), {"t": [1]}, {"i": "0x1"}),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: repr(v)[:20] if v != -(10**5000) else "big")
def test_values_come_back_as_they_were(value: Any) -> None:
    back = loads(dumps(value))
    assert type(back) is type(value)
    assert back == value
    if isinstance(value, float):
        assert str(back) == str(value)


def test_subclasses_become_their_base() -> None:
    class Agrees(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    class Liar(list[int]):
        def __iter__(self) -> Iterator[int]:
            return iter([1, 2, 3])

    back = loads(dumps([Agrees(7), Liar([9])]))
    assert [type(x) for x in back] == [int, list]
    assert back == [7, [9]]


def test_what_is_no_data_is_not_sent() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value in (object(), loop, len, iter([1]), type):
        with pytest.raises(Unsendable):
            dumps(value)


@pytest.mark.parametrize(
    "text",
    ["{", '{"x":1}', '{"t":1}', '{"s":[[1]]}', '{"i":"z"}', '{"f":"1"}', "{}", '{"t":[],"s":[]}',
     '{"d":[[1]]}', '{"b":"zz"}', "[" * 100_000, '{"r":[1,2,0]}', '{"c":["a",1]}'],
)  # fmt: skip
def test_malformed_values_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        loads(text)


# -- verdicts ---------------------------------------------------------------------------------

DATA = {
    "passed": "def f(x): return x + 1",
    "exception": "def f(x):\n    return x / 0",
    "timeout": "def f(x):\n    while True: pass",
    "memory": "def f(x): return bytearray(1 << 40)",
    "crash": "import os\ndef f(x): os.abort()",
    "output_limit": "def f(x):\n    while True: print('x' * 1000)",
    "invalid_output": "def f(x): return object()",
    "syntax": "def f(x: return 1",
}


@pytest.mark.parametrize("kind", DATA)
def test_each_ending_has_its_kind(pool: Pool, kind: str) -> None:
    assert kinds(pool, data(DATA[kind], 1)) == [kind]


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ("import os\ndef f(x): os._exit(0)", "crash", "exited with status 0"),
        ("import sys\ndef f(x): sys.exit(0)", "exception", "SystemExit"),
        ("import time\ndef f(x): time.sleep(60)", "timeout", "idle"),
        ("def f(x): return 10 ** 10 ** 9", "timeout", "CPU"),
        ("def f(x): return 'a' * (3 << 20)", "output_limit", "a value of"),
        ("def g(x): return 1", "exception", "defines no f"),
        ("def f(x): return f(x)", "exception", "RecursionError"),
        ("x = []\ndef f(y):\n  while 1: x.append(bytes(9 << 20))", "memory", "MemoryError"),
        ("import ctypes\ndef f(x): ctypes.string_at(0)", "crash", "SIGSEGV"),
        ("def f(x): raise SyntaxError('mine')", "exception", "mine"),
        ("import os\nfor i in range(3, 32):\n  try: os.write(i, b'{\"sample\":0}\\n')\n"
         "  except OSError: pass\ndef f(x): return 2", "invalid_output", ""),
        ("import os\nos.closerange(0, 99)\ndef f(x): return 1", "crash", "before it gave"),
    ],
)  # fmt: skip
def test_endings_say_why(pool: Pool, source: str, kind: str, words: str) -> None:
    (trial,) = trials(pool, data(source, 1))
    assert trial["kind"] == kind, trial
    assert words in trial["detail"]


def test_a_result_says_where_and_what(pool: Pool) -> None:
    first, second = trials(pool, data("def f(x):\n    y = 1\n    return y / x", 2, 0))
    assert loads(first["output"]) == 0.5
    assert (second["error"], second["line"]) == ("ZeroDivisionError", 3)
    assert first["rss_bytes"] > 1 << 20
    assert first["start_s"] > 0


def test_a_costly_sample_stops_the_job_or_does_not(pool: Pool) -> None:
    source = "def f(x):\n    while x: pass\n    return x"
    assert kinds(pool, data(source, 0, 1, 0)) == ["passed", "timeout", "not_run"]
    assert kinds(pool, data(source, 0, 1, 0, 1, stop=False)) == [
        *("passed", "timeout", "passed", "timeout")
    ]


def test_every_sample_has_its_own_cpu_time(pool: Pool) -> None:
    source = "import time\ndef f(x):\n  t = time.process_time()\n  while time.process_time() < t + x: pass"
    assert kinds(pool, data(source, *[0.2] * 4)) == ["passed"] * 4


def test_cpu_time_decides(pool: Pool) -> None:
    (trial,) = trials(pool, data("def f(x):\n    while True: pass", 1))
    assert 0.3 <= trial["cpu_s"] < 0.4


# -- checks in a process of their own ----------------------------------------------------------

SPLIT = {
    "honest": ("def f(x): return x + 1", "passed"),
    "wrong": ("def f(x): return 2", "wrong"),
    "raises": ("def f(x):\n    raise KeyError(x)", "exception"),
    "agrees with all": ("class E:\n  def __eq__(s, o): return True\ndef f(x): return E()", "invalid_output"),
    "an int that agrees": ("class E(int):\n  def __eq__(s, o): return True\ndef f(x): return E(9)", "wrong"),
    "sys.exit": ("import sys\ndef f(x): sys.exit(0)", "exception"),
    "os._exit": ("import os\ndef f(x): os._exit(0)", "crash"),
    "exits at once": ("import os\nos._exit(0)", "crash"),
    "frames": ("import sys, os\ndef f(x):\n  g = sys._getframe()\n  while g:\n    g.f_globals['check'] = print\n"
               "    g = g.f_back\n  raise SystemExit", "exception"),
    "forged verdict": ("import os\ndef f(x):\n  for i in range(3, 32):\n    try: os.write(i, b'{\"checked\":"
                       "{\"kind\":\"passed\"}}\\n')\n    except OSError: pass\n  return 0", "invalid_output"),
    "forged answers": ("import os\nfor i in range(3, 32):\n  try: os.write(i, b'{\"call\":1,\"value\":3}\\n')\n"
                       "  except OSError: pass\ndef f(x): return 0", "wrong"),
    "silent": ("import time\ndef f(x): time.sleep(99)", "timeout"),
    "memory": ("def f(x): return bytearray(1 << 40)", "memory"),
    "flood": ("def f(x): return 'a' * (3 << 20)", "output_limit"),
    "deep": ("def f(x):\n  y = []\n  for _ in range(9999): y = [y]\n  return y", "invalid_output"),
    "unread": ("def f(:", "syntax"),
    "nothing": ("pass", "exception"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPLIT)
def test_cheats_do_not_pass_split_checks(pool: Pool, name: str) -> None:
    source, kind = SPLIT[name]
    (trial,) = trials(pool, split(source))
    assert trial["kind"] == kind, trial


def test_expected_values_are_not_in_the_candidates_process(pool: Pool) -> None:
    """It looks through every container it can reach for a text that holds the answer."""
    source = (
        "import gc\n"
        "def f(x):\n"
        "  secret = '-'.join(['sekrit', 'answer'])\n"
        "  for o in gc.get_objects():\n"
        "    if type(o) in (list, dict, tuple, set):\n"
        "      for part in list(o.values() if type(o) is dict else o):\n"
        "        if type(part) is str and secret in part: return 'found'\n"
        "  return 'not found'\n"
    )
    checks = "def check(f):\n    assert f(1) == 'not found'\n    x = ['sekrit-answer']\n"
    assert kinds(pool, split(source, checks)) == ["passed"]
    assert kinds(pool, split("X = ['sekrit-answer']\n" + source, checks)) == ["wrong"]


def test_what_was_sent_before_an_engine_was_ready_is_in_no_program() -> None:
    """Jobs are queued while an engine starts; its zygotes must not be forked with them."""
    source = (
        "import sys\n"
        "def texts():\n"
        "  frame = sys._getframe()\n"
        "  while frame:\n"
        "    for value in list(frame.f_locals.values()):\n"
        "      for part in [value, *getattr(value, '__dict__', {}).values()]:\n"
        "        if type(part) in (bytes, bytearray): yield bytes(part)\n"
        "    frame = frame.f_back\n"
        "def f(x): return any(b'sekrit' + b'-answer' in text for text in texts())\n"
    )
    checks = "def check(f):\n    assert f(1) is False, 'sekrit-answer'\n"
    with Pool(1, Setup(best_level().value)) as pool:
        jobs = [replace(split(source, checks), id=i) for i in range(8)]
        assert [reply.trials[0]["kind"] for _, reply in pool.run(jobs)] == ["passed"] * 8


ALONE = {
    "library": ("def f(x): return x", "import queue, sched, shlex\ndef check(f):\n    assert f(1) == 1"),
    "no calls": ("def f(x): return x", "def check(f):\n    f(lambda: 1)"),
    "printing": ("def f(x): return 'a' * 300000", "def check(f):\n    print(f(1))"),
    "memory": ("def f(x): return chr(128512) + 'a' * 1000000",
               "out = [f(i) for i in range(40)]\ndef ok(): assert len(out) == 40\nok()"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALONE)
def test_checks_are_served_as_if_each_were_alone(name: str) -> None:
    """What one job uses up of descriptors, output or memory is not missed by the next ones."""
    source, checks = ALONE[name]
    limits = asdict(Limits(cpu_s=5.0))
    with Pool(1, Setup(best_level().value)) as pool:
        job = replace(split(source, checks), limits=limits, calls_check="check" in checks)
        found = [reply.trials[0] for _, reply in pool.run([replace(job, id=i) for i in range(6)])]
        assert pool.work.replaced == 0
    assert {t["kind"] for t in found} == {"not_run" if name == "no calls" else "passed"}, found


def test_checks_that_run_out_of_memory_say_so_and_the_next_ones_do_not(pool: Pool) -> None:
    greedy = split("def f(x): return 1", "def check(f):\n    [f(1)] * (1 << 40)")
    jobs = [
        replace(job, id=i) for i, job in enumerate([greedy, split("def f(x): return x + 1")] * 2)
    ]
    found = {ticket.job.id: reply.trials[0]["kind"] for ticket, reply in pool.run(jobs)}
    assert [found[i] for i in range(4)] == ["memory", "passed"] * 2


def test_checks_may_expect_errors_and_use_the_prompt(pool: Pool) -> None:
    prompt = "def twice(x):\n    return 2 * x\n"
    checks = (
        "def check(f):\n    assert f(3) == twice(3)\n    try:\n        f('a')\n"
        "    except ValueError as e:\n        assert str(e) == 'no'\n    else:\n        assert False\n"
    )
    source = "def f(x):\n    if x == 'a': raise ValueError('no')\n    return x + x"
    assert kinds(pool, split(source, checks, prompt)) == ["passed"]


AHEAD = (
    "import os\n"
    "os.write(6, b''.join(b'{\"call\":%d,\"value\":%d}\\n' % (k, k + 1) for k in range(1, 99)))\n"
    "def f(x): return 0"
)
"""Answers right before it is asked, and more than it will be asked; 6 is where answers go."""
AFTER_EACH_OTHER = {
    "def f(x): return x + 1": "passed", "def f(x): return 0": "wrong", AHEAD: "passed",
    "def f(x): return None": "wrong", "import os\ndef f(x): os._exit(0)": "crash",
    "def f(x):\n  while True: pass": "timeout", "def f(:": "syntax",
    "def f(x): return 'a' * (3 << 20)": "output_limit", "def f(x): return f": "invalid_output",
}  # fmt: skip


def test_checks_serve_one_program_after_the_other() -> None:
    """Each as if it were alone, whatever the one before it did: their process stays for some."""
    sources = [s for s in AFTER_EACH_OTHER for _ in range(2)] + list(AFTER_EACH_OTHER)
    endless = replace(split("def f(x): return x", "def check(f):\n  while True: pass"), id=99)
    with nothing_left(), Pool(1, Setup(best_level().value)) as pool:
        jobs = [replace(split(source), id=i) for i, source in enumerate(sources)]
        replies = {t.job.id: r.trials[0] for t, r in pool.run([jobs[0], endless, *jobs[1:]])}
        assert pool.work.replaced == 0
    assert [replies[job.id]["kind"] for job in jobs] == [AFTER_EACH_OTHER[s] for s in sources]
    assert replies[99]["kind"] == "timeout"


def test_checks_begin_alike_and_their_process_stays_for_some() -> None:
    checks = (
        "import os, random\ndef check(f):\n    assert 'old' not in globals()\n    globals()['old'] = 1\n"
        "    assert False, (os.getpid(), random.random(), f(1))\n"
    )
    with Pool(1, Setup(best_level().value)) as pool:
        jobs = [replace(split("def f(x): return x", checks), id=i) for i in range(SHIFT + 1)]
        said = [reply.trials[0]["detail"].split(": ")[1] for _, reply in pool.run(jobs)]
    assert len(set(said[:SHIFT])) == 1
    assert len({text.split(",")[0] for text in said}) == 2
    assert len({text.split(",", 1)[1] for text in said}) == 1


def test_checks_that_send_a_function_are_not_run(pool: Pool) -> None:
    (trial,) = trials(pool, split("def f(x): return 1", "def check(f):\n    f(lambda: 1)\n"))
    assert trial["kind"] == "not_run"


def test_programs_leave_nothing_for_the_next_one(pool: Pool) -> None:
    mark = "import math\ndef f(x):\n  old = getattr(math, 'mark', 0)\n  math.mark = 1\n  return old"
    for _ in range(2):
        (trial,) = trials(pool, data(mark, 1))
        assert loads(trial["output"]) == 0


def test_the_environment_is_empty_and_descriptors_are_closed(pool: Pool) -> None:
    source = (
        "import os\ndef f(x):\n  n = 0\n  for i in range(32):\n    try: os.fstat(i); n += 1\n"
        "    except OSError: pass\n  return dict(os.environ), n, os.environ.get('PATH')"
    )
    (trial,) = trials(pool, data(source, 1))
    assert loads(trial["output"]) == ({}, 4, None)  # input, output, error, result


def test_the_same_random_numbers_and_hashes_each_time() -> None:
    source = (
        "import random\ndef f(x): return random.random(), hash('a'), list({'a', 'b', 'c', 'd'})"
    )
    seen = []
    for _ in range(2):
        with Pool(1, Setup(best_level().value)) as pool:
            seen.append(trials(pool, data(source, 1))[0]["output"])
    assert seen[0] == seen[1]


# -- isolation --------------------------------------------------------------------------------


@strict
def test_the_self_test_reaches_strict_and_nothing_gets_out() -> None:
    with nothing_left():
        found = selftest()
    assert found.level is Level.STRICT
    assert found.holes(Level.STRICT) == []
    assert [name for name, word in found.attempts.items() if word == "done"] == []


@strict
def test_system_calls_are_denied_without_landlock_too() -> None:
    assert selftest(Level.SECCOMP, Level.SECCOMP).holes(Level.SECCOMP) == []


def test_the_self_test_sees_holes() -> None:
    """The weakest level must fail what only a stronger one denies, or the test tests nothing."""
    found = selftest(Level.LIMITS, Level.LIMITS)
    assert {"open a socket", "list the root"} <= set(found.holes(Level.STRICT))
    assert found.holes(Level.LIMITS) == []


def test_a_level_that_is_not_reached_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "best_level", lambda: Level.LIMITS)
    with pytest.raises(SandboxError, match=r"'strict' was asked for.*--isolation limits"):
        selftest(Level.STRICT)
    assert selftest(Level.LIMITS).level is Level.LIMITS


def test_children_of_children_die_too() -> None:
    """Where forks are not denied, what a program left behind is killed before the next one."""
    if os.getuid() != 0:
        pytest.skip("an ordinary user's programs may have no processes at all")
    source = (
        "import os, time\ndef f(x):\n  for _ in range(3):\n    if not os.fork():\n"
        "      os.setsid()\n      os.fork()\n      time.sleep(15)\n      os._exit(0)\n  return 1"
    )
    with nothing_left(), Pool(1, Setup(Level.LIMITS.value)) as pool:
        assert kinds(pool, data(source, 1)) == ["passed"]
        engine = pool.engines[0].process.pid
        assert len(descendants(engine)) == 2  # its zygotes
        assert kinds(pool, data("def f(x): return 2", 1)) == ["passed"]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_allow_list_is_that_of_the_kernels_headers(machine: str) -> None:
    header = Path(
        "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"
        if machine == "x86_64"
        else "/usr/include/asm-generic/unistd.h"
    )
    if not header.is_file():
        pytest.skip("no kernel headers here")
    known = {}
    for line in header.read_text().splitlines():
        if line.startswith("#define __NR") and len(line.split()) == 3:
            name, number = line.split()[1:]
            if number.isdecimal():
                known[name.removeprefix("__NR3264_").removeprefix("__NR_")] = int(number)
    known.setdefault("newfstatat", known.get("fstatat", -1))
    for name, numbers in (CALLS | UNSEEN).items():
        assert getattr(numbers, machine) in (known.get(name), None)
    assert len(allow_list(machine, 1)) % 8 == 0


# -- engines ----------------------------------------------------------------------------------


def test_killing_engines_and_zygotes_loses_and_doubles_nothing() -> None:
    rng, jobs = random.Random(3), 60
    sources = [
        Job(i, f"def f(x): return {i}", ("f",), LIMITS, (encode((1,)),)) for i in range(jobs)
    ]
    seen: dict[int, Reply] = {}
    with nothing_left(), Pool(2, Setup(best_level().value)) as pool:
        for ticket, reply in pool.run(sources):
            assert ticket.job.id not in seen
            seen[ticket.job.id] = reply
            if len(seen) % 12 == 6:
                engine = rng.choice(pool.engines).process.pid
                os.kill(rng.choice([engine, *children(engine)]), signal.SIGKILL)
        assert pool.work.replaced >= 1
    assert sorted(seen) == list(range(jobs))
    for i, reply in seen.items():
        assert reply.fault or [loads(t["output"]) for t in reply.trials if t.get("output")] == [i]
    assert sum(not reply.fault for reply in seen.values()) >= jobs - 5


def test_an_engine_whose_driver_is_gone_leaves_nothing() -> None:
    pid = os.fork()
    if pid == 0:
        try:
            pool = Pool(1, Setup(best_level().value))
            busy = Job(0, DATA["timeout"], ("f",), LIMITS | {"cpu_s": 60.0}, (encode((1,)),))
            next(pool.run([data("def f(x): return 1", 1)]))
            for _ in pool.run([busy]):
                pass
        finally:
            os._exit(1)
    until = time.monotonic() + 20
    while len(family := descendants(pid)) < 4 and time.monotonic() < until:
        time.sleep(0.02)
    assert len(family) == 4  # engine, zygotes, the program
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while any(Path(f"/proc/{x}").exists() for x in family) and time.monotonic() < until:
        time.sleep(0.02)
    assert [x for x in family if Path(f"/proc/{x}").exists()] == []


def test_a_library_is_preloaded_and_a_broken_one_says_so(tmp_path: Path) -> None:
    (tmp_path / "constants.py").write_text("ONE = 1\n")
    library = tmp_path / "dsl.py"
    library.write_text("from constants import *\ndef add(a, b): return a + b\n")
    with Pool(1, Setup(best_level().value, (str(library),))) as pool:
        (trial,) = trials(pool, data("from dsl import *\ndef f(x): return add(x, ONE)", 4))
        assert loads(trial["output"]) == 5
    library.write_text("1 / 0")
    with (
        pytest.raises(SandboxError, match="ZeroDivisionError"),
        Pool(1, Setup(best_level().value, (str(library),))) as pool,
    ):
        trials(pool, data("def f(x): return 1", 1))


def test_limits_have_bounds() -> None:
    with pytest.raises(ConfigError, match="cpu_s must be at least"):
        Limits(cpu_s=0)
