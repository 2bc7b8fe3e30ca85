"""A run folder: what is written is read back, and a killed run goes on as if it had not been."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from floodstage.bench.arms import Answer
from floodstage.bench.measure import environment, measure
from floodstage.bench.records import FIELDS, read_records
from floodstage.bench.workloads import Item, Workload
from floodstage.core.errors import RunError
from floodstage.core.types import Request, StepRecord

WORKLOAD = Workload(
    "numbers", (Item("1", lambda text: text == "text 1", "odd"), Item("2", None), Item("3", None))
)
SETTINGS: dict[str, Any] = {"seed": 0}


class Scripted:
    """An arm that answers the same at any time, and falls at its `fall_at`-th answer."""

    lossless = True

    def __init__(self, name: str, log: list[str] | None = None, fall_at: int = -1) -> None:
        self.name, self.log, self.fall_at, self.answers = name, log, fall_at, 0

    def answer(self, request: Request) -> Answer:
        self.answers += 1
        if self.answers == self.fall_at:
            raise KeyboardInterrupt
        (number,) = request.prompt
        if self.log is not None:
            self.log.append(f"{self.name}{number}")
        records = (
            StepRecord(0, 0, 0, 1, 0.0, 0.5, prefill=True),
            StepRecord(4, 3, 2, 1, 0.25, 0.5, 0.125),
        )
        return Answer((number,) * 4, f"text {number}", "length", 0.5, 2.0, records)


def ask(prompt: Any, number: int) -> Request:
    if isinstance(prompt, str):
        return Request(prompt=(int(prompt),), max_new_tokens=4)
    ANSWERED.append([m["content"] for m in prompt])
    return Request(prompt=(int(prompt[-1]["content"]),), max_new_tokens=4)


ANSWERED: list[list[str]] = []


def test_a_conversation_is_a_record_per_turn_and_goes_on_where_it_was_killed(
    tmp_path: Path,
) -> None:
    talk = Workload("talk", (Item("1", lambda t: t == "text 2", later=("2",)), Item("3")))
    ANSWERED.clear()
    whole = run(tmp_path / "whole", Scripted("a"), workload=talk)
    rows = [
        (r["prompt"], r["pass"], r["turn"], r["ids"][0], r["right"]) for r in read_records(whole)
    ]
    assert rows == [
        (0, 0, 0, 1, None),
        (0, 0, 1, 2, True),
        (0, 1, 0, 1, None),
        (0, 1, 1, 2, True),
        (1, 0, 0, 3, None),
        (1, 1, 0, 3, None),
    ]
    assert ANSWERED == [["1", "text 1", "2"]] * 2
    for fall in range(3, 8):
        out = tmp_path / str(fall)
        with pytest.raises(KeyboardInterrupt):
            run(out, Scripted("a", fall_at=fall), workload=talk)
        assert run(out, Scripted("a"), workload=talk).read_bytes() == whole.read_bytes()
    log: list[str] = []
    run(tmp_path / "whole", Scripted("a", log), workload=talk)
    assert log == []


def run(out: Path, *arms: Scripted, workload: Workload = WORKLOAD, **settings: Any) -> Path:
    given: list[Any] = list(arms)
    return measure(given, workload, ask, out, settings=settings or SETTINGS, progress=False)


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """The records of an unbroken run of two arms."""
    return run(tmp_path / "whole", Scripted("a"), Scripted("b")).read_bytes()


def test_arms_take_turns_forwards_and_backwards(tmp_path: Path) -> None:
    log: list[str] = []
    run(tmp_path, *(Scripted(name, log) for name in "abc"))
    assert "".join(log[:6]) == "a1a1b1b1c1c1"  # the warm-up
    assert " ".join(log[6:]) == "a1 b1 c1 c1 b1 a1 a2 b2 c2 c2 b2 a2 a3 b3 c3 c3 b3 a3"


def test_records_are_read_back_as_they_were(tmp_path: Path) -> None:
    first = next(read_records(run(tmp_path, Scripted("a"))))
    assert first == {
        "schema_version": 2,
        "arm": "a",
        "lossless": True,
        "prompt": 0,
        "turn": 0,
        "pass": 0,
        "group": "odd",
        "ids": [1, 1, 1, 1],
        "finish": "length",
        "right": True,
        "ttft_s": 0.5,
        "wall_s": 2.0,
        "repeated_4grams": 0.0,
        "cycles": {
            "drafted": [4],
            "verified": [3],
            "reach": [3],
            "accepted": [2],
            "gained": [3],
            "seeded": [0],
            "rows": [0],
            "draft_s": [0.25],
            "verify_s": [0.5],
            "judge_s": [0.125],
            "confidence": [[]],
        },
    }
    assert set(first) == FIELDS | {"schema_version"}


def test_no_file_holds_no_records(tmp_path: Path) -> None:
    assert list(read_records(tmp_path / "records.jsonl")) == []


# -- going on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fall_at", [3, 4, 7])
def test_a_killed_run_goes_on_to_the_same_records(
    tmp_path: Path, whole: bytes, fall_at: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Scripted("a"), Scripted("b", fall_at=fall_at))
    assert (tmp_path / "records.jsonl").read_bytes() != whole
    assert run(tmp_path, Scripted("a"), Scripted("b")).read_bytes() == whole


@pytest.mark.parametrize("kept", [1, 20, -1, -40])
def test_a_last_line_that_was_cut_off_is_measured_again(
    tmp_path: Path, whole: bytes, kept: int
) -> None:
    path = run(tmp_path, Scripted("a"), Scripted("b"))
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:kept])
    assert len(list(read_records(path))) == 5
    assert path.read_bytes() == b"".join(lines[:5])
    assert run(tmp_path, Scripted("a"), Scripted("b")).read_bytes() == whole


def test_a_finished_run_measures_nothing(tmp_path: Path, whole: bytes) -> None:
    run(tmp_path, Scripted("a"), Scripted("b"))
    arms = Scripted("a"), Scripted("b")
    assert run(tmp_path, *arms).read_bytes() == whole
    assert [arm.answers for arm in arms] == [0, 0]


def test_an_arm_may_be_added_later(tmp_path: Path) -> None:
    run(tmp_path, Scripted("a"))
    arms = Scripted("a"), Scripted("b")
    rows = list(read_records(run(tmp_path, *arms)))
    assert [r["arm"] for r in rows] == ["a"] * 6 + ["b"] * 6
    assert arms[0].answers == 2  # the warm-up


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"arm": ', "line 2 is not JSON"),
        (b"", "line 2 is not JSON"),
        (b'{"arm": "\xff"}', "line 2 is not JSON"),
        (b"5", "line 2 has schema_version None"),
        (b'{"arm": "a"}', "line 2 has schema_version None, expected 2"),
        (b'{"schema_version": 1}', "line 2 has schema_version 1, expected 2"),
        (b'{"schema_version": 2, "arm": "a"}', "line 2 lacks 'cycles'"),
    ],
)
def test_any_other_broken_line_is_an_error(tmp_path: Path, line: bytes, said: str) -> None:
    path = run(tmp_path, Scripted("a"))
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], line, *lines[2:]]) + b"\n")
    with pytest.raises(RunError, match=said):
        run(tmp_path, Scripted("a"))


def test_a_run_of_other_prompts_is_refused(tmp_path: Path) -> None:
    run(tmp_path, Scripted("a"))
    other = Workload("numbers", (Item("1"), Item("2"), Item("4")))
    with pytest.raises(RunError, match="a run of another prompt hash: choose another folder"):
        run(tmp_path, Scripted("a"), workload=other)


def test_a_run_with_other_settings_is_refused(tmp_path: Path) -> None:
    run(tmp_path, Scripted("a"))
    with pytest.raises(RunError, match="a run of another settings"):
        run(tmp_path, Scripted("a"), seed=1)


def test_a_broken_environment_is_named(tmp_path: Path) -> None:
    run(tmp_path, Scripted("a"))
    (tmp_path / "env.json").write_text("{")
    with pytest.raises(RunError, match=r"env\.json' cannot be read"):
        run(tmp_path, Scripted("a"))


# -- the environment --------------------------------------------------------------------------


def test_the_environment_says_what_was_measured_where(tmp_path: Path) -> None:
    run(tmp_path, Scripted("a"))
    env = json.loads((tmp_path / "env.json").read_text())
    assert env["workload"] == "numbers"
    assert env["prompts"] == 3
    assert env["prompt_hash"] == WORKLOAD.digest
    assert env["settings"] == SETTINGS
    assert {"floodstage", "torch", "transformers", "tokenizers"} == set(env["versions"])
    assert env["threads"] == 1


def test_a_machine_without_git_has_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment("cpu")["commit"] == ""


def test_the_digest_is_that_of_the_prompts_alone() -> None:
    assert Workload("x", (Item("1"), Item("2"))).digest != Workload("x", (Item("12"),)).digest
    named = Workload("other", tuple(Item(item.prompt) for item in WORKLOAD.items))
    assert named.digest == WORKLOAD.digest
