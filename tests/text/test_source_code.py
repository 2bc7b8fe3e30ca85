"""The built-in corpus of source code: what is held out stays out."""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path

import pytest

from floodstage.core.errors import ConfigError
from floodstage.text.source_code import held_out, prompts, source_files

TRAIN = {f.path: f.text for f in source_files("train", tests=False)}
HELD_OUT = {f.path: f.text for f in source_files("heldout", tests=False)}


def test_no_file_is_in_both_splits() -> None:
    assert not TRAIN.keys() & HELD_OUT.keys()
    assert not set(TRAIN.values()) & set(HELD_OUT.values())
    assert all(held_out(path) for path in HELD_OUT)
    assert not any(held_out(path) for path in TRAIN)


def test_about_one_file_in_twenty_is_held_out() -> None:
    assert len(TRAIN) > 300
    assert 0.02 < len(HELD_OUT) / len(TRAIN) < 0.1


def test_the_library_brings_neither_packages_nor_tests_unasked() -> None:
    assert not any("site-packages" in p for p in TRAIN)
    assert not any(p.startswith("test/") for p in TRAIN)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small library: 120 files of three functions each, far enough down for an opening."""
    for i in range(120):
        lines = [f"# file {i}, line {n}" for n in range(20)]
        lines += [f"def f{k}(x):\n    return x + {k}" for k in range(3)]
        path = tmp_path / f"part{i % 7}" / f"file{i}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    return tmp_path


def test_files_come_in_the_order_of_their_paths(library: Path) -> None:
    both = [[f.path for f in source_files(split)] for split in ("train", "heldout")]
    assert both == [sorted(paths) for paths in both]
    assert sum(map(len, both)) == 120
    assert both[1]


def test_files_that_cannot_be_learnt_from_are_left_out(library: Path) -> None:
    (library / "latin.py").write_bytes(b"# \xe9\n" * 100)
    (library / "short.py").write_text("x = 1\n")
    (library / "long.py").write_text("x = 1\n" * 100_000)
    assert sum(1 for split in ("train", "heldout") for _ in source_files(split)) == 120


def test_prompts_are_the_same_for_the_same_seed(library: Path) -> None:
    first = prompts(8, seed=1)
    assert first == prompts(8, seed=1)
    assert first[:4] == prompts(4, seed=1)
    assert first != prompts(8, seed=2)


def test_prompts_are_openings_of_held_out_functions(library: Path) -> None:
    everything = [f.text for f in source_files("heldout")]
    for prompt in prompts(12, lines=5):
        assert any(prompt in text for text in everything)
        assert len(prompt.splitlines()) == 5
        last = prompt.splitlines()[-1].strip()
        assert isinstance(ast.parse(last + " pass").body[0], ast.FunctionDef)


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(ConfigError, match="Unknown split 'valid'"):
        next(source_files("valid"))  # type: ignore[arg-type]
