"""A straight-line function as one node per distinct sub-expression, in the order of evaluation.

Text substitution of variables doubles `x = add(x, x)` at every line; here each distinct expression
over already numbered nodes is one line, `v3 = add(v2, v2)`, so the work is linear. A node is shared
only where evaluating it once or twice cannot be told apart: every call in it is pure, nothing is
changed, nothing that can be read only once is kept. Whatever is evaluated on a condition or later
(branches of an expression, lambdas, comprehensions) stays inside its node, unshared. Nodes whose
value is not used stay too: they might raise.
"""

from __future__ import annotations

import ast
import copy
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from floodstage.programs.stages.purity import (
    CONSUMERS,
    ITERATORS,
    PURE_METHODS,
    Scope,
    nodes,
    unsafe,
)

NUMBERED = re.compile(r"[vp]\d+")
"""Names of nodes and of parameters in a normal form."""
DELAYED = (ast.Lambda, ast.GeneratorExp)
CLOSED = (ast.IfExp, ast.BoolOp, ast.JoinedStr, ast.ListComp, ast.SetComp, ast.DictComp, ast.Lambda)
"""Expressions that evaluate parts of themselves on a condition, later or repeatedly."""
PLAIN = (
    *(ast.Constant, ast.Name, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Call, ast.Attribute),
    *(ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Subscript, ast.Slice, ast.Starred),
)
"""Expressions that evaluate each of their parts once, from left to right."""


