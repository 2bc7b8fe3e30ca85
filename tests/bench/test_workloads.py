"""Prompts from what is built in, and from files."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from floodstage.bench.workloads import Item, Workload, load_workload
from floodstage.core.errors import ConfigError, ContextError
from floodstage.engine.engine import Engine
from floodstage.engine.options import Options
from floodstage.text.mathematics import FAMILIES, problems
from floodstage.text.tokenizer import train_bpe


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
    ("row", "turns"),
    [
        ({"prompt": "p"}, ("p",)),
        ({"question": "q"}, ("q",)),
        ({"prompt": "", "question": "q"}, ("q",)),
        ({"turns": ["first", "second"]}, ("first", "second")),
        ({"turns": [], "prompt": "p"}, ("p",)),
    ],
)
def test_a_file_may_be_spelt_in_three_ways(
    tmp_path: Path, row: dict[str, object], turns: tuple[str, ...]
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text((json.dumps(row) + "\n") * 5)
    items = load_workload(str(path), 3).items
    assert [item.turns for item in items] == [turns] * 3
    assert [item.prompt for item in items] == [turns[0]] * 3


def test_a_file_is_asked_from_its_top_and_read_no_further(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(f'{{"prompt": "{i}"}}\n' for i in range(30)) + "broken")
    asked = [item.prompt for item in load_workload(str(path), 30, seed=3).items]
    assert asked == [str(i) for i in range(30)]
    with pytest.raises(ConfigError, match="line 31: expected a JSON object, got 'broken'"):
        load_workload(str(path), 31)


def test_every_turn_counts_in_the_digest() -> None:
    def digest(*items: Item) -> str:
        return Workload("x", items).digest

    talk = digest(Item("a", later=("b",)))
    assert talk == digest(Item("a", later=("b",), group="other"))
    assert len({talk, digest(Item("a")), digest(Item("a"), Item("b")), digest(Item("ab"))}) == 4


def test_a_conversation_goes_on_with_the_answers() -> None:
    item = Item("one", later=("two", "three"))
    assert item.asked() == "one"
    assert item.asked(["1"]) == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "two"},
    ]
    assert item.asked(["1", "2"])[3:] == [
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "three"},
    ]
    with pytest.raises(IndexError):
        item.asked(["1", "2", "3"])


def test_an_engine_is_asked_the_conversation_so_far() -> None:
    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    tokenizer = train_bpe(["three plus four"], 258, template=template)
    nothing: Any = None
    target: Any = SimpleNamespace(context=80)
    engine = Engine("x", target, tokenizer, nothing, nothing, nothing)
    item = Item("3 + 4?", later=("surely?",))

    def asked(*answers: str, **options: Any) -> str:
        request = engine.request(item.asked(answers), Options(**options))
        assert request.max_new_tokens == 80 - len(request.prompt)
        return tokenizer.decode(request.prompt)

    assert asked() == "<user>3 + 4?<assistant>"
    assert asked("7") == "<user>3 + 4?<assistant>7<user>surely?<assistant>"
    assert asked("7", chat=False) == "3 + 4?\n7\nsurely?"
    with pytest.raises(ContextError, match="context is 80"):
        asked("7" * 80)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"prompt": "p"}\n{\n', "line 2: expected a JSON object, got '{'"),
        (b'{"text": "p"}\n', "line 1: expected a JSON object with 'prompt', 'question' or 'turns'"),
        (b"[]\n", r"line 1: expected a JSON object, got '\[\]'"),
        (b"[" * 99_999 + b"\n", r"line 1: expected a JSON object, got '\[{60}'"),
        (b'{"turns": 5}\n', "line 1: .*'turns' is 5, expected a list of texts"),
        (b'{"turns": "five"}\n', "line 1: .*'turns' is 'five', expected a list of texts"),
        (b'{"turns": ["a", ""]}\n', "line 1: .*'turns' is '', expected text"),
        (b'{"prompt": 5}\n', "line 1: .*'prompt' is 5, expected text"),
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
