"""Equal forms behave alike, a form behaves like its program, and the work is linear."""

from __future__ import annotations

import ast
import json
import random
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from floodstage.core.spans import Spans
from floodstage.programs.records import Candidate, Kind
from floodstage.programs.stages.graph import _call_text
from floodstage.programs.stages.normal import Form, Unreadable, normal_form, parse
from floodstage.programs.stages.prepare import prepare
from floodstage.programs.stages.purity import library_names, nodes

LIBRARY = """
def add(a, b): CALLS.append("add"); return a + b
def twice(f, x): return f(f(x))
def objects(grid, colour=0, sort=False): CALLS.append("objects"); return (grid, colour, sort)
ZERO = 0
"""
LIBRARIES = {"dsl": library_names(LIBRARY)}


def form(source: str) -> Form:
    return normal_form(source, parse(source), LIBRARIES)


def run(source: str, *args: Any) -> tuple[Any, int]:
    """What `solve` gives or raises, and how often it called the library."""
    calls: list[str] = []
    space: dict[str, Any] = {"CALLS": calls}
    exec(LIBRARY, space)
    source = source.replace("from dsl import *", "")
    try:
        exec(source, space)
        return space["solve"](*args), len(calls)
    except Exception as error:
        return (type(error), str(error)), len(calls)


SHARED = {
    "nesting": "def solve(I):\n  a = add(I, I)\n  b = add(add(I, I), a)\n  return add(b, b)",
    "keywords": "def solve(I):\n  x = objects(grid=I, sort=True)\n  return objects(x, colour=2)",
    "strings": "def solve(I):\n  x = 'a b'.split(' ')\n  return (x, 'it\\'s', str(I))",
    "branches": "def solve(I):\n  a = add(I, 1)\n  return add(a, 2) if I > 3 else 1 / ZERO",
    "lambdas": "def solve(I):\n  k = add(I, 1)\n  f = lambda x: add(x, k)\n  return twice(f, f(I))",
    "loops": "def solve(n):\n  return sum(i * n for i in range(n)), [j for j in (1, n)]",
    "zips": "def solve(I):\n  return tuple(a + b for a, b in zip((1, I), (I, 2)))",
    "dead": "def solve(I):\n  1 / ZERO\n  return I",
    "again": "def solve(I):\n  I = add(I, 1)\n  I = add(I, 1)\n  return I",
    "unread": "def solve(I):\n  x = add(I, 'a')\n  return 3",
    "constants": "def solve(I):\n  return (1, True, 1.0, -1, -0.0, 0.0, 'a', b'a', None, (), ...)",
    "slices": "def solve(I):\n  x = (I, 2, 3)\n  return x[1:], x[::-1], x[-1], x[I]",
    "helper": "def half(n):\n  return n // 2\ndef solve(I):\n  return half(half(I))",
    "method": "def solve(I):\n  return I.count(1 / ZERO)",
    "chain": "def solve(I):\n  return 3 < I < 1 / ZERO",
    "nodes": "def solve(v1):\n  v0 = add(v1, 1)\n  v1 = add(v0, v1)\n  return v1, v0",
}  # fmt: skip


@pytest.mark.parametrize("name", SHARED)
def test_a_form_behaves_like_its_program(name: str) -> None:
    source = "from dsl import *\n" + SHARED[name]
    found = form(source)
    assert found.reason == ""
    for value in (0, 1, 5):
        (raw, calls), (normal, fewer) = run(source, value), run(found.text, value)
        assert repr(raw) == repr(normal)
        assert fewer <= calls
    assert form(found.text).text == found.text  # a form's form is itself


