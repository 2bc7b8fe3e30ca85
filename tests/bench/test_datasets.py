"""Rows of the usual data sets become the usual prompts, and right answers are told from wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from floodstage.bench.datasets import DATASETS, chosen, last_number, question, same_answer
from floodstage.bench.workloads import Workload, load_workload
from floodstage.core.errors import ConfigError

STEPS = "\nPlease reason step by step, and put your final answer within \\boxed{}."
FUNCTION = 'def twice(x: int) -> int:\n    """Twice {x}, so 3 gives 6."""\n'
TALK = ["Name a river.", "Where does it end?"]

ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {
        "question": "A ferry makes 12 trips of 95 people. How many is that?",
        "answer": "Each trip takes 95.\n12 * 95 = <<12*95=1140>>1140 people.\n#### 1,140",
    },
    "math500": {
        "problem": "Solve $2x = 3$.",
        "solution": r"Halve it: $\boxed{\frac{3}{2}}$.",
        "answer": r"\frac{3}{2}",
        "subject": "Algebra",
        "level": 1,
        "unique_id": "test/algebra/0.json",
    },
    "aime24": {
        "id": 1,
        "problem": "Find the remainder.",
        "solution": "It is 33.",
        "answer": "033",
        "url": "",
        "year": "2024",
    },
    "aime25": {"problem_idx": 1, "problem": "Count them.", "answer": 204, "problem_type": []},
    "humaneval": {
        "task_id": "HumanEval/0",
        "prompt": FUNCTION,
        "canonical_solution": "    return 2 * x\n",
        "test": "def check(f): assert f(3) == 6",
        "entry_point": "twice",
    },
    "mbpp": {
        "source_file": "a",
        "task_id": 2,
        "prompt": "Write a function to double a number.",
        "code": "def f(x): return 2 * x",
        "test_imports": [],
        "test_list": ["assert f(3) == 6"],
    },
    "mt-bench": {"category": "writing", "prompt": TALK, "reference": [], "prompt_id": 1},
    "alpaca": {"instruction": "Sort these.", "input": "b, a", "output": "a, b", "text": ""},
}
TURNS = {
    "gsm8k": ["A ferry makes 12 trips of 95 people. How many is that?" + STEPS],
    "math500": ["Solve $2x = 3$." + STEPS],
    "aime24": ["Find the remainder." + STEPS],
    "aime25": ["Count them." + STEPS],
    "humaneval": [
        "Write a solution to the following problem and make sure that it passes the tests:\n"
        f"```python\n{FUNCTION}\n```"
    ],
    "mbpp": ["Write a function to double a number."],
    "mt-bench": TALK,
    "alpaca": ["Sort these.\n\nInput:\nb, a"],
}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def shown(workload: Workload) -> list[tuple[str, ...]]:
    return [item.turns for item in workload.items]


# -- questions --------------------------------------------------------------------------------


def test_the_rows_here_are_of_every_data_set() -> None:
    assert set(ROWS) == set(TURNS) == set(DATASETS)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_asked_in_the_usual_words(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", [ROWS[name]])
    [item] = load_workload(f"{name}={path}", 5).items
    assert list(item.turns) == TURNS[name]
    assert item.group == {"math500": "Algebra", "mt-bench": "writing"}.get(name, "")


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("gsm8k", r"\boxed{1140}", r"12 trips of 1140 are \boxed{13680}"),
        ("gsm8k", "That makes 1,140 people.", "It is 1140 or 1141."),
        ("math500", r"So \boxed{x = \dfrac32}", r"So \boxed{\frac{2}{3}}"),
        ("math500", r"So \boxed{1.5}", "So 3/2"),
        ("aime24", r"\boxed{33}", r"\boxed{330}"),
        ("aime25", r"\boxed{204}", "204"),
    ],
)
def test_answers_are_judged(name: str, right: str, wrong: str) -> None:
    judge = question(name, "row 1", ROWS[name]).right
    assert judge is not None
    assert judge(right)
    assert not judge(wrong)
    assert not judge("")


def test_what_no_pure_function_can_judge_is_not_judged() -> None:
    judged = {n for n, row in ROWS.items() if question(n, "row 1", row).right is not None}
    assert judged == {"gsm8k", "math500", "aime24", "aime25"}


@pytest.mark.parametrize("given", ["", None])
def test_an_instruction_without_input_stands_alone(given: str | None) -> None:
    row = ROWS["alpaca"] | {"input": given}
    assert question("alpaca", "row 1", row).turns == ("Sort these.",)


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("gsm8k", {"problem": "p"}, "needs the column 'question', got the columns 'problem'"),
        ("gsm8k", {"question": "q"}, "needs the column 'answer'"),
        ("gsm8k", {"question": "q", "answer": "many"}, "expected it to end in '#### 42'"),
        ("gsm8k", {"question": None, "answer": "#### 1"}, "'question' is None, expected text"),
        ("math500", {"problem": "p", "answer": [1]}, "expected text or a number"),
        ("math500", {"problem": "p", "answer": ""}, "expected text or a number"),
        ("mt-bench", {"prompt": "hello"}, "'prompt' is 'hello', expected a list of texts"),
        ("mt-bench", {"prompt": ["hello", 5]}, "'prompt' is 5, expected text"),
        ("mbpp", {}, "got the columns none"),
    ],
)
def test_a_row_of_another_kind_is_one_sentence(
    tmp_path: Path, name: str, row: dict[str, Any], said: str
) -> None:
    path = written(tmp_path / "rows.jsonl", [ROWS[name], row])
    with pytest.raises(ConfigError, match=rf"rows\.jsonl' line 2: .*{said}") as caught:
        load_workload(f"{name}={path}", 5)
    assert "\n" not in str(caught.value)


# -- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (r"\frac{14}{3}", r"\tfrac{14}{3}"),
        (r"\frac{14}{3}", "14/3"),
        (r"\frac{1}{2}", "0.5"),
        (r"-\frac12", r"-\dfrac{1}{2}"),
        (r"\frac{\pi}{2}", r"\pi/2"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\dfrac{\pi}{2})"),
        ("11,111,111,100", "11111111100"),
        (r"1{,}000", "1000"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"\text{(C)}", r"\textbf{C}"),
        (r"10\%", "10"),
        (r"\$18.90", "18.9"),
        (r"90^\circ", "90"),
        (r"15\text{ cm}^2", "15"),
        (r"15\,\mathrm{cm}", r"15."),
        (r"x \in [-2,7]", "[-2, 7]"),
        (r"\begin{pmatrix} -2 \\ 1 \end{pmatrix}", r"\begin{pmatrix}-2\\1\end{pmatrix}"),
        (r"3\sqrt{2}", r"3 \sqrt2"),
        ("033", "33"),
    ],
)
def test_the_same_answer_in_other_ornaments(wanted: str, given: str) -> None:
    assert same_answer(wanted, given)
    assert same_answer(given, wanted)


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (r"\frac{14}{3}", r"\frac{3}{14}"),
        (r"\frac{a+b}{c}", "a+b/c"),
        (r"\text{Evelyn}", r"\text{Carla}"),
        ("(3, 4)", "34"),
        ("1,234", "1.234"),
        ("-2", "2"),
        ("1/0", "2/0"),
        (r"\leftarrow", "arrow"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 12 \end{pmatrix}"),
        ("p - q", "q - p"),
        ("5", ""),
        ("33", "3" * 100_000),
    ],
)
def test_another_answer_is_another(wanted: str, given: str) -> None:
    assert not same_answer(wanted, given)
    assert not same_answer(given, wanted)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (r"\boxed{42}", 42),
        (r"\boxed{42.00}", 42),
        (r"\boxed{\$1,234}", 1234),
        (r"\boxed{\frac{84}{2}}", 42),
        (r"\boxed{2 + 40 = 42}", 42),
        (r"\boxed{42 \text{ m}^2} and 7", 42),
        (r"\boxed{42 apples}, 7 left", 42),
        (r"\boxed{42 m^2}", 42),
        (r"\boxed{-3}", -3),
        (r"\boxed{}, I mean 42", 42),
        (r"\boxed{42", 42),
        ("First 7, then 42.", 42),
        ("He owes -3", -3),
        ("45-3", 3),
        ("It costs $1,234.50!", 1234.5),
        ("no number", None),
    ],
)
def test_the_number_of_an_answer(text: str, number: float | None) -> None:
    assert last_number(text) == number


# -- rows -------------------------------------------------------------------------------------


def test_few_rows_of_many_are_shuffled_and_all_of_them_are_not() -> None:
    assert chosen(5, 5, 0) == chosen(5, 9, 1) == [0, 1, 2, 3, 4]
    # `Dataset.shuffle(seed)` of the hub's package permutes by this very generator.
    assert chosen(1319, 8, 0) == list(np.random.default_rng(0).permutation(1319))[:8]
    assert chosen(1319, 8, 0) == chosen(1319, 64, 0)[:8]
    assert chosen(1319, 8, 0) != chosen(1319, 8, 1)


class Hub:
    """Stands for the package `datasets`."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows, self.asked = rows, list[tuple[Any, ...]]()

    def load_dataset(self, repo: str, config: str | None, *, split: str) -> Any:
        self.asked.append((repo, config, split))
        return self.rows