class Graph:
    """The nodes of one function, and what its variables stand for."""

    def __init__(self, function: ast.FunctionDef, scope: Scope, *, rename: bool) -> None:
        self.scope = scope
        self.lines: dict[str, str] = {}  # an expression over nodes -> the node's name
        self.params = _params(function)
        self.stores = Counter(self.params)
        self.stores.update(x.id for x in nodes(function) if isinstance(x, ast.Name) and _stored(x))
        self.start = {x: f"p{i}" if rename else x for i, x in enumerate(self.params)}
        if not rename and any(NUMBERED.fullmatch(x) for x in self.params):
            raise unsafe(function, "a parameter is called like a node")
        self.values: dict[str, ast.expr] = {
            name: ast.Name(new, ast.Load()) for name, new in self.start.items()
        }
        self.result = self._run(function.body)

    def body(self) -> list[str]:
        """The normal form's statements."""
        return [f"{name} = {text}" for text, name in self.lines.items()] + [
            f"return {ast.unparse(self.result)}"
        ]

    # -- statements ---------------------------------------------------------------------------

    def _run(self, body: list[ast.stmt]) -> ast.expr:
        for i, node in enumerate(body):
            match node:
                case ast.Assign(targets=targets, value=value):
                    self._assign(targets, value)
                case ast.AnnAssign(target=target, value=ast.expr() as value, simple=1):
                    self._assign([target], value)
                case ast.Return(value=value):
                    if i + 1 < len(body):
                        raise unsafe(body[i + 1], "something follows a return")
                    return ast.Constant(None) if value is None else self.value(value)
                case ast.Expr(value=ast.Constant()) | ast.Pass():
                    pass
                case ast.Expr(value=value):
                    self.value(value)
                case _:
                    raise unsafe(node, f"{_word(node)} is not straight-line code")
        return ast.Constant(None)

    def _assign(self, targets: list[ast.expr], value: ast.expr) -> None:
        atom = self.value(value)
        for target in targets:
            if not isinstance(target, ast.Name):
                raise unsafe(target, f"assigns to {_word(target)}")
            self.values[target.id] = atom

    # -- expressions --------------------------------------------------------------------------

    def value(self, node: ast.expr) -> ast.expr:
        """The atom that stands for an expression: a constant, a name or a node."""
        if isinstance(node, ast.Constant):
            return node
        if isinstance(node, ast.Name):
            return self._named(node)
        if _one_shot(node):
            raise unsafe(node, "keeps an iterator, which can be read only once")
        if isinstance(node, CLOSED) or self._closes(node):
            return self._share(self._closed(node))
        if not isinstance(node, PLAIN) or isinstance(node, ast.Starred | ast.Slice):
            raise unsafe(node, f"{_word(node)} is not known to be safe")
        whole = self._over_nodes(node)
        if _negative(whole):
            return whole  # -1 is a constant to everybody but Python
        return self._share(whole)

    def _share(self, whole: ast.expr) -> ast.expr:
        text = _call_text(whole) or ast.unparse(whole)
        name = self.lines.setdefault(text, f"v{len(self.lines)}")
        return ast.Name(name, ast.Load())

    def _named(self, node: ast.Name) -> ast.expr:
        if node.id in self.values:
            return self.values[node.id]
        if node.id in self.stores:
            raise unsafe(node, f"{node.id!r} is read before it is assigned")
        if node.id not in self.scope.names or NUMBERED.fullmatch(node.id):
            raise unsafe(node, f"{node.id!r} is not known to be pure")
        return ast.Name(node.id, ast.Load())

    def _over_nodes(self, node: ast.expr) -> ast.expr:
        """The same operation over atoms, evaluated from left to right."""
        match node:
            case ast.Attribute():
                return self._attribute(node)
            case ast.Call(func=ast.Attribute(value=value, attr=attr) as func):
                called = (
                    self._attribute(func)
                    if self._module(func)
                    else ast.Attribute(self.value(value), _method(func, attr), ast.Load())
                )
                return self._call(called, node)
            case ast.Call(func=func):
                return self._call(self.value(func), node)
            case ast.Compare(ops=[op], comparators=[right]):
                _comparable(node, op, right)
            case ast.Dict(keys=keys, values=values):
                pairs = [
                    (None if k is None else self.value(k), self.value(v))
                    for k, v in zip(keys, values, strict=True)
                ]
                return ast.Dict([k for k, _ in pairs], [v for _, v in pairs])
        whole = copy.copy(node)
        for name, part in ast.iter_fields(node):
            if isinstance(part, ast.expr):
                setattr(whole, name, self._part(part))
            elif isinstance(part, list) and part and isinstance(part[0], ast.expr):
                setattr(whole, name, [self._part(x) for x in part])
        return whole

    def _part(self, node: ast.expr) -> ast.expr:
        """An operand, where `*x` and `a:b` may stand as well."""
        if isinstance(node, ast.Starred):
            return ast.Starred(self.value(node.value), ast.Load())
        if isinstance(node, ast.Slice):
            lower, upper, step = (
                None if x is None else self.value(x) for x in (node.lower, node.upper, node.step)
            )
            return ast.Slice(lower, upper, step)
        if isinstance(node, ast.Tuple) and any(isinstance(x, ast.Slice) for x in node.elts):
            return ast.Tuple([self._part(x) for x in node.elts], ast.Load())
        return self.value(node)

    def _call(self, func: ast.expr, node: ast.Call) -> ast.expr:
        args = [self._part(x) for x in node.args]
        return ast.Call(
            func, args, [ast.keyword(k.arg, self.value(k.value)) for k in node.keywords]
        )

    def _module(self, node: ast.Attribute) -> bool:
        return (
            isinstance(node.value, ast.Name)
            and node.value.id in self.scope.modules
            and node.value.id not in self.stores
        )

    def _attribute(self, node: ast.Attribute) -> ast.expr:
        if self._module(node):
            assert isinstance(node.value, ast.Name)
            if node.attr in self.scope.modules[node.value.id]:
                return ast.Attribute(ast.Name(node.value.id, ast.Load()), node.attr, ast.Load())
        raise unsafe(node, f".{node.attr} is not known to be pure")

    # -- expressions that stay whole ----------------------------------------------------------

    def _closes(self, node: ast.expr) -> bool:
        """Whether a plain expression must stay whole for what is directly in it."""
        match node:
            case ast.Compare(ops=ops):
                return len(ops) > 1
            case ast.Call(func=ast.Attribute() as func, args=args) if not self._module(func):
                # a method that is not there raises before its arguments are evaluated
                return not all(isinstance(x, ast.Name | ast.Constant) for x in args)
            case ast.Call(args=args):
                return any(_one_shot(x) for x in args)
        return False

    def _closed(self, node: ast.expr) -> ast.expr:
        """The expression with its outer variables replaced by nodes. Raises Unsafe."""
        bound = {
            x.arg if isinstance(x, ast.arg) else x.id
            for x in nodes(node)
            if isinstance(x, ast.arg) or (isinstance(x, ast.Name) and _stored(x))
        }
        outside = {*self.values, *self.scope.names, *self.scope.modules, *ITERATORS}
        if clash := {x for x in bound if x in outside or NUMBERED.fullmatch(x)}:
            raise unsafe(node, f"{min(clash)!r} has two meanings")
        parts = nodes(node)
        self._check_iterators(parts)
        self._check_names(parts, bound)
        self._check_attributes(parts)
        whole: ast.expr = _renamed(node, self.values)
        return whole

    def _check_iterators(self, parts: list[ast.AST]) -> None:
        consumed = {id(x) for part in parts for x in self._consumed(part)}
        called = {id(x.func) for x in parts if isinstance(x, ast.Call)}
        for part in parts:
            if isinstance(part, ast.expr) and _one_shot(part) and id(part) not in consumed:
                raise unsafe(part, "keeps an iterator, which can be read only once")
            if isinstance(part, ast.Name) and part.id in ITERATORS and id(part) not in called:
                raise unsafe(part, f"{part.id!r} is handed on")

    def _consumed(self, node: ast.AST) -> list[ast.expr]:
        """Operands that a node reads to their end before it has a value."""
        match node:
            case ast.Call(func=ast.Name(id=name), args=args) if name in CONSUMERS | ITERATORS:
                return [] if name in self.scope.shadowed or name in self.stores else args
            case ast.Call(func=ast.Attribute(attr="join"), args=args):
                return args
            case ast.comprehension(iter=source):
                return [source]
        return []

    def _check_names(self, parts: list[ast.AST], bound: set[str]) -> None:
        later = {
            x.id
            for part in parts
            if isinstance(part, DELAYED)
            for x in nodes(part)
            if isinstance(x, ast.Name)
        }
        for part in parts:
            if not isinstance(part, ast.Name) or part.id in bound | ITERATORS:
                continue
            if part.id in self.scope.modules and part.id not in self.stores:
                continue  # its attribute is looked at
            self._named(part)
            if part.id in later and self.stores[part.id] > 1:
                raise unsafe(part, f"{part.id!r} is assigned twice and read later")

    def _check_attributes(self, parts: list[ast.AST]) -> None:
        called = {id(x.func) for x in parts if isinstance(x, ast.Call)}
        attributes = {id(x.value) for x in parts if isinstance(x, ast.Attribute)}
        for part in parts:
            match part:
                case ast.Attribute() if self._module(part):
                    self._attribute(part)
                case ast.Attribute(attr=attr):
                    if id(part) not in called or attr not in PURE_METHODS:
                        raise unsafe(part, f".{attr} is not known to be pure")
                case ast.Name(id=name) if name in self.scope.modules and name not in self.stores:
                    if id(part) not in attributes:
                        raise unsafe(part, f"the module {name!r} is handed on")
                case ast.Compare(ops=ops, comparators=rights):
                    for op, right in zip(ops, rights, strict=True):
                        _comparable(part, op, right)
                case ast.NamedExpr() | ast.Await() | ast.Yield() | ast.YieldFrom():
                    raise unsafe(part, f"{_word(part)} is not known to be safe")


