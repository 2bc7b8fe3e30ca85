"""Who runs what and when: jobs divided by sample, small ones ahead, long ones alone."""

# ruff: noqa: E501  (programs as data)

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest

from floodstage.core.spans import Spans
from floodstage.programs.sandbox.engines import STUCK_S
from floodstage.programs.sandbox.limits import Limits
from floodstage.programs.sandbox.lockdown import best_level
from floodstage.programs.sandbox.pool import FEWEST, Pool
from floodstage.programs.sandbox.tickets import Ticket, Whole
from floodstage.programs.sandbox.values import encode
from floodstage.programs.sandbox.wire import Job, Reply, Setup
from floodstage.programs.stages.memory import forgets

LIMITS = asdict(Limits(cpu_s=0.5, idle_s=2.0))
BUSY = (
    "import time\ndef f(x):\n  t = time.process_time()\n"
    "  while time.process_time() < t + abs(x): pass\n  return x / (x > -1)"
)
"""Computes for so many seconds; below -1 that is more than the limit."""
SETUP = Setup(best_level().value)


def job(number: int, source: str, *inputs: Any, **more: Any) -> Job:
    return Job(number, source, ("f",), LIMITS, tuple(encode((x,)) for x in inputs), **more)


def told(reply: Reply) -> list[tuple[Any, ...]]:
    """What does not depend on time."""
    assert reply.fault == ""
    return [(t["kind"], t.get("output"), t.get("error"), t["detail"]) for t in reply.trials]


@pytest.fixture(scope="module")
def pools() -> Iterator[tuple[Pool, Pool]]:
    with Pool(1, SETUP) as one, Pool(2, SETUP) as two:
        yield one, two


SAMPLES = {
    "long": [0.15, 0.15, 0.15, 0.15],
    "long in the middle": [0, 0, 0.2, 0, 0.2, 0],
    "a costly one": [0.15, 0.15, -2, 0.15, 0.15],
    "a costly one first": [-2, 0.15, 0.15],
    "two costly ones": [0.15, -2, 0, -2, 0],
    "many": [0.03] * 12,
    "parts that are divided again": [0.03, 0.03, 0.03, 0.03, 0.2, 0.21, 0.22, 0.23],
    "errors": [0.15, -1, 0.15, -1],
}


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_divided_job_comes_to_what_a_whole_one_does(
    pools: tuple[Pool, Pool], name: str, stop: bool
) -> None:
    one, two = pools
    before = two.work.parts
    given = job(7, BUSY, *SAMPLES[name], apart=True, stop=stop)
    found = []
    for pool, sent in ((one, replace(given, apart=False)), (two, given)):
        ((ticket, reply),) = pool.run([sent])
        assert (ticket.job.id, reply.id) == (7, 7)
        assert ticket.attempts == 1
        found.append(told(reply))
    assert found[0] == found[1]
    assert two.work.parts > before or (stop and SAMPLES[name][0] == -2)
    assert one.work.parts == 0


def test_a_part_that_is_divided_again_keeps_its_place() -> None:
    whole = Whole(Ticket(job(3, "", *range(8), apart=True)))
    trials = [{"kind": "passed", "output": str(i)} for i in range(8)]
    first = whole.take(whole.ticket, Reply(3, trials[:4], 0.0, 0.16), 2)
    assert [(t.first, len(t.job.inputs)) for t in first] == [(4, 2), (6, 2)]
    assert whole.take(first[0], Reply(3, trials[4:6], 0.0, 0.08), 2) == []
    (last,) = whole.take(first[1], Reply(3, trials[6:7], 0.0, 0.2), 2)
    assert (last.first, last.job.inputs) == (7, (encode((7,)),))
    assert whole.reply() is None
    assert whole.take(last, Reply(3, trials[7:], 0.0, 0.2), 2) == []
    joined = whole.reply()
    assert joined is not None
    assert joined.trials == trials
    assert whole.reply() is None


def test_the_samples_of_a_divided_job_run_side_by_side() -> None:
    spans = Spans(keep_events=True)
    with Pool(2, SETUP, spans) as pool:
        next(pool.run([job(0, BUSY, 0)]))
        ((_, reply),) = pool.run([job(1, BUSY, *[0.2] * 6, apart=True)])
    assert [t["kind"] for t in reply.trials] == ["passed"] * 6
    assert spans.events is not None
    long = [e for e in spans.events if e.track.startswith("engine") and e.seconds > 0.15]
    assert {e.track for e in long} == {"engine 1", "engine 2"}
    ours = [[e for e in long if e.track == track] for track in ("engine 1", "engine 2")]
    assert all(len(each) >= 2 for each in ours)
    assert any(
        a.start_s < b.start_s + b.seconds and b.start_s < a.start_s + a.seconds
        for a in ours[0]
        for b in ours[1]
    )


def test_a_long_part_is_alone_with_its_engine() -> None:
    """Nothing small waits behind what is known to take long."""
    seen = []
    with Pool(2, SETUP) as pool:
        for _ in pool.run(
            [job(0, BUSY, *[0.15] * 5, apart=True), *(job(i, BUSY, 0) for i in range(1, 150))]
        ):
            seen += [[t.heavy for t in engine.tickets] for engine in pool.engines]
    assert any(True in each for each in seen)
    assert all(len(each) == 1 for each in seen if True in each)


