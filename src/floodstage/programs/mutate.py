"""Mutants of given programs: seeded edits of their trees, each with its parent and its changes.

An edit gives a constant another value, reads another variable, calls another function, calls one
more around an expression, or leaves a call out. Functions are those of the preloaded libraries and
those that any given program calls. Runs nothing, and does not know what a task is about.
"""

from __future__ import annotations

import ast
import copy
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, TypeAlias

from floodstage.core.errors import ConfigError, InputError
from floodstage.programs.records import Candidate
from floodstage.programs.stages.normal import Unreadable, normal_form, parse
from floodstage.programs.stages.purity import library_names

ATTEMPTS = 40
"""Draws in a row that gave nothing new after which a program has no more mutants."""
MOST_ARGUMENTS = 8
RENAMED = 0.25
"""The share of mutants with a renamed variable, where equal ones are kept."""
Edit: TypeAlias = tuple[ast.expr, Callable[[], ast.expr]]  # what stands there; draws what will


@dataclass(frozen=True, slots=True)
class Mutant:
    """A program made from `parent` by `changes`, as in `line 3: turn -> transpose`."""

    task_id: str
    source: str
    parent: str
    parent_digest: str
    changes: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """A line for a file of samples."""
        return {
            "task_id": self.task_id,
            "solution": self.source,
            "parent": self.parent,
            "parent_digest": self.parent_digest,
            "changes": list(self.changes),
        }


@dataclass(slots=True)
class Mutation:
    """Mutants of `parents`, drawn by `seed`: equal settings give equal mutants, and a larger
    count the same ones and more.

    `libraries` are sources of preloaded modules by name. A mutant has up to `most_changes`
    changes. `keep_equal` keeps those that equal an earlier program of the task, in their text or
    their normal form, and renames a variable in some; how many were equal is in `equal`, how many
    were drawn in `drawn`. Raises ConfigError, InputError.
    """

    parents: Sequence[Candidate]
    seed: int = 0
    libraries: Mapping[str, str] = field(default_factory=dict)
    most_changes: int = 2
    keep_equal: bool = False
    drawn: int = 0
    equal: int = 0

    def __post_init__(self) -> None:
        if self.most_changes < 1:
            raise ConfigError(f"most_changes must be at least 1, got {self.most_changes!r}.")
        if not self.parents:
            raise InputError("There is no program to make mutants of.")

    def take(self, count: int) -> Iterator[Mutant]:
        """Up to `count` mutants, of each parent in turn; fewer where no more can be found."""
        trees = [_tree(parent) for parent in self.parents]
        tools = _Tools.of(trees, self.libraries.values())
        seen = _Seen({name: library_names(source) for name, source in self.libraries.items()})
        for parent, tree in zip(self.parents, trees, strict=True):
            seen.add(parent.task_id, ast.unparse(tree))
        rng, misses, turns = Random(self.seed), [0] * len(trees), deque(range(len(trees)))
        while count and turns:
            which = turns.popleft()
            parent = self.parents[which]
            changed = copy.deepcopy(trees[which])
            changes = _mutate(changed, parent.entry, tools, rng, self.most_changes)
            if self.keep_equal and rng.random() < RENAMED:
                changes += _rename(changed, rng)
            source = ast.unparse(changed)
            known = not changes or not seen.add(parent.task_id, source)
            self.drawn += bool(changes)
            self.equal += known and bool(changes)
            if changes and (self.keep_equal or not known):
                yield Mutant(parent.task_id, source, parent.id, parent.digest, tuple(changes))
                count, misses[which] = count - 1, 0
                turns.append(which)
            elif misses[which] < ATTEMPTS:
                misses[which] += 1
                turns.appendleft(which)


@dataclass(slots=True)
class _Seen:
    """Programs that a task has had, by their text and by their normal form."""

    libraries: Mapping[str, frozenset[str]]
    keys: set[tuple[str, str]] = field(default_factory=set)

    def add(self, task_id: str, source: str) -> bool:
        """Whether the program is new."""
        if (task_id, source) in self.keys:
            return False
        self.keys.add((task_id, source))
        form = task_id, normal_form(source, parse(source), self.libraries).key
        new = form not in self.keys
        self.keys.add(form)
        return new


def _tree(parent: Candidate) -> ast.Module:
    try:
        tree = parse(parent.source)
        ast.unparse(tree or ast.Module([], []))
    except RecursionError:
        tree = None
    except Unreadable as error:
        raise InputError(f"{parent.origin} is not Python: {error}.") from error
    if tree is None:
        raise InputError(f"{parent.origin} is nested too deep to be changed.")
    return tree


