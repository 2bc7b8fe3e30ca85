"""Characters, chunks, roots: every entry can be rendered, every text comes back."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.flood.tiny import SHAPE, texts, tiny_hierarchy

from floodstage.core.errors import CheckpointError, ConfigError
from floodstage.text.hierarchy import (
    BYTES,
    SPECIAL,
    Hierarchy,
    HierarchyShape,
    fit_hierarchy,
)
from floodstage.text.tokenizer import HIERARCHY, Tokenizer


@settings(deadline=None)
@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    hierarchy = tiny_hierarchy()
    roots = hierarchy.encode(text)
    assert hierarchy.text(hierarchy.spell(roots)) == text
    assert hierarchy.tokenizer.decode([r + SPECIAL for r in roots]) == text


@pytest.mark.parametrize("text", ["<|mask|>", "a <|endoftext|> b", "<0x41>", "\r\n\t\x00", "😀é∑"])
def test_what_looks_special_is_text(text: str) -> None:
    hierarchy = tiny_hierarchy()
    assert hierarchy.text(hierarchy.spell(hierarchy.encode(text))) == text


def test_no_entry_is_longer_than_the_slots() -> None:
    hierarchy = tiny_hierarchy()
    assert {len(c) for c in hierarchy.root_chunks} == {1, 2, 3}
    assert max(len(c) for c in hierarchy.chunk_chars) <= SHAPE.chars_per_chunk
    # The longest allowed does occur, where the text asks for nothing else.
    full = fit_hierarchy(
        ["abcdef " * 50] * 9, HierarchyShape(chunks=268, roots=268, chars_per_chunk=6)
    )
    assert max(len(c) for c in full.chunk_chars) == 6
    assert all(0 <= c < hierarchy.chunks for row in hierarchy.root_chunks for c in row)
    assert all(0 <= c < hierarchy.chars for row in hierarchy.chunk_chars for c in row)
    assert hierarchy.roots == SHAPE.roots
    assert hierarchy.chunks == SHAPE.chunks
    # Each id is its own spelling, and no two roots are spelt alike.
    spelt = [hierarchy.text(hierarchy.spell([r])) for r in range(BYTES, hierarchy.roots)]
    assert len(set(spelt)) == len(spelt)


def test_roots_span_words_unless_told_otherwise() -> None:
    def across(hierarchy: Hierarchy) -> int:
        spelt = [hierarchy.text(hierarchy.spell([r])) for r in range(hierarchy.roots)]
        return sum(" " in s.strip() for s in spelt)

    inside = fit_hierarchy(texts(), HierarchyShape(chunks=380, roots=420, phrases=False))
    assert across(tiny_hierarchy()) > 10
    assert across(inside) == 0


def test_the_report_adds_up() -> None:
    hierarchy = tiny_hierarchy()
    roots = hierarchy.encode("\n".join(texts()[:20]))
    found = dict(hierarchy.report(roots))
    assert found["characters in the text"] == len("\n".join(texts()[:20]))
    assert found["roots in the text"] == len(roots)
    assert found["chunks in the text"] == sum(len(hierarchy.root_chunks[r]) for r in roots)
    assert found["characters per root"] == pytest.approx(
        found["characters per chunk"] * found["chunks per root"]
    )
    assert found["chunk slots used, %"] == pytest.approx(100 * found["chunks per root"] / 3)
    assert found["characters written as bytes, %"] == 0
    assert dict(hierarchy.report(hierarchy.encode("😀")))["characters written as bytes, %"] == 100


def test_it_is_kept_without_pickle_and_read_by_others(tmp_path: Path) -> None:
    hierarchy = tiny_hierarchy()
    hierarchy.save(tmp_path)
    again = Hierarchy.load(tmp_path)
    text = texts()[5]
    assert again.encode(text) == hierarchy.encode(text)
    assert again.root_chunks == hierarchy.root_chunks
    assert again.chunk_chars == hierarchy.chunk_chars
    plain = Tokenizer.load(tmp_path)
    assert plain.encode(text) == tuple(r + SPECIAL for r in hierarchy.encode(text))
    assert {p.suffix for p in tmp_path.iterdir()} == {".json"}


def test_a_corpus_is_encoded_in_seconds() -> None:
    text = ("\n".join(texts()) * 40)[:1_000_000]
    start = time.perf_counter()
    tiny_hierarchy().encode(text)
    assert time.perf_counter() - start < 20  # about 0.6 s alone on one core


def test_broken_and_missing_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not the folder of a manager"):
        Hierarchy.load(tmp_path)
    tiny_hierarchy().save(tmp_path)
    path = tmp_path / HIERARCHY
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw)[:40])
    with pytest.raises(CheckpointError, match="cannot be read"):
        Hierarchy.load(tmp_path)
    raw["shape"]["chars_per_chunk"] = 2
    path.write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match="a chunk of 5 characters"):
        Hierarchy.load(tmp_path)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="256 < chunks <= roots"):
        HierarchyShape(chunks=500, roots=400)
    with pytest.raises(ConfigError, match="fewer than the"):
        fit_hierarchy(["only a little text"], HierarchyShape())


def test_a_large_alphabet_leaves_room_for_merges() -> None:
    """The rarest are written in bytes, and comes back all the same."""
    text = "".join(chr(0x4E00 + i % 900) * (1 + i % 3) for i in range(20_000))
    shape = HierarchyShape(chunks=456, roots=600)
    hierarchy = fit_hierarchy([text], shape)
    assert hierarchy.chars == BYTES + 150
    assert hierarchy.chunks == 456
    assert hierarchy.roots == 600
    assert hierarchy.text(hierarchy.spell(hierarchy.encode(text))) == text