HubOf = Callable[[list[dict[str, Any]]], Hub]


@pytest.fixture
def hub_of(monkeypatch: pytest.MonkeyPatch) -> HubOf:
    def give(rows: list[dict[str, Any]]) -> Hub:
        hub = Hub(rows)
        monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=hub.load_dataset))
        return hub

    return give


MANY = [ROWS["gsm8k"] | {"question": f"What is {i} + 0?"} for i in range(40)]


def test_a_file_with_the_hubs_rows_is_asked_the_hubs_prompts(hub_of: HubOf, tmp_path: Path) -> None:
    path = written(tmp_path / "test.jsonl", MANY)
    hub = hub_of(MANY)
    for seed in (0, 1):
        hubs = load_workload("gsm8k", 6, seed=seed)
        assert shown(hubs) == shown(load_workload(f"gsm8k={path}", 6, seed=seed))
        assert [t[0] for t in shown(hubs)] == [
            MANY[i]["question"] + STEPS for i in chosen(40, 6, seed)
        ]
    assert hub.asked == [("openai/gsm8k", "main", "test")] * 2


@pytest.mark.parametrize("name", ROWS)
def test_the_hub_is_asked_for_the_repository_of_the_table(hub_of: HubOf, name: str) -> None:
    hub = hub_of([ROWS[name]])
    assert [list(turns) for turns in shown(load_workload(name, 3))] == [TURNS[name]]
    data = DATASETS[name]
    assert hub.asked == [(data.repo, data.config, data.split)]