# -- what can be called -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tools:
    """Functions by the number of arguments they take, those that are handed on as values, and
    numbers that are in use. In order, so that draws do not depend on chance."""

    by_count: Mapping[int, Sequence[str]]
    handed: Sequence[str]
    numbers: Sequence[int]

    @classmethod
    def of(cls, trees: Sequence[ast.Module], libraries: Iterable[str]) -> _Tools:
        by_count: dict[int, set[str]] = defaultdict(set)
        for source in libraries:
            for node in ast.parse(source).body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    for number in _takes(node.args):
                        by_count[number].add(node.name)
        known = {name for names in by_count.values() for name in names}
        handed, numbers = set[str](), set(range(10))
        for part in (x for tree in trees for x in ast.walk(tree)):
            match part:
                case ast.Call(func=ast.Name(id=name), args=args):
                    if name not in known:
                        by_count[len(args)].add(name)
                    handed |= {x.id for x in args if isinstance(x, ast.Name) and x.id in known}
                case ast.Constant(value=int() as value) if not isinstance(value, bool):
                    numbers.add(value)
        return cls(
            {number: sorted(names) for number, names in by_count.items()},
            sorted(handed),
            sorted(numbers),
        )


def _takes(args: ast.arguments) -> range:
    """How many positional arguments a function may be given."""
    most = len(args.posonlyargs) + len(args.args)
    return range(most - len(args.defaults), (MOST_ARGUMENTS if args.vararg else most) + 1)


# -- edits ------------------------------------------------------------------------------------


def _mutate(
    tree: ast.Module, entry: str | None, tools: _Tools, rng: Random, most: int
) -> list[str]:
    """Change a tree; what was changed, nothing where nothing can be."""
    functions = [x for x in tree.body if isinstance(x, ast.FunctionDef)]
    chosen = [x for x in functions if x.name == entry] or functions
    changes: list[str] = []
    for _ in range(rng.randint(1, most)):
        edits = _edits(rng.choice(chosen), tools, rng) if chosen else []
        if edits:
            old, draw = rng.choice(edits)
            new = ast.fix_missing_locations(ast.copy_location(draw(), old))
            changes.append(f"line {old.lineno}: {ast.unparse(old)} -> {ast.unparse(new)}")
            _Replace(old, new).visit(tree)
    return changes


def _rename(tree: ast.Module, rng: Random) -> list[str]:
    """Another name for a variable, wherever it stands; behaves the same."""
    parts = list(ast.walk(tree))
    names = [x for x in parts if isinstance(x, ast.Name)]
    stored = {x.id for x in names if isinstance(x.ctx, ast.Store)}
    stored |= {x.arg for x in parts if isinstance(x, ast.arg)}
    if not stored:
        return []
    old, used = rng.choice(sorted(stored)), {x.id for x in names} | stored
    new = next(name for i in range(len(used) + 1) if (name := f"x{i}") not in used)
    for part in parts:
        if isinstance(part, ast.Name) and part.id == old:
            part.id = new
        elif isinstance(part, ast.arg) and part.arg == old:
            part.arg = new
    return [f"{old} is called {new}"]


class _Replace(ast.NodeTransformer):
    """One node, by identity, becomes another."""

    def __init__(self, old: ast.expr, new: ast.expr) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        return self.new if node is self.old else self.generic_visit(node)


def _edits(function: ast.FunctionDef, tools: _Tools, rng: Random) -> list[Edit]:
    """What can be done at each place of a function."""
    found: list[Edit] = []
    variables = [x.arg for x in function.args.args]
    for statement in function.body:
        called = {id(x.func) for x in ast.walk(statement) if isinstance(x, ast.Call)}
        for node in ast.walk(statement):
            match node:
                case ast.Constant(value=bool() | int() as value):
                    found.append((node, partial(_constant, value, tools, rng)))
                case ast.Call(func=ast.Name() as func, args=args):
                    found += _renamed(func, tools.by_count.get(len(args), ()), rng)
                    found += _around(node, tools, rng)
                    if args and not isinstance(args[0], ast.Starred):
                        found.append((node, partial(_itself, args[0])))
                case ast.Name(id=name, ctx=ast.Load()) if id(node) not in called:
                    if name in variables:
                        found += _renamed(node, variables, rng) + _around(node, tools, rng)
                    elif name in tools.handed:
                        found += _renamed(node, tools.handed, rng)
        if isinstance(statement, ast.Assign):
            variables += [x.id for x in statement.targets if isinstance(x, ast.Name)]
    return found


def _renamed(node: ast.Name, names: Sequence[str], rng: Random) -> list[Edit]:
    others = [name for name in names if name != node.id]
    return [(node, lambda: ast.Name(rng.choice(others), ast.Load()))] if others else []


def _around(node: ast.expr, tools: _Tools, rng: Random) -> list[Edit]:
    names = tools.by_count.get(1, ())
    if not names:
        return []
    return [(node, lambda: ast.Call(ast.Name(rng.choice(names), ast.Load()), [node], []))]


def _constant(value: bool | int, tools: _Tools, rng: Random) -> ast.expr:
    if isinstance(value, bool):
        return ast.Constant(not value)
    near = rng.choice((value - 1, value + 1, *(x for x in tools.numbers if x != value)))
    return ast.Constant(near)


def _itself(node: ast.expr) -> ast.expr:
    return node
