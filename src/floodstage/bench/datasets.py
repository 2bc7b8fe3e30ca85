r"""The usual data sets of the field: where their rows are, how a row is asked, what is right.

Rows come from the Hugging Face hub, or from a JSONL file with the same columns; the prompts are
those of the published comparisons of speculative decoding. Knows no model and no tokenizer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from floodstage.core.errors import ConfigError
from floodstage.text.mathematics import boxed

Row: TypeAlias = Mapping[str, Any]
Check: TypeAlias = Callable[[str], bool]

# -- rows -------------------------------------------------------------------------------------


def load_rows(name: str, path: Path | None, count: int, *, seed: int) -> Iterator[tuple[str, Row]]:
    """`count` rows of a data set, each with the words that say where it stands. `path` None asks
    the hub. Raises ConfigError."""
    data = DATASETS[name]
    rows: Sequence[Row]
    if path is None:
        rows, where = _from_hub(name, data), f"{data.repo!r} row"
    elif path.is_file():
        rows, where = list(read_jsonl(path)), f"{str(path)!r} line"
    else:
        raise ConfigError(
            f"{str(path)!r} is not a file: expected rows of {name!r}, a JSON object on every line."
        )
    for i in chosen(len(rows), count, seed):
        yield f"{where} {i + 1}", rows[i]


def chosen(total: int, count: int, seed: int) -> list[int]:
    """Which rows are asked, in order: all as they stand, or `count` of them shuffled.

    These are the rows of `dataset.shuffle(seed).select(range(count))`, wherever they come from:
    a file that holds the hub's rows is asked the hub's prompts.
    """
    if count >= total:
        return list(range(total))
    picked: list[int] = np.random.default_rng(seed).permutation(total)[:count].tolist()
    return picked


def read_jsonl(path: Path) -> Iterator[Row]:
    """The objects of a JSONL file as they are read. Raises ConfigError for any other line."""
    with path.open(encoding="utf-8") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                row = _parsed(line)
                if not isinstance(row, dict):
                    got = repr(line.rstrip("\n")[:60])
                    raise ConfigError(
                        f"{str(path)!r} line {number}: expected a JSON object, got {got}."
                    )
                yield row
        except UnicodeDecodeError as error:
            raise ConfigError(f"{str(path)!r} is not UTF-8 text: {error}.") from error


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # a line of brackets alone nests deeper than Python does
        return None


def _from_hub(name: str, data: DataSet) -> Sequence[Row]:
    instead = f"or give its rows as a file: {name}=path/to/rows.jsonl"
    try:
        import datasets  # an extra, and seconds to import
    except ImportError as error:
        raise ConfigError(
            f"The data set {name!r} is read from the hub by the package 'datasets', which cannot "
            f"be imported ({error}): pip install 'floodstage[data]', {instead}."
        ) from error
    try:
        rows: Sequence[Row] = datasets.load_dataset(data.repo, data.config, split=data.split)
    except Exception as error:  # the client, the network and the reader raise of many kinds
        said = (str(error).strip().splitlines() or [""])[0]
        raise ConfigError(
            f"The hub does not give {data.repo!r} ({type(error).__name__}: {said}): see that it "
            f"can be reached, {instead}."
        ) from error
    return rows


# -- questions --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """`ask` gives the turns of a row; `check` the judge of its answer, where one can be judged.
    Both raise KeyError for a column that is not there, ValueError for one of another kind."""

    repo: str
    config: str | None = None
    split: str
    ask: Callable[[Row], Sequence[str]]
    check: Callable[[Row], Check] | None = None
    group: str | None = None  # the column that names a row's kind


@dataclass(frozen=True, slots=True)
class Question:
    turns: tuple[str, ...]
    right: Check | None
    group: str


def question(name: str, where: str, row: Row) -> Question:
    """What a row of the data set `name` asks. `where` it stands is for the ConfigError."""
    data = DATASETS[name]
    try:
        turns = tuple(data.ask(row))
        right = None if data.check is None else data.check(row)
    except KeyError as error:
        had = ", ".join(map(repr, sorted(row))) or "none"
        raise ConfigError(
            f"{where}: a row of {name!r} needs the column {error}, got the columns {had}."
        ) from error
    except ValueError as error:
        raise ConfigError(f"{where}: in a row of {name!r}, {error}.") from error
    return Question(turns, right, str(row.get(data.group) or "") if data.group else "")


def text_of(row: Row, column: str) -> str:
    """A column that holds text. Raises KeyError, ValueError."""
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{column!r} is {value!r}, expected text")
    return value


def turns_of(row: Row, column: str) -> tuple[str, ...]:
    """A column that holds the user's turns of a conversation. Raises KeyError, ValueError."""
    value = row[column]
    # An array of the hub is a list here, a file's too; a string would be its letters.
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"{column!r} is {value!r}, expected a list of texts")
    return tuple(text_of({column: turn}, column) for turn in value)


def _boxed(column: str) -> Callable[[Row], tuple[str]]:
    closing = "Please reason step by step, and put your final answer within \\boxed{}."
    return lambda row: (f"{text_of(row, column)}\n{closing}",)


def _instruction(row: Row) -> tuple[str]:
    text = text_of(row, "instruction")
    return (f"{text}\n\nInput:\n{text_of(row, 'input')}" if row.get("input") else text,)


