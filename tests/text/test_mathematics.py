"""The worked-mathematics corpus: its equations are true, its splits disjoint, its answers right."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import islice, pairwise
from typing import get_args

import pytest

from floodstage.core.errors import ConfigError
from floodstage.text.mathematics import FAMILIES, Problem, Split, boxed, is_right, problems
from floodstage.text.mathematics_families import REGISTRY, write_product, write_quotient, write_sum

# --- An evaluator of its own, so that no line of the generator judges itself ---------------------

_TOKEN = re.compile(r"\d+|[-+×÷/()]")
_CHAIN = re.compile(r"[-\d+×÷/() ]+(?:=[-\d+×÷/() ]+)+")
_WEIGHT = {"+": 1, "-": 1, "×": 2, "÷": 2, "/": 2}
_APPLY: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "×": operator.mul,
    "÷": operator.truediv,
    "/": operator.truediv,
}


def value(expression: str) -> Fraction:
    tokens = _TOKEN.findall(expression)
    result, rest = _operation(tokens, 0)
    assert not rest, f"{expression!r} does not end where an expression ends"
    return result


def _operation(tokens: list[str], least: int) -> tuple[Fraction, list[str]]:
    left, tokens = _operand(tokens)
    while tokens and _WEIGHT.get(tokens[0], -1) >= max(least, 1):
        sign = tokens[0]
        right, tokens = _operation(tokens[1:], _WEIGHT[sign] + 1)
        left = _APPLY[sign](left, right)
    return left, tokens


def _operand(tokens: list[str]) -> tuple[Fraction, list[str]]:
    if tokens[0] != "(":
        return Fraction(tokens[0]), tokens[1:]
    inner, rest = _operation(tokens[1:], 0)
    assert rest[0] == ")"
    return inner, rest[1:]


def chains(problem: Problem, text: str) -> list[list[str]]:
    """Every run of "... = ... = ..." in a solution, with the unknown replaced by the answer."""
    if problem.family == "equation":
        text = re.sub(r"(?<=\d)[xynkm]\b", f" × {problem.answer}", text)
        text = re.sub(r"\b[xynkm](?= =)", problem.answer, text)
    found = []
    for chain in _CHAIN.findall(text):
        found.append([side.strip() for side in chain.split("=") if side.strip()])
    return found


def false_equations(problem: Problem, text: str) -> list[str]:
    wrong = []
    for sides in chains(problem, text):
        wrong += [f"{a} = {b}" for a, b in pairwise(sides) if value(a) != value(b)]
    return wrong


def sample(split: Split, count: int, **options: object) -> list[Problem]:
    return list(islice(problems(split, **options), count))  # type: ignore[arg-type]


EVERY = [p for split in get_args(Split) for p in sample(split, 1050, seed=7)]


# --- The solutions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("2 + 3 × 4", 14),
        ("(2 + 3) × 4", 20),
        ("20 - 3 - 4", 13),
        ("7 - 7", 0),
        ("(18 ÷ 6)/(24 ÷ 6)", Fraction(3, 4)),
        ("1/2 + 1/3", Fraction(5, 6)),
    ],
)
def test_the_evaluator(expression: str, expected: Fraction) -> None:
    assert value(expression) == expected


def test_every_written_equation_is_true() -> None:
    assert len(EVERY) >= 3000
    for problem in EVERY:
        assert chains(problem, problem.solution), problem.solution
        assert not false_equations(problem, problem.solution), problem.solution


def test_a_corrupted_digit_is_noticed() -> None:
    noticed = total = 0
    for problem in EVERY[:420]:
        for match in re.finditer(r"(?<== )\d+", problem.solution):
            place = match.end() - 1
            digit = str((int(problem.solution[place]) + 1) % 10)
            text = problem.solution[:place] + digit + problem.solution[place + 1 :]
            total += 1
            noticed += _is_flawed(problem, text)
    assert total > 1000
    assert noticed == total


def _is_flawed(problem: Problem, text: str) -> bool:
    try:
        return bool(false_equations(problem, text))
    except ZeroDivisionError:
        return True


def test_a_corrupted_answer_is_wrong() -> None:
    for problem in EVERY[:420]:
        box = problem.solution.rindex(problem.answer)
        wrong = str((int(problem.solution[box]) + 1) % 10)
        assert is_right(problem, problem.solution)
        assert not is_right(problem, problem.solution[:box] + wrong + problem.solution[box + 1 :])


def test_a_solution_ends_in_its_answer_in_a_box() -> None:
    for problem in EVERY:
        assert boxed(problem.solution) == problem.answer
        last = problem.solution.splitlines()[-1]
        assert last == f"The answer is \\boxed{{{problem.answer}}}."


def test_the_answer_stands_in_the_step_before_the_box() -> None:
    for problem in EVERY:
        assert problem.answer in "\n".join(problem.solution.splitlines()[:-1])


def test_texts_are_clean_and_of_moderate_length() -> None:
    for problem in EVERY:
        assert "{" not in problem.prompt
        assert problem.prompt == problem.prompt.strip()
        assert "\n" not in problem.prompt
        assert 20 <= len(problem.solution.split()) <= 130, problem.solution
        assert all(int(n) < 10_000 for n in re.findall(r"\d+", problem.solution))


# --- The answers, recomputed from the prompts ---------------------------------------------------


def _evaluated(prompt: str) -> Fraction:
    match = re.search(r"[(\d][-\d+×÷/() ]*\d\)?", prompt)
    assert match
    return value(match[0])


def _equation(numbers: list[int], prompt: str) -> int:
    a, b, c = numbers
    return (c - b if "+" in prompt else c + b) // a


def _percentage(numbers: list[int], prompt: str) -> int:
    return numbers[0] * numbers[1] // 100


# Families whose result does not hang on the order of the numbers in the prompt.
RECOMPUTED: dict[str, Callable[[list[int], str], object]] = {
    "addition": lambda n, _: sum(n),
    "subtraction": lambda n, _: max(n) - min(n),
    "multiplication": lambda n, _: n[0] * n[1],
    "division": lambda n, _: max(n) // min(n),
    "remainder": lambda n, _: f"{max(n) // min(n)} remainder {max(n) % min(n)}",
    "order-of-operations": lambda _, prompt: _evaluated(prompt),
    "sequence": lambda n, _: 2 * n[-1] - n[-2],
    "equation": _equation,
    "lowest-terms": lambda n, _: Fraction(n[0], n[1]),
    "fraction-sum": lambda n, _: Fraction(n[0], n[1]) + Fraction(n[2], n[3]),
    "percentage": _percentage,
    "perimeter": lambda n, _: 2 * (n[0] + n[1]),
    "area": lambda n, _: n[0] * n[1],
    "distance": lambda n, _: n[0] * n[1],
    "speed": lambda n, _: max(n) // min(n),
}


@pytest.mark.parametrize("family", RECOMPUTED)
def test_answers_recomputed_from_the_prompt(family: str) -> None:
    for split in get_args(Split):
        for problem in sample(split, 100, seed=3, families=[family]):
            numbers = [int(n) for n in re.findall(r"\d+", problem.prompt)]
            assert problem.answer == str(RECOMPUTED[family](numbers, problem.prompt)), (
                problem.prompt
            )


def test_boxes_are_counted_right() -> None:
    for problem in sample("train", 300, families=["boxes"]):
        n, k, g = (int(number) for number in re.findall(r"\d+", problem.prompt))
        assert problem.answer == str(n * k - g)


def test_conversions_are_right() -> None:
    factors = {
        ("hours", "minutes"): 60, ("minutes", "seconds"): 60, ("days", "hours"): 24,
        ("weeks", "days"): 7, ("years", "months"): 12, ("metres", "centimetres"): 100,
        ("centimetres", "millimetres"): 10, ("feet", "inches"): 12, ("euros", "cents"): 100,
    }  # fmt: skip
    for problem in sample("train", 300, families=["conversion"]):
        (n, big), (k, small) = re.findall(r"(\d+) (\w+)", problem.prompt)
        assert problem.answer == str(int(n) * factors[big, small] + int(k))


def test_the_boxes_problem_comes_with_and_without_its_question() -> None:
    prompts = [p.prompt for p in sample("train", 600, families=["boxes"])]
    statement = r"\w+ has \d+ \w+ of \d+ \w+\. S?[Hh]e gives away \d+ \w+\."
    assert any(re.fullmatch(statement, prompt) for prompt in prompts)
    assert any(re.fullmatch(statement + r" How many \w+ are left\?", p) for p in prompts)


# --- The step writers ---------------------------------------------------------------------------


def test_step_writers() -> None:
    assert write_product(7, 12) == "7 × 12 = 84"
    assert write_product(17, 4) == "17 × 4 = 10 × 4 + 7 × 4 = 40 + 28 = 60 + 8 = 68"
    assert write_product(17, 24) == "17 × 24 = 17 × 20 + 17 × 4 = 340 + 68 = 400 + 8 = 408"
    assert write_product(20, 28) == "20 × 28 = 20 × 20 + 20 × 8 = 400 + 160 = 500 + 60 = 560"
    assert write_quotient(84, 7) == "84 ÷ 7 = 12 because 7 × 12 = 84"
    assert write_quotient(119, 7) == "119 ÷ 7 = 70 ÷ 7 + 49 ÷ 7 = 10 + 7 = 17"
    assert write_sum(347, 268) == "347 + 268 = 547 + 68 = 607 + 8 = 615"
    assert write_sum(340, 60) == "340 + 60 = 400"


# --- Splits, seeds, shares ----------------------------------------------------------------------


def test_no_held_out_problem_is_ever_trained_on() -> None:
    train = {p.key for seed in range(3) for p in sample("train", 6000, seed=seed)}
    for split in ("heldout", "heldout-phrasing"):
        assert train.isdisjoint(p.key for p in sample(split, 1500, seed=1))


def test_held_out_phrasings_stay_held_out() -> None:
    phrasings = {split: {p.phrasing for p in sample(split, 1500)} for split in get_args(Split)}
    assert phrasings["train"] == phrasings["heldout"]
    assert phrasings["train"].isdisjoint(phrasings["heldout-phrasing"])
    for problem in EVERY:
        number = int(problem.phrasing.partition("/")[2])
        assert problem.held_out_phrasing == (number > len(REGISTRY[problem.family].asks))


def test_every_family_has_enough_phrasings() -> None:
    assert len(FAMILIES) >= 14
    for family in REGISTRY.values():
        assert len(family.asks) + len(family.fresh) >= 6
        assert 1 <= len(family.fresh) <= 2


@pytest.mark.parametrize("split", get_args(Split))
def test_the_same_seed_gives_the_same_problems(split: Split) -> None:
    assert sample(split, 100, seed=5) == sample(split, 100, seed=5)
    assert sample(split, 100, seed=5) != sample(split, 100, seed=6)


def test_every_family_has_an_equal_share() -> None:
    shares = Counter(p.family for p in sample("train", 10 * len(FAMILIES)))
    assert shares == dict.fromkeys(FAMILIES, 10)


def test_families_can_be_chosen() -> None:
    assert {p.family for p in sample("train", 50, families=["boxes", "area"])} == {"boxes", "area"}


@pytest.mark.parametrize("families", [["boxs"], []])
def test_an_unknown_or_empty_choice_of_families_is_an_error(families: list[str]) -> None:
    with pytest.raises(ConfigError, match="famil"):
        problems("train", families=families)


def test_an_unknown_split_is_an_error() -> None:
    with pytest.raises(ConfigError, match="'test'"):
        problems("test")  # type: ignore[arg-type]


def test_a_key_is_the_hash_of_the_prompt_alone() -> None:
    problem = EVERY[0]
    assert replace(problem, solution="", answer="").key == problem.key
    assert replace(problem, prompt=problem.prompt + " ").key != problem.key


# --- Boxes and comparison -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"The answer is \boxed{349}.", "349"),
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{\frac{3}{4}}", r"\frac{3}{4}"),
        (r"\boxed{3", None),
        ("349", None),
        ("", None),
        (r"\boxed{}", ""),
    ],
)
def test_boxed(text: str, content: str | None) -> None:
    assert boxed(text) == content


@pytest.mark.parametrize(
    ("answer", "text", "right"),
    [
        ("349", r"\boxed{349}", True),
        ("349", r"\boxed{ $349$. }", True),
        ("349", r"\boxed{349 \text{ pens}}", True),
        ("5", r"\boxed{x = 5}", True),
        ("3/4", r"\boxed{\frac{3}{4}}", True),
        ("3/4", r"\boxed{6/8}", False),
        ("1200", r"\boxed{1,200}", True),
        ("6 remainder 3", r"\boxed{6 Remainder 3}", True),
        ("349", r"\boxed{348}", False),
        ("349", "349", False),
        ("349", r"\boxed{}", False),
    ],
)
def test_is_right(answer: str, text: str, right: bool) -> None:
    problem = Problem("boxes", "boxes/1", "", "", answer, False)
    assert is_right(problem, text) is right