RAW = {
    "loop": ("def solve(I):\n  for x in I: pass\n  return I", "line 2: a For"),
    "branch": ("def solve(I):\n  if I: return 1\n  return 2", "line 2: a If"),
    "augmented": ("def solve(I):\n  x = [I]\n  x += [1]\n  return x", "line 3: a AugAssign"),
    "mutates": ("def solve(I):\n  x = [I]\n  x.append(1)\n  return x", "line 3: .append"),
    "method kept": ("def solve(I):\n  f = [].append\n  return f(1)", "line 2: .append"),
    "prints": ("def solve(I):\n  return print(I)", "'print' is not known"),
    "imports": ("import random\ndef solve(I):\n  return random.random()", "line 1: imports random"),
    "iterator": ("def solve(I):\n  z = zip(I, I)\n  return tuple(z), tuple(z)", "only once"),
    "generator": ("def solve(I):\n  g = (i for i in I)\n  return tuple(g), tuple(g)", "only once"),
    "handed on": ("def solve(I):\n  return sorted(I, key=lambda x: map)", "'map' is handed on"),
    "kept by a library": ("from dsl import *\ndef solve(I):\n  return twice(zip(I, I), I)", "once"),
    "shadowed": ("def list(x):\n  return x\ndef solve(I):\n  return list(zip(I, I))", "once"),
    "late": ("def solve(I):\n  a = 1\n  f = lambda x: x + a\n  a = 2\n  return f(I)", "read later"),
    "captured": ("def solve(I):\n  x = 1\n  return (lambda x: x)(x)", "two meanings"),
    "identity": ("def solve(I):\n  return [I] is [I]", "'is' tells"),
    "one": ("def solve(I):\n  return I is 1", "'is' tells"),
    "unassigned": ("def solve(I):\n  y = x\n  x = 1\n  return y", "before it is assigned"),
    "recursion": ("def solve(I):\n  return solve(I)", "'solve' is not known"),
    "decorated": ("@staticmethod\ndef solve(I):\n  return I", "decorated"),
    "walrus": ("def solve(I):\n  return (x := 3) + x", "NamedExpr"),
    "unpacks": ("def solve(I):\n  a, b = I\n  return a", "assigns to a Tuple"),
    "default": ("def solve(I, x=[]):\n  return I", "default"),
    "twice": ("def solve(I):\n  return 1\ndef solve(I):\n  return 2", "defined twice"),
    "top level": ("print(1)\ndef solve(I):\n  return 1", "a Expr beside"),
    "documented": ("def solve(I):\n  'doc'\n  return solve.__doc__", "docstrings"),
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_what_cannot_be_proven_safe_is_kept_with_the_reason(name: str) -> None:
    source, reason = RAW[name]
    found = form(source)
    assert reason in found.reason
    assert ast.dump(ast.parse(found.text)) == ast.dump(ast.parse(source))


def test_what_differs_in_writing_only_has_one_form() -> None:
    one = "from dsl import *\ndef solve(I):\n  'Doc.'\n  x = add(I, I)  # why\n  return add(x, x)"
    two = (
        "from dsl import *\n\ndef solve(grid):\n    return add(add(grid, grid), add(grid, grid))\n"
    )
    assert form(one).key == form(two).key
    raw = "def solve(I):\n    for x in I:\n        # a loop\n        return x"
    assert form(raw).key == form(raw.replace("        # a loop\n", "")).key


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("return add(I, 1)", "return add(I, True)"),
        ("return add(I, 1)", "return add(I, 1.0)"),
        ("return add(I, 0.0)", "return add(I, -0.0)"),
        ("return add(I, 'a')", "return add(I, b'a')"),
        ("return objects(I, colour=1)", "return objects(I, sort=1)"),
        ("return objects(I, 1)", "return objects(I, colour=1)"),
        ("x = add(I, 'a')\n  return 1", "return 1"),
        ("return add(I, 1) if I else 2", "x = add(I, 1)\n  return x if I else 2"),
        ("a = 1 / I\n  b = I + 'a'\n  return a", "b = I + 'a'\n  a = 1 / I\n  return a"),
    ],
)
def test_programs_that_may_differ_have_different_forms(one: str, two: str) -> None:
    head = "from dsl import *\ndef solve(I):\n  "
    assert form(head + one).key != form(head + two).key


def test_substitution_would_be_exponential_and_this_is_linear() -> None:
    depth = 400
    lines = "".join(f"  x{i + 1} = add(x{i}, x{i})\n" for i in range(depth))
    found = form(f"from dsl import *\ndef solve(x0):\n{lines}  return x{depth}\n")
    assert found.reason == ""
    assert len(found.text) < 30 * depth