def _function(row: Row) -> tuple[str]:
    opening = "Write a solution to the following problem and make sure that it passes the tests:"
    return (f"{opening}\n```python\n{text_of(row, 'prompt')}\n```",)


# -- answers ----------------------------------------------------------------------------------


def same_answer(wanted: str, given: str) -> bool:
    """Whether two final answers are equal as numbers, or as LaTeX but for its ornaments."""
    left, right = _plain(wanted), _plain(given)
    number = _number(left)
    return left == right or (number is not None and number == _number(right))


def last_number(text: str) -> Fraction | None:
    r"""The number in the last ``\boxed{...}``; where no box holds one, the last of the text."""
    box = boxed(text)
    if box is not None:
        result = _plain(box.rpartition("=")[2])  # "2 + 40 = 42" is 42
        if (number := _number(result)) is not None:
            return number
        if found := _NUMBERS.findall(result):  # "42 apples": the unit may hold digits too
            return _number(found[0].replace(",", ""))
    found = _NUMBERS.findall(text)
    return _number(found[-1].replace(",", "")) if found else None


def _check_number(row: Row) -> Check:
    """gsm8k: the answer stands behind the last "####" of the worked solution."""
    answer = text_of(row, "answer")
    wanted = _number(_plain(answer.rpartition("####")[2]))
    if wanted is None:
        raise ValueError(f"'answer' is {answer!r}, expected it to end in '#### 42'")
    return lambda text: last_number(text) == wanted


def _check_boxed(row: Row) -> Check:
    answer = row["answer"]  # AIME's are numbers in one edition and strings in the other
    if isinstance(answer, bool) or not isinstance(answer, str | int) or not str(answer).strip():
        raise ValueError(f"'answer' is {answer!r}, expected text or a number")

    def right(text: str) -> bool:
        given = boxed(text)
        return given is not None and same_answer(str(answer), given)

    return right


# 40 digits are more than any answer has; without a bound a runaway answer takes seconds to parse.
_NUMBER = re.compile(r"[-+]?(?:\d{1,40}(?:\.\d{1,40}|/\d{1,40})?|\.\d{1,40})", re.ASCII)
_NUMBERS = re.compile(r"(?:(?<![\w)])-)?\d+(?:,\d{3})*(?:\.\d+)?", re.ASCII)
_BOX_OF_WORDS = r"\\(?:text|textrm|textbf|mbox|mathrm|mathbf)\{([^{}]*)\}"
_REWRITTEN = [
    (re.compile(pattern, re.ASCII), new)
    for pattern, new in (
        (r"\{,\}", ","),
        (r"\\[dt]frac", r"\\frac"),
        (r"(?<=[\d}])(?:\s|\\[,;: ])*" + _BOX_OF_WORDS + r"(?:\^\{?\d\}?)?\s*\.?\s*$", ""),  # units
        (_BOX_OF_WORDS, r"\1"),
        (r"\\(?:left|right)(?![a-zA-Z])|\^\{?\\circ\}?|\\?[%$]|(?<!\\)\\[!,;: ]|\s", ""),
        (r"^[a-zA-Z](?:=|\\in(?![a-z]))", ""),  # x = 5
        (r"\\frac\{(-?\\?\w+)\}\{(\\?\w+)\}", r"\1/\2"),
        (r"\\frac(\d)(\d)", r"\1/\2"),
        (r"\\sqrt(\w)", r"\\sqrt{\1}"),
        (r"(?<=\d),(?=\d{3}(?!\d))", ""),  # 1,234
        (r"^\(([A-Z])\)$", r"\1"),  # a choice
    )
]


def _plain(answer: str) -> str:
    for pattern, new in _REWRITTEN:
        answer = pattern.sub(new, answer)
    return answer.rstrip(".")


def _number(text: str) -> Fraction | None:
    if _NUMBER.fullmatch(text) is None:
        return None
    try:
        return Fraction(text)
    except ZeroDivisionError:
        return None


# -- the table --------------------------------------------------------------------------------

DATASETS: Mapping[str, DataSet] = {
    "gsm8k": DataSet(
        repo="openai/gsm8k",
        config="main",
        split="test",
        ask=_boxed("question"),
        check=_check_number,
    ),
    "math500": DataSet(
        repo="HuggingFaceH4/MATH-500",
        split="test",
        ask=_boxed("problem"),
        check=_check_boxed,
        group="subject",
    ),
    "aime24": DataSet(
        repo="HuggingFaceH4/aime_2024",
        split="train",
        ask=_boxed("problem"),
        check=_check_boxed,
    ),
    "aime25": DataSet(
        repo="MathArena/aime_2025",
        split="train",
        ask=_boxed("problem"),
        check=_check_boxed,
    ),
    "humaneval": DataSet(repo="openai/openai_humaneval", split="test", ask=_function),
    "mbpp": DataSet(
        repo="google-research-datasets/mbpp",
        config="sanitized",
        split="test",
        ask=lambda row: (text_of(row, "prompt"),),
    ),
    "mt-bench": DataSet(
        repo="HuggingFaceH4/mt_bench_prompts",
        split="train",
        ask=lambda row: turns_of(row, "prompt"),
        group="category",
    ),
    "alpaca": DataSet(repo="tatsu-lab/alpaca", split="train", ask=_instruction),
}
