"""Prompts from what is built in, and from files."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from floodstage.bench.workloads import load_workload
from floodstage.core.errors import ConfigError
from floodstage.text.mathematics import FAMILIES, problems


@pytest.mark.parametrize(
    ("name", "split"),
    [("mathematics", "heldout"), ("mathematics-phrasings", "heldout-phrasing")],
)
def test_mathematics_is_held_out_and_judged(name: str, split: str) -> None:
    workload = load_workload(name, 12, seed=4)
    asked = list(islice(problems(split, seed=4), 12))  # type: ignore[arg-type]
    assert [item.prompt for item in workload.items] == [p.prompt for p in asked]
    assert workload.digest == load_workload(name, 12, seed=4).digest
    assert workload.digest != load_workload(name, 12, seed=5).digest
    for item, problem in zip(workload.items, asked, strict=True):
        assert item.right is not None
        assert item.right(problem.solution)
        assert not item.right(r"The answer is \boxed{-123456789}.")
        assert item.group in FAMILIES


def test_code_has_prompts_and_no_judge() -> None:
    workload = load_workload("code", 3)
    assert len(workload.items) == 3
    assert all(item.right is None for item in workload.items)


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "p"}, "p"),
        ({"question": "q"}, "q"),
        ({"turns": ["first", "second"]}, "first"),
    ],
)
def test_a_file_may_be_spelt_in_three_ways(
    tmp_path: Path, row: dict[str, object], prompt: str
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text((json.dumps(row) + "\n") * 5)
    assert [item.prompt for item in load_workload(str(path), 3).items] == [prompt] * 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"prompt": "p"}\n{\n', "line 2: expected a JSON object with 'prompt'"),
        (b'{"text": "p"}\n', "line 1: expected"),
        (b"[]\n", "line 1: expected"),
        (b'{"turns": 5}\n', "line 1: expected"),
        (b'{"prompt": "\xff"}\n', "is not UTF-8"),
        (b"", "holds no prompts"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load_workload(str(path), 9)


def test_an_unknown_workload_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'mathematic'. Did you mean 'mathematics'"):
        load_workload("mathematic", 1)
