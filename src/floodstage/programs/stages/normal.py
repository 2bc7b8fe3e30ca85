"""Normal forms: two programs of one form behave alike, so one of them is run.

A program whose functions are straight-line and pure becomes a graph (`graph.py`), whatever its
variables, line breaks and nesting were. Every other one is kept as it is, with the reason, and its
form only forgets positions, comments and unread docstrings. Knows nothing of tasks.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from floodstage.programs.stages.graph import Graph
from floodstage.programs.stages.purity import Scope, Unsafe, nodes, unsafe

SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Form:
    """`text` is a program again; `reason` is empty where it is a graph."""

    text: str
    reason: str = ""

    @property
    def key(self) -> str:
        """Equal for programs that behave alike."""
        kind = "raw" if self.reason else SHARED
        return sha256(f"{kind}\0{self.text}".encode("utf-8", "surrogatepass")).hexdigest()


class Unreadable(Exception):
    """A source is no Python; `line` is 0 where it is not known."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def parse(source: str) -> ast.Module | None:
    """The tree of a source; None where this parser gives up on its depth and the interpreter
    might not. Raises Unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (MemoryError, RecursionError):
        return None
    except SyntaxError as error:
        raise Unreadable(f"{type(error).__name__}: {error.msg}", error.lineno or 0) from error
    except ValueError as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def normal_form(
    source: str, tree: ast.Module | None, libraries: Mapping[str, frozenset[str]]
) -> Form:
    """The form of a parsed source, whose tree is used up. `libraries` are modules of pure names
    that programs import."""
    if tree is None:
        return Form(source, "nested too deep to be looked at")
    try:
        try:
            return Form(_graphs(source, tree, libraries))
        except Unsafe as why:
            return Form(_without_docstrings(source, tree), str(why))
    except (RecursionError, MemoryError, ValueError) as error:
        return Form(source, f"{type(error).__name__} while it was looked at")


def _graphs(source: str, tree: ast.Module, libraries: Mapping[str, frozenset[str]]) -> str:
    """Every function as a graph, all else of the module as it is. Raises Unsafe."""
    functions = [x for x in tree.body if isinstance(x, ast.FunctionDef)]
    if len({f.name for f in functions}) < len(functions):
        raise unsafe(functions[-1], "a function is defined twice")
    read = {x.id for x in nodes(tree) if isinstance(x, ast.Name)}
    scope = Scope(libraries)
    parts: list[str] = []
    for node in tree.body:
        match node:
            case ast.Expr(value=ast.Constant(value=str())) if "__doc__" not in source:
                pass
            case ast.Import() | ast.ImportFrom():
                scope.imports(node)
                parts.append(ast.unparse(node))
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if _constant(value):
                scope.bind([name])
                parts.append(ast.unparse(node))
            case ast.FunctionDef():
                parts.append(_function(node, scope, "__doc__" in source, read))
            case _:
                raise unsafe(node, f"a {type(node).__name__} beside the functions")
    return "\n".join(parts) + "\n"


def _function(node: ast.FunctionDef, scope: Scope, documented: bool, read: set[str]) -> str:
    """One function as a graph; from then on it is known to be pure. Raises Unsafe."""
    args = node.args
    if node.decorator_list:
        raise unsafe(node, f"{node.name!r} is decorated")
    if documented and ast.get_docstring(node):
        raise unsafe(node, "docstrings are read")
    if args.defaults or args.kw_defaults:
        raise unsafe(node, f"{node.name!r} has default values")
    if node.returns or any(x.annotation for x in nodes(args) if isinstance(x, ast.arg)):
        _annotations(node, scope)
    plain = not (args.vararg or args.kwarg or args.kwonlyargs)
    graph = Graph(node, scope, rename=plain and node.name not in read)
    names = ast.unparse(_header(args, graph))
    scope.bind([node.name])
    return "\n    ".join([f"def {node.name}({names}):", *graph.body()])


def _header(args: ast.arguments, graph: Graph) -> ast.arguments:
    """The parameters under the names of the graph, without annotations."""

    def bare(found: list[ast.arg]) -> list[ast.arg]:
        return [ast.arg(graph.start[x.arg]) for x in found]

    vararg, kwarg = (None if x is None else bare([x])[0] for x in (args.vararg, args.kwarg))
    return ast.arguments(bare(args.posonlyargs), bare(args.args), vararg, [], [], kwarg, [])


def _annotations(node: ast.FunctionDef, scope: Scope) -> None:
    """Raises Unsafe unless evaluating the annotations surely does nothing."""
    found = [x.annotation for x in nodes(node.args) if isinstance(x, ast.arg)]
    for annotation in [*found, node.returns]:
        for part in nodes(annotation) if annotation else ():
            known = isinstance(part, ast.Constant | ast.Subscript | ast.Tuple | ast.Load) or (
                isinstance(part, ast.Name) and part.id in scope.names
            )
            if not known:
                raise unsafe(part, f"an annotation with a {type(part).__name__}")


def _constant(node: ast.expr) -> bool:
    """Whether a module-level value is made of constants alone."""
    parts = (ast.Constant, ast.Tuple, ast.UnaryOp, ast.unaryop, ast.Load)
    return all(isinstance(part, parts) for part in nodes(node))


def _without_docstrings(source: str, tree: ast.Module) -> str:
    """The program without positions, comments and, where nothing reads them, docstrings."""
    if "__doc__" in source or "getdoc" in source or "doctest" in source:
        return ast.unparse(tree)
    for node in nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            body = node.body
            if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                node.body = body[1:] or [ast.Pass()]
    return ast.unparse(tree)
