"""Which names a program may call so that calling twice is calling once. Tables and their lookup.

A name is *pure* here if the same arguments always give the same value, nothing is changed, and
what comes back can be read more than once. Python cannot prove it of a preloaded library: who
preloads it says so.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


def words(text: str) -> frozenset[str]:
    """A set, as a line of text."""
    return frozenset(text.split())


PURE_BUILTINS = words(
    "abs all any ascii bin bool bytes chr complex dict divmod float format frozenset hex int "
    "isinstance len list max min oct ord pow range repr round set slice sorted str sum tuple"
)
ITERATORS = words("enumerate filter map reversed zip")
"""Builtins that are pure but whose value can be read only once."""
CONSUMERS = PURE_BUILTINS - {"isinstance", "slice", "format", "repr"}
"""Builtins that read an argument to its end, so that no iterator is left."""
PURE_METHODS = words(
    "bit_count bit_length capitalize casefold center count difference endswith find get index "
    "intersection isalnum isalpha isdigit islower isspace issubset issuperset isupper join keys "
    "ljust lower lstrip partition replace rfind rindex rjust rpartition rsplit rstrip split "
    "splitlines startswith strip swapcase symmetric_difference title union upper values zfill "
    "items removeprefix removesuffix"
)
"""Methods that change no receiver, whichever builtin type it is of."""
PURE_MODULES: Mapping[str, frozenset[str]] = {
    "math": words(
        "acos asin atan atan2 ceil comb copysign cos degrees dist e exp fabs factorial floor fmod "
        "gcd hypot inf isclose isfinite isinf isnan isqrt lcm log log10 log2 nan perm pi pow prod "
        "radians sin sqrt tan tau trunc"
    ),
    "typing": words("Any Callable Dict FrozenSet List Optional Set Tuple Union"),
    "__future__": frozenset({"annotations"}),
}


class Unsafe(Exception):
    """A program, or a function of it, cannot be proven safe to rewrite; says why."""


def nodes(tree: ast.AST) -> list[ast.AST]:
    """Every node of a tree, as `ast.walk` gives them but for Load, Store and Del: half its time."""
    found = [tree]
    for node in found:
        for name in node._fields:
            part = getattr(node, name, None)
            if isinstance(part, list):
                found += [x for x in part if isinstance(x, ast.AST)]
            elif isinstance(part, ast.AST) and name != "ctx":
                found.append(part)
    return found


def unsafe(node: ast.AST, why: str) -> Unsafe:
    return Unsafe(f"line {getattr(node, 'lineno', 0)}: {why}")


@dataclass(slots=True)
class Scope:
    """The global names of one program that are known, and how."""

    libraries: Mapping[str, frozenset[str]] = field(default_factory=dict)
    names: set[str] = field(default_factory=lambda: set(PURE_BUILTINS))
    modules: dict[str, frozenset[str]] = field(default_factory=dict)  # `import math as m`
    shadowed: set[str] = field(default_factory=set)  # builtins that mean something else here

    def imports(self, node: ast.Import | ast.ImportFrom) -> None:
        """Learn what an import statement binds. Raises Unsafe for what is not known to be pure."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                self.modules[alias.asname or alias.name] = self._offers(node, alias.name)
            return
        if node.level:
            raise unsafe(node, "imports from the folder above")
        offered = self._offers(node, node.module or "")
        for alias in node.names:
            if alias.name == "*":
                self.bind(offered)
            elif alias.name in offered:
                self.bind([alias.asname or alias.name])
            else:
                raise unsafe(node, f"{node.module}.{alias.name} is not known to be pure")

    def bind(self, names: Iterable[str]) -> None:
        """These names are pure from now on, whatever they were."""
        new = set(names)
        self.shadowed |= new & (PURE_BUILTINS | ITERATORS)
        self.names |= new

    def _offers(self, node: ast.AST, module: str) -> frozenset[str]:
        if module in self.libraries:
            return self.libraries[module]
        if module in PURE_MODULES:
            return PURE_MODULES[module]
        raise unsafe(node, f"imports {module}, not known to be pure")


def library_names(source: str) -> frozenset[str]:
    """What `from library import *` binds: its public functions, classes and constants, imported
    names included."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {t.id for t in targets if isinstance(t, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Import() | ast.ImportFrom():
                names |= {a.asname or a.name for a in node.names}
    return frozenset(name for name in names if name.isidentifier() and not name.startswith("_"))
