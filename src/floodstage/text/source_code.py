"""The built-in corpus "source code": Python's own standard library, as it is installed.

A file is held out by a hash of its path inside the library, so that training text and held-out
text never share a file. Knows no tokens.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from floodstage.core.errors import unknown

Split = Literal["train", "heldout"]
_HELD_OUT_BUCKETS = 20
_SKIP = ("site-packages", "__pycache__", "lib2to3", "idlelib")


@dataclass(frozen=True, slots=True)
class SourceFile:
    path: str  # inside the library, with forward slashes
    text: str


def held_out(path: str) -> bool:
    """Whether the file at `path` (inside the library) is kept from training: 1 in 20."""
    digest = hashlib.sha256(path.encode()).digest()
    return digest[0] % _HELD_OUT_BUCKETS == 0


def source_files(split: Split, *, tests: bool = True) -> Iterator[SourceFile]:
    """The library's files in order of their paths. Generated tables and files that are not UTF-8
    are left out; `tests` includes the library's own tests."""
    if split not in ("train", "heldout"):
        raise unknown("split", split, ("train", "heldout"))
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        parts = name.split("/")
        if any(skip in parts for skip in _SKIP) or (not tests and "test" in parts):
            continue
        if held_out(name) != (split == "heldout") or "encodings/" in name:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if 200 < len(text) < 400_000:
            yield SourceFile(name, text)


def prompts(count: int, *, seed: int = 0, lines: int = 8) -> list[str]:
    """`count` openings of held-out files' functions: up to `lines` lines that end with a `def`."""
    found: list[str] = []
    for file in source_files("heldout"):
        rows = file.text.splitlines()
        for i, row in enumerate(rows):
            if row.lstrip().startswith("def ") and row.rstrip().endswith(":") and i >= lines:
                found.append("\n".join(rows[i - lines + 1 : i + 1]) + "\n")
    found.sort(key=lambda text: hashlib.sha256(f"{seed}:{text}".encode()).digest())
    return found[:count]