def test_small_jobs_go_out_several_at_a_time_and_each_comes_back_once() -> None:
    most = 0
    ids = []
    with Pool(2, SETUP) as pool:
        pool.mean_s = 1e-3  # as after some that took no longer
        for ticket, reply in pool.run(job(i, "def f(x): return x", i) for i in range(150)):
            ids.append(ticket.job.id)
            assert told(reply)[0][1] == str(ticket.job.id)
            most = max(most, *(len(engine.tickets) for engine in pool.engines))
    assert sorted(ids) == list(range(150))
    assert most > FEWEST


def test_jobs_behind_a_long_one_go_to_who_is_free() -> None:
    with Pool(2, SETUP) as pool:
        for _ in pool.run(job(i, BUSY, 0) for i in range(2)):
            pass
        pool.mean_s = 1e-3  # as after many small jobs: an engine gets several
        jobs = [job(0, BUSY, 0.45), *(job(i, BUSY, 0) for i in range(1, 12))]
        order = [ticket.job.id for ticket, _ in pool.run(jobs)]
        assert order[-1] == 0
        assert sorted(order) == list(range(12))
        assert pool.work.taken_back >= 1


def runs(spans: Spans) -> int:
    """How many jobs engines have run."""
    return sum(event.name.startswith("job") for event in spans.events or ())


def test_a_reply_that_comes_too_late_is_left_aside() -> None:
    """A job is taken back while it runs: it runs twice and counts once."""
    spans = Spans(keep_events=True)
    with Pool(2, SETUP, spans) as pool:
        for _ in pool.run(job(i, BUSY, 0) for i in range(2)):
            pass
        pool.submit(job(5, BUSY, 0.3))
        until = time.monotonic() + 0.1
        while time.monotonic() < until:  # it runs by then
            assert list(pool.step(0.02)) == []
        (busy,) = [engine for engine in pool.engines if engine.tickets]
        (ticket,) = busy.tickets
        busy.take_back([ticket])
        pool._watch(busy)
        pool.waiting.append(ticket)
        found = []
        until = time.monotonic() + 20
        while time.monotonic() < until and runs(spans) < 4:
            found += [t.job.id for t, _ in pool.step(0.2)]
        assert found == [5]
        assert runs(spans) == 4  # it did run twice


def test_the_times_of_a_job_add_up() -> None:
    """Queue, engine and reply are all there is between the driver's two moments."""
    with Pool(1, SETUP) as pool:
        for _ in pool.run([job(0, BUSY, 0)]):
            pass
        for ticket, reply in pool.run(job(i, BUSY, 0.02) for i in range(12)):
            whole_s = time.monotonic() - ticket.sent_s
            told_s = ticket.queue_s + reply.busy_s + ticket.reply_s
            assert 0.0 <= whole_s - told_s < 0.02
            trial = reply.trials[0]
            assert 0.0 < trial["start_s"] + trial["run_s"] <= reply.busy_s + 1e-6
        assert ticket.queue_s > STUCK_S  # it waited behind another


def test_what_engines_did_fills_their_lives() -> None:
    began_s = time.monotonic()
    with Pool(2, SETUP) as pool:
        for _ in pool.run(job(i, BUSY, 0.05) for i in range(8)):
            pass
        pool.close()
    lived_s, work = time.monotonic() - began_s, pool.work
    assert work.busy_s >= 8 * 0.05
    assert work.busy_s + work.idle_s + work.starting_s + work.lost_s <= 2 * lived_s
    assert work.busy_s + work.idle_s + work.starting_s > lived_s
    assert (work.engines, work.workers, work.replaced) == (2, 2, 0)


def test_killing_is_timed() -> None:
    with Pool(1, SETUP) as pool:
        for _ in pool.run([job(0, BUSY, -2)]):
            pass
    assert 0.0 < pool.work.killing_s < pool.work.busy_s


FORGETS = {
    "def solve(I):\n    out = []\n    for r in I: out.append(r)\n    return out": True,
    "import math\nfrom collections import Counter\nN = (1, -2)\ndef solve(I, k=3): return Counter(I)": True,
    "def solve(I):\n    seen = {}\n    def g(x, m=[]): m.append(x)\n    g(1)\n    return I": True,
    "N = []\ndef solve(I): return N": False,
    "def solve(I):\n    global N\n    N = 1": False,
    "def solve(I, seen=[]): return seen": False,
    "def solve(I):\n    solve.n = 1": False,
    "import math\ndef solve(I):\n    math.pi = 3": False,
    "import random\ndef solve(I): return random.random()": False,
    "from functools import cache\n@cache\ndef solve(I): return I": False,
    "class A: seen = []\ndef solve(I): return A.seen": False,
    "def solve(I):\n    return solve.__dict__": False,
    "def solve(I): return globals()": False,
    "def solve(I): return setattr(solve, 'n', 1)": False,
    "def solve(I):\n    import sys\n    return sys.modules": False,
    "from .x import y\ndef solve(I): return I": False,
    "def solve(I): return I\nsolve([])": False,
}  # fmt: skip


@pytest.mark.parametrize("source", FORGETS, ids=range(len(FORGETS)))
def test_programs_that_may_remember_are_known(source: str) -> None:
    assert forgets(ast.parse(source), {}) is FORGETS[source]
