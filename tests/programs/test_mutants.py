"""Planted bugs: each one, alone, must make the tests that guard it fail."""

# ruff: noqa: E501  (code as data)

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MUTANTS = {
    "signals go anywhere": ("sandbox/seccomp.py", "_for(KILL[index], _one_of(0, (pid,)))",
                            "_for(KILL[index], [(RETURN, 0, 0, ALLOW)])", "self_test_reaches"),
    "files open to write": ("sandbox/seccomp.py", "_for(OPENAT[index], _without(2, WRITING))",
                            "_for(OPENAT[index], _without(2, 0))", "without_landlock"),
    "no Landlock": ("sandbox/lockdown.py", "kernel.landlock_restrict(rules)", "pass",
                    "self_test_reaches"),
    "the environment stays": ("sandbox/engine.py", "os.environ.clear()", "pass", "environment_is"),
    "descriptors stay open": ("sandbox/zygote.py", "os.closerange(end, 1 << 16)", "pass",
                              "environment_is"),
    "leftovers live": ("sandbox/family.py", "os.kill(left, signal.SIGKILL)", "return",
                       "children_of_children"),
    "cheats keep their type": ("sandbox/values.py", "list.__iter__(value)", "iter(value)",
                               "subclasses_become"),
    "checks in the candidate": ("sandbox/jobs.py", 'pack({"source": job.source, "entries": job.entries})\n    judge',
                                'pack({"source": job.source + "\\nX = " + repr([job.checks]), "entries": job.entries})\n'
                                "    judge", "expected_values_are_not"),
    "checks share random numbers": ("sandbox/checks.py", "random.seed(0)", "pass", "begin_alike"),
    "checks share their names": ("sandbox/checks.py", 'space: dict[str, Any] = {"__name__": "checks"}',
                                 'space: dict[str, Any] = globals()', "begin_alike"),
    "checks outlive their trouble": ("sandbox/checker.py", "ward.ended is not None or ward.killed_s is not None", "False", "one_program_after"),
    "jobs are read before the fork": ("sandbox/engine.py", "unpack(frames.first(), Setup)",
                                      "unpack(frames.next(), Setup)", "before_an_engine_was_ready"),
    "too few descriptors": ("sandbox/lockdown.py", "OPEN_FILES = 64", "OPEN_FILES = 32", "as_if_each and library"),
    "what is printed adds up": ("sandbox/checker.py", "ward.printed_bytes = 0", "pass", "as_if_each and printing"),
    "killed before it is ready": ("sandbox/jobs.py", "told and candidate.ready_s is not None and", "told and",
                                  "as_if_each"),
    "one pipe for all answers": ("sandbox/checker.py", "self.ends.append((asked, answering))",
                                 "self.ends.append((asked, answering) if len(self.ends) != 3 else self.ends[0])",
                                 "one_program_after"),
    "output without end": ("sandbox/ward.py", "if self.printed_bytes > self.limits.output_bytes:", "if False:",
                           "output_limit"),
    "answers without end": ("sandbox/candidate.py", "if self.most_bytes is not None and", "if False and",
                            "cheats_do_not_pass and flood"),
    "jobs lost with an engine": ("sandbox/pool.py", "self.waiting.appendleft(ticket)",
                                 "pass", "killing_engines"),
    "children outlive their zygote": ("sandbox/lockdown.py", "kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)",
                                      "pass", "killed_engine"),
    "the CPU clock is not looked at": ("sandbox/watch.py", 'ward.kill("cpu")', "pass", "cpu_time_decides"),
    "idleness is not looked at": ("sandbox/watch.py", 'ward.kill("idle")', "pass", "endings_say_why and sleep"),
    "random numbers differ": ("sandbox/zygote.py", "random.seed(0)", "pass", "same_random"),
    "any grid will do": ("judge.py", "if same_grid(value, sample.expected)", "if True", "grids_are_judged"),
    "tests rank": ("store/outputs.py", "(verdict.demo_passed, size_of", "(verdict.test_passed, size_of",
                   "submission_ranks"),
    "pass@k is biased": ("store/outputs.py", "miss *= 1.0 - k / i", "miss *= 1.0 - right / n", "pass_at_k"),
    "resumed runs run all": ("validate.py", "known[candidate.id] == candidate.digest", "False", "goes_on_and"),
    "keywords are dropped": ("stages/graph.py", "[ast.keyword(k.arg, self.value(k.value)) for k in node.keywords]",
                             "[]", "form_behaves or may_differ"),
    "iterators are shared": ("stages/graph.py", 'if _one_shot(node):\n            raise unsafe',
                             'if False:\n            raise unsafe', "cannot_be_proven"),
    "dead code disappears": ("stages/graph.py", "case ast.Expr(value=value):\n                    self.value(value)",
                             "case ast.Expr(value=value):\n                    pass", "form_behaves"),
    "test samples rank likeness": ("judge.py", 'if s.part == "demo"]', "]", "means_of_its_demo"),
    "likeness forgets the size": ("scores.py", "equal / (len(one) * len(one[0]) + len(two) * len(two[0]) - common)",
                                  "equal / common", "scores_of_pairs"),
    "all grids are scored": ("judge.py", "        return dict.fromkeys(SCORERS, 1.0)\n", "        pass\n",
                             "each_runs_once"),
    "mutants repeat": ("mutate.py", "new = form not in self.keys", "new = True", "none_is_like_another"),
    "mutants have no seed": ("mutate.py", "Random(self.seed)", "Random()", "seed_fixes"),
    "mutants say no parent": ("mutate.py", "parent.id, parent.digest, tuple", "parent.id, parent.id, tuple",
                              "each_says_its_parent"),
    "a hopeless parent is tried for ever": ("mutate.py", "elif misses[which] < ATTEMPTS:", "else:", "few_mutants_ends"),
    "test answers keep programs": ("store/upkeep.py", "demo_only=True", "demo_only=False", "best_are_kept"),
    "likeness keeps nothing": ("store/export.py", "-self.score, -self.cells,", "-self.score,", "best_are_kept"),
    "old programs stay": ("store/store.py", '"DELETE FROM sources WHERE digest NOT IN (SELECT digest FROM verdicts)"',
                          '"SELECT 1"', "of_no_verdict"),
    "outputs are not compared": ("store/compare.py", "what = what or _outputs(first, before, second, after)", "pass",
                                 "does_not_come_again"),
    "the function's name is lost": ("store/store.py", "candidate.origin, candidate.entry)", "candidate.origin, None)",
                                    "own_name_is_kept"),
    "other tasks are run again": ("verify.py", "Store(run, identity)", "Store(run)", "refused_before"),
    "the cache stays": ("validate.py", "store.done() if config.cached else {}", "store.done()", "without_cache"),
    "parts are mixed": ("inputs/tasks.py", "tuple(sample for sample in task.samples if sample.part == part)",
                        "task.samples", "one_part_alone"),
    "columns are mixed": ("store/parquet.py", "ORDER BY place, sample", "ORDER BY sample, place", "parquet_holds"),
    "the library turns back": ("gallery/grids.py", "return transpose(flip_rows(grid))", "return flip_rows(transpose(grid))",
                               "whatever_the_seed"),
    "a divided job is joined wrongly": ("sandbox/tickets.py", "first=part.first + at", "first=at", "divided"),
    "samples after a costly one count": ("sandbox/tickets.py", "return known[costly] + 1",
                                         "return len(self.ticket.job.inputs)", "divided"),
    "programs that remember are divided": ("stages/memory.py", "case ast.Global() | ast.Nonlocal():\n            return True",
                                           "case ast.Global() | ast.Nonlocal():\n            return False", "remember"),
    "nothing is taken back": ("sandbox/pool.py", "engine.take_back(behind)", "continue", "behind_a_long_one"),
    "late replies count": ("sandbox/pool.py", "if ticket is None:  # it was taken back, too late",
                           "if ticket is None:\n            yield Ticket(Job(5, '', (), {})), reply\n"
                           "        if ticket is None:", "comes_too_late"),
    "waiting is work": ("profile.py", 'if row.path == ("workers", "busy")', 'if row.path == ("programs", "queue")', "latency"),
    "verdicts need not be the same": ("profile.py", "if run.digest != baseline.digest:", "if False:", "never_measured"),
    "a run from the store is fast": ("profile.py", "if not each.fresh:", "if False:", "never_measured"),
    "grandchildren outlive their engine": ("sandbox/engines.py", "sweep_marked(self.mark)", "pass", "outlive"),
    "grandchildren outlive their driver": ("sandbox/engine.py", "sweep()\n    os._exit", "os._exit", "outlive"),
    "late names are early": ("stages/graph.py", "self.stores[part.id] > 1", "False", "cannot_be_proven"),
}  # fmt: skip
"""What is planted: a file of programs/, the right text, the wrong text, and the tests that see it."""


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str, tmp_path: Path) -> None:
    file, right, wrong, guards = MUTANTS[name]
    for part in ("src", "tests/programs"):
        ignored = shutil.ignore_patterns("__pycache__", "assets")
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "src/floodstage/programs" / file
    text = path.read_text()
    assert text.count(right) >= 1
    path.write_text(text.replace(right, wrong))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", guards),
            *("-m", "not slow", "--timeout", "20", "tests/programs"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 1, done.stdout[-2000:]  # tests ran and one failed
