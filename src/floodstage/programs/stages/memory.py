"""Whether a program can leave anything for its next call. Knows no graph and no process.

Where it surely cannot, its samples may run in processes of their own and come to the same. A
program that is not straight-line can still be such: functions and constants, and nothing that
reaches out of a call.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from floodstage.programs.stages.purity import nodes, words

FORGETFUL = words(
    "abc array bisect cmath collections copy dataclasses enum fractions functools heapq itertools "
    "math numbers operator re statistics string typing __future__"
)
"""Modules of the library whose functions leave nothing behind that a later call could see."""
REACHING = words(
    "__builtins__ __import__ compile delattr eval exec globals id input locals open setattr vars "
    "breakpoint"
)


def forgets(tree: ast.Module | None, libraries: Mapping[str, frozenset[str]]) -> bool:
    """True only if no call of the program's functions can change what a later one gives.
    `libraries` are preloaded modules, of functions without side effects."""
    if tree is None:
        return False
    known = FORGETFUL | set(libraries)
    return all(_plain(node, known) for node in tree.body) and not any(
        _reaches(node, known) for node in nodes(tree)
    )


def _plain(node: ast.stmt, known: frozenset[str]) -> bool:
    """Whether a statement of the module makes nothing that can be changed."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(targets=[ast.Name()], value=value):
            return _fixed(value)
        case ast.FunctionDef(decorator_list=[], args=args):
            return all(x is None or _fixed(x) for x in [*args.defaults, *args.kw_defaults])
    return False


def _fixed(node: ast.expr) -> bool:
    parts = (ast.Constant, ast.Tuple, ast.UnaryOp, ast.unaryop)
    return all(isinstance(part, parts) for part in nodes(node))


def _reaches(node: ast.AST, known: frozenset[str]) -> bool:
    match node:
        case ast.Global() | ast.Nonlocal():
            return True
        case ast.Import(names=names):
            return any(alias.name.partition(".")[0] not in known for alias in names)
        case ast.ImportFrom(module=module, level=level):
            return bool(level) or (module or "").partition(".")[0] not in known
        case ast.Attribute(attr=attr, ctx=ctx):
            return attr.startswith("_") or not isinstance(ctx, ast.Load)
        case ast.Name(id=name):
            return name in REACHING
    return False
