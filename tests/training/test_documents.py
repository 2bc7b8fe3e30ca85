"""Texts become batches, the same ones however often a run was killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from floodstage.core.errors import ConfigError
from floodstage.text.mathematics import problems
from floodstage.text.tokenizer import train_bpe
from floodstage.training.documents import (
    Batch,
    Documents,
    Pair,
    batches,
    collate,
    corpus,
    encode_pairs,
)

BPE = train_bpe([p.prompt + p.solution for p in islice(problems("train"), 100)], 300)
SIZES = [3 + 7 * i % 23 for i in range(60)]
TEXTS = Documents.of([[100 + i] * size for i, size in enumerate(SIZES)], [i % 3 for i in range(60)])


def numbers(batch: Batch) -> list[int]:
    """Which texts a batch holds."""
    return [int(row[0]) - 100 for row in batch.ids]


def rows(start: int = 0, seed: int = 0) -> Iterator[list[int]]:
    return map(numbers, batches(TEXTS, 80, seed=seed, start=start))


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    whole = list(islice(rows(), 60))  # several epochs
    for start in (0, 1, 7, 13, 14, 40):
        assert list(islice(rows(start), 60 - start)) == whole[start:]


def test_another_seed_is_another_order() -> None:
    assert list(islice(rows(seed=0), 8)) != list(islice(rows(seed=1), 8))


def test_an_epoch_holds_every_text_once() -> None:
    seen: list[int] = []
    for batch in rows():
        seen += batch
        if len(seen) >= 60:
            break
    assert sorted(seen) == list(range(60))


def test_a_batch_holds_no_more_than_was_asked_for() -> None:
    for batch in islice(batches(TEXTS, 80, seed=0), 30):
        assert batch.ids.numel() <= 80


def test_a_text_longer_than_a_batch_has_one_of_its_own() -> None:
    long = Documents.of([[1] * 300, [2] * 5], [0, 0])
    sizes = {batch.ids.shape for batch in islice(batches(long, 80, seed=0), 2)}
    assert sizes == {(1, 300), (1, 5)}


def test_only_the_answer_is_learnt_and_never_the_padding() -> None:
    two = Documents.of([[5, 6, 7, 8], [9, 10]], [2, 0])
    batch = collate(two, np.array([0, 1]), pad=0)
    assert batch.ids.tolist() == [[5, 6, 7, 8], [9, 10, 0, 0]]
    # The first token of all follows nothing.
    assert batch.learn.tolist() == [[False, False, True, True], [False, True, False, False]]


def test_a_text_ends_with_the_stop_id_and_is_cut_where_it_is_too_long() -> None:
    texts = encode_pairs([Pair("3 + 4?\n", "7"), Pair("", "abcdef " * 9)], BPE, longest=20)
    first = texts.text(0).tolist()
    assert first == [*BPE.encode("3 + 4?\n"), *BPE.encode("7"), 0]
    assert texts.prompts[0] == len(BPE.encode("3 + 4?\n"))
    whole = [*BPE.encode("abcdef " * 9), 0]
    pieces = [texts.text(i).tolist() for i in range(1, len(texts))]
    assert [x for piece in pieces for x in piece] == whole[: sum(map(len, pieces))]
    assert max(map(len, pieces)) == 20
    assert set(texts.prompts[1:]) == {0}


def test_a_corpus_without_texts_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to learn"):
        encode_pairs([], BPE, longest=20)


# -- corpora ----------------------------------------------------------------------------------


def test_the_splits_of_a_built_in_corpus_share_nothing() -> None:
    train = {p.prompt for p in corpus("mathematics", "train", 300, seed=0)}
    held_out = {p.prompt for p in corpus("mathematics", "heldout", 100, seed=0)}
    assert len(held_out) > 50
    assert not train & held_out
    one = next(corpus("source", "train", 1, seed=0))
    assert one.prompt == ""
    assert one.response != next(corpus("source", "heldout", 1, seed=0)).response


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        ({"text": "t"}, Pair("", "t")),
        ({"prompt": "p", "response": "r"}, Pair("p\n", "r")),
        ({"question": "q", "answer": "a"}, Pair("q\n", "a")),
    ],
)
def test_a_jsonl_file_may_be_spelt_in_three_ways(
    tmp_path: Path, row: dict[str, str], pair: Pair
) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text((json.dumps(row) + "\n") * 40)
    assert list(corpus(str(path), "train", 99, seed=0)) == [pair] * 38
    assert list(corpus(str(path), "heldout", 99, seed=0)) == [pair] * 2


def test_a_text_file_is_cut_at_its_paragraphs(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(f"paragraph {i}" for i in range(200)))
    train = [p.response for p in corpus(str(path), "train", 99, seed=0)]
    held_out = [p.response for p in corpus(str(path), "heldout", 99, seed=0)]
    assert "\n\n".join(held_out + train) == path.read_text()
    assert (len(held_out), len(train)) == (1, 4)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "line 2: expected a JSON object"),
        (b"5", "line 2: expected"),
        (b'{"story": "x"}', "line 2: expected"),
        (b'{"text": "\xff"}', "is not UTF-8"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b'{"text": "t"}\n' + line + b"\n")
    with pytest.raises(ConfigError, match=said):
        list(corpus(str(path), "train", 99, seed=0))


def test_an_unknown_corpus_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'mathematic'. Did you mean 'mathematics'"):
        list(corpus("mathematic", "train", 1, seed=0))


def test_ids_of_any_vocabulary_are_kept(tmp_path: Path) -> None:
    large: Any = Documents.of([[70_000, 150_000]], [0])
    assert large.text(0).tolist() == [70_000, 150_000]
    assert collate(large, np.array([0]), 0).ids.dtype == torch.int64