def test_a_row_of_the_hub_of_another_kind_is_named(hub_of: HubOf) -> None:
    hub_of([ROWS["mbpp"], {"text": "t"}])
    with pytest.raises(ConfigError, match=r"'google-research-datasets/mbpp' row 2: .*'prompt'"):
        load_workload("mbpp", 2)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError) as caught:
        load_workload("gsm8k", 2)
    assert "pip install 'floodstage[data]'" in str(caught.value)
    assert "gsm8k=path/to/rows.jsonl" in str(caught.value)


def test_a_hub_out_of_reach_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach it\nand a long story")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=fail))
    with pytest.raises(ConfigError) as caught:
        load_workload("math500", 2)
    said = str(caught.value)
    assert "'HuggingFaceH4/MATH-500' (ConnectionError: Couldn't reach it)" in said
    assert "math500=path/to/rows.jsonl" in said
    assert "\n" not in said


def test_a_file_needs_neither_package_nor_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    path = written(tmp_path / "test.jsonl", MANY)
    assert len(load_workload(f"gsm8k={path}", 6).items) == 6


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gsm8k=", "'.' is not a file"),
        ("gsm8k=nothing.jsonl", r"'nothing\.jsonl' is not a file: expected rows of 'gsm8k'"),
        ("gsm=nothing.jsonl", "Unknown data set 'gsm'. Did you mean 'gsm8k'"),
        ("humanevil", "Unknown workload .* 'humanevil'. Did you mean 'humaneval'"),
    ],
)
def test_a_wrong_name_is_one_sentence(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_workload(name, 2)