def _renamed(node: Any, values: Mapping[str, ast.expr]) -> Any:
    """A copy of a node in which variables are the atoms that they stand for."""
    if isinstance(node, ast.Name):
        return values.get(node.id, node)
    if isinstance(node, list):
        return [_renamed(part, values) for part in node]
    if not isinstance(node, ast.AST) or isinstance(node, ast.expr_context):
        return node
    fields = {name: getattr(node, name, None) for name in node._fields}
    return type(node)(**{name: _renamed(part, values) for name, part in fields.items()})


def _call_text(node: ast.expr) -> str:
    """What `ast.unparse` writes for a call of names and small numbers, in a tenth of the time;
    empty for any other expression."""
    if not isinstance(node, ast.Call) or node.keywords or not isinstance(node.func, ast.Name):
        return ""
    words: list[str] = []
    for part in node.args:
        if isinstance(part, ast.Name):
            words.append(part.id)
        elif isinstance(part, ast.Constant) and type(part.value) in (int, bool):
            words.append(repr(part.value))
        else:
            return ""
    return f"{node.func.id}({', '.join(words)})"


def _one_shot(node: ast.expr) -> bool:
    match node:
        case ast.GeneratorExp():
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in ITERATORS
    return False


def _comparable(node: ast.AST, op: ast.cmpop, right: ast.expr) -> None:
    """`is` can tell two equal values apart, so it is safe against singletons only."""
    singleton = isinstance(right, ast.Constant) and isinstance(right.value, bool | None)
    if isinstance(op, ast.Is | ast.IsNot) and not singleton:
        raise unsafe(node, "'is' tells equal values apart")


def _negative(node: ast.expr) -> bool:
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=value)):
            return type(value) in (int, float)
    return False


def _method(node: ast.Attribute, attr: str) -> str:
    if attr not in PURE_METHODS:
        raise unsafe(node, f".{attr} is not known to be pure")
    return attr


def _params(function: ast.FunctionDef) -> list[str]:
    a = function.args
    every = [*a.posonlyargs, *a.args, *([a.vararg] if a.vararg else []), *a.kwonlyargs]
    return [x.arg for x in [*every, *([a.kwarg] if a.kwarg else [])]]


def _stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store | ast.Del)


def _word(node: ast.AST) -> str:
    return f"a {type(node).__name__}"