def test_random_straight_line_programs_agree_with_their_forms() -> None:
    rng = random.Random(5)
    shared = 0
    for _ in range(300):
        names, lines = ["I"], []
        for i in range(rng.randint(1, 12)):
            a, b = rng.choice(names), rng.choice([*names, "1", "-2", "ZERO", "'s'"])
            lines.append(f"  x{i % 5} = " + rng.choice([
                f"add({a}, {b})", f"objects({a}, sort={b})", f"({a}, {b})", f"{a} * {b}",
                f"{a} if {b} else 1 / {b}", f"len({a})", f"tuple(j for j in ({a}, {b}))",
                f"twice(lambda y: add(y, {b}), {a})", f"add({a}, {b}) + add({a}, {b})",
            ]))  # fmt: skip
            names.append(f"x{i % 5}")
        source = "\n".join(["from dsl import *", "def solve(I):", *lines, f"  return {names[-1]}"])
        found = form(source)
        shared += found.reason == ""
        for value in (0, 3, "s"):
            assert repr(run(source, value)[0]) == repr(run(found.text, value)[0]), source
    assert shared > 200


@pytest.mark.parametrize("source", ["def f(:", "x = 'a", "a\0b", "  x = 1\ny", "(" * 300])
def test_no_python_is_unreadable(source: str) -> None:
    with pytest.raises(Unreadable):
        parse(source)


def test_depth_is_left_to_the_interpreter() -> None:
    source = "x = " + "-" * 100_000 + "1"
    found = form(source)
    assert (found.text, found.reason) == (source, "nested too deep to be looked at")


def test_what_need_not_run_is_decided_before() -> None:
    sources = {
        "a": "def f(x):\n    return x  # one",
        "b": "def f(x):\n    return x  # one",
        "c": "def f(y):\n    return y",
        "d": "def f(:",
        "e": "",
        "f": "x = '" + "a" * 200 + "'",
        "g": "def f(x):\n    return x + 0",
    }
    given = [Candidate(name, "t", source, "here") for name, source in sources.items()]
    elsewhere = Candidate("h", "other", sources["a"], "here")
    spans = Spans()
    found = {p.candidate.id: p for p in prepare([*given, elsewhere], {}, spans, longest_bytes=150)}
    verdicts = {name: p.verdict for name, p in found.items() if p.verdict is not None}
    assert {name: (v.kind, v.duplicate_of) for name, v in verdicts.items()} == {
        "b": (Kind.DUPLICATE, "a"),
        "c": (Kind.DUPLICATE, "a"),
        "d": (Kind.SYNTAX, ""),
        "e": (Kind.SYNTAX, ""),
        "f": (Kind.SYNTAX, ""),
    }
    assert "206 bytes" in verdicts["f"].detail
    assert found["a"].form_note == "shared"
    assert {row.path[-1] for row in spans.rows()} >= {"filter", "parse", "form"}
    alone = prepare(given, {}, Spans(), find_duplicates=False)
    assert [p.verdict for p in alone if p.candidate.id in "abc"] == [None] * 3


# -- short cuts -------------------------------------------------------------------------------


def library_trees() -> list[ast.Module]:
    return [ast.parse(Path(m.__file__ or "").read_text()) for m in (ast, textwrap, json.decoder)]


def test_calls_are_written_as_python_writes_them() -> None:
    calls = [x for tree in library_trees() for x in ast.walk(tree) if isinstance(x, ast.Call)]
    for text in ("f()", "f(True, 2, a)", "f(-1)", "f(*a)", "f(1.0)", "f('a')", "f(None)", "g.f(a)"):
        calls += [x for x in ast.walk(ast.parse(text)) if isinstance(x, ast.Call)]
    written = [(text, ast.unparse(call)) for call in calls if (text := _call_text(call))]
    assert len(written) > 100
    assert all(one == two for one, two in written)
    assert not _call_text(ast.parse("f(a=1)", mode="eval").body)


def test_all_nodes_are_seen() -> None:
    for tree in library_trees():
        walked = (x for x in ast.walk(tree) if not isinstance(x, ast.expr_context))
        assert Counter(map(id, nodes(tree))) == Counter(map(id, walked))
