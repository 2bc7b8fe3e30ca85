"""The shape of the package: floors, light rooms, public names, small files, a lock that fits.

import-linter itself runs in `make check`; here is what its contracts cannot say.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import floodstage

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "floodstage"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = {c["type"]: c for c in PROJECT["tool"]["importlinter"]["contracts"]}
FLOORS = [
    {room.strip(" ()") for room in layer.split("|")} for layer in CONTRACTS["layers"]["layers"]
]
ROOMS = sorted(p.name for p in PACKAGE.iterdir() if (p / "__init__.py").is_file())

TENSOR_FREE = {"core", "scheduling", "text", "programs"}
"""Rooms that work where torch is not installed."""

LONGEST = 450
LONG = {"text/mathematics_families.py": "a table: 21 families of problems, each with its phrasings"}
"""Files over LONGEST lines, and why."""

OTHER_TESTS = {"flood", "laws"}
"""Folders of tests/ that are about no single room."""


def modules(room: str) -> list[str]:
    """Every module of a room, by its full name."""
    parts = [p.relative_to(PACKAGE.parent) for p in sorted((PACKAGE / room).rglob("*.py"))]
    return [".".join(p.with_suffix("").parts).removesuffix(".__init__") for p in parts]


def fresh_python(code: str) -> str:
    """What `code` prints in an interpreter of its own. Fails with what it wrote to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# -- floors -----------------------------------------------------------------------------------


def test_every_room_is_on_exactly_one_floor() -> None:
    placed = sorted(room for floor in FLOORS for room in floor)
    assert placed == ROOMS


def test_the_root_holds_rooms_and_nothing_else() -> None:
    other = {p.name for p in PACKAGE.iterdir()} - {*ROOMS, "__pycache__"}
    assert {"__init__.py", "py.typed"} <= other <= {"__init__.py", "py.typed", "assets"}


def test_tests_mirror_the_rooms() -> None:
    folders = {p.parent.relative_to(ROOT / "tests") for p in (ROOT / "tests").rglob("test_*.py")}
    tops = {f.parts[0] for f in folders if f.parts}
    assert tops <= {*ROOMS, *OTHER_TESTS}


def test_files_stay_small() -> None:
    lines = {
        p.relative_to(PACKAGE).as_posix(): len(p.read_text(encoding="utf-8").splitlines())
        for p in PACKAGE.rglob("*.py")
    }
    # Equal, not a subset: a file that has shrunk leaves the list of exceptions.
    assert {name for name, count in lines.items() if count > LONGEST} == set(LONG)


# -- imports ----------------------------------------------------------------------------------


@pytest.mark.parametrize("room", sorted(TENSOR_FREE & set(ROOMS)))
def test_light_rooms_import_without_torch(room: str) -> None:
    lines = "\n".join(f"import {name}" for name in modules(room))
    fresh_python(f"import sys\nsys.modules['torch'] = None\n{lines}")


def test_the_contract_names_the_light_rooms() -> None:
    named = {name.removeprefix("floodstage.") for name in CONTRACTS["forbidden"]["source_modules"]}
    assert named == TENSOR_FREE & set(ROOMS)


@pytest.mark.parametrize("name", ["floodstage", "floodstage.cli.main"])
def test_starting_takes_no_tensor_library(name: str) -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'matplotlib'}"
    assert fresh_python(f"import sys, {name}\nprint({heavy} & set(sys.modules) or '')") == ""


# -- public names -----------------------------------------------------------------------------


def offered(body: list[ast.stmt]) -> set[str]:
    """Public names that the statements bind: definitions, constants, imports from floodstage.

    Imports from elsewhere are tools, not offers. Those under `if TYPE_CHECKING` are looked up when
    they are first used and count as well.
    """
    names: set[str] = set()
    for node in body:
        match node:
            case ast.If():
                names |= offered(node.body) | offered(node.orelse)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.ImportFrom() if node.level or (node.module or "").startswith("floodstage"):
                names |= {alias.asname or alias.name for alias in node.names}
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_all_names_what_the_package_offers() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    assert set(getattr(floodstage, "__all__", ())) == offered(tree.body)


@pytest.mark.parametrize("name", getattr(floodstage, "__all__", ()))
def test_public_names_resolve(name: str) -> None:
    home = getattr(floodstage, name).__module__
    assert home.startswith("floodstage.")


def test_a_name_nobody_knows_is_an_attribute_error() -> None:
    assert not hasattr(floodstage, "no_such_name")


def test_the_version_is_that_of_the_project() -> None:
    assert floodstage.__version__ == PROJECT["project"]["version"]


# -- the lock ---------------------------------------------------------------------------------


def locked() -> dict[str, str]:
    """Versions by normalized name, torch's from the Makefile."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    torch = re.search(r"^TORCH := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert torch is not None
    pins.append(torch[1])
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin), pin
    versions = dict(pin.split("==") for pin in pins)
    assert len(versions) == len(pins)
    return {canonicalize_name(name): version for name, version in versions.items()}


def test_the_lock_holds_a_fitting_version_of_everything_needed() -> None:
    needed = [
        *PROJECT["project"]["dependencies"],
        *PROJECT["dependency-groups"]["dev"],
        *PROJECT["build-system"]["requires"],
    ]
    versions = locked()
    for requirement in map(Requirement, needed):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in requirements.lock"
        assert version in requirement.specifier, f"{requirement} is locked at {version}"
