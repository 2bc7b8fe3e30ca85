"""The trace of Jacobi iteration: its guarantee, its shift, clamped places, a run that resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.laws.laws import own_text
from tests.laws.tiny import tiny_gpt2, tiny_target
from tests.laws.toy import ToyState, ToyTarget
from torch import Tensor

from floodstage.bench import jacobi
from floodstage.bench.jacobi import (
    JacobiConfig,
    accuracy,
    blank,
    by_sketch,
    draw_steps,
    iterate,
    known_places,
    run_jacobi,
    tables,
)
from floodstage.core.errors import ConfigError, RunError
from floodstage.core.protocols import Target
from floodstage.core.types import Forward, Request

TOKENS = 14
PROMPTS = ((1,), (5, 5, 5), (2, 6, 2, 6, 2))


def truth(target: Target, prompt: tuple[int, ...]) -> tuple[int, Tensor]:
    out = own_text(target, Request(prompt=prompt, max_new_tokens=TOKENS + 1))
    return out[0], torch.tensor(out[1:])


def right_prefix(tokens: Tensor, true: Tensor) -> int:
    return int((tokens == true).long().cumprod(0).sum())


def the_guarantee(make: Callable[[], Target], fill: str = "random", share: int = 0) -> None:
    """The first t tokens are right after t passes; after n at most it is the greedy text."""
    target = make()
    for seed, prompt in enumerate(PROMPTS):
        pending, true = truth(target, prompt)
        guess = blank(fill, TOKENS, pending, target.vocab_size, seed)
        sketch = torch.where(known_places(TOKENS, share), true, guess)
        found = iterate(target, prompt, pending, sketch, torch.zeros(TOKENS, dtype=torch.bool))
        assert torch.equal(found[0], sketch)
        assert len(found) - 1 <= TOKENS
        assert torch.equal(found[-1], true)
        for step, tokens in enumerate(found):
            assert right_prefix(tokens, true) >= min(step, TOKENS)
        prefixes = [right_prefix(tokens, true) for tokens in found]
        assert all(a < b for a, b in pairwise(prefixes) if a < TOKENS), "a pass fixes a token"


@pytest.mark.parametrize("fill", ["repeat", "random", "3"])
@pytest.mark.parametrize("make", [ToyTarget, tiny_target, tiny_gpt2])
def test_free_iteration_reaches_the_greedy_text_and_fixes_a_token_a_pass(
    make: Callable[[], Target], fill: str
) -> None:
    the_guarantee(make, fill)


def test_known_tokens_do_not_break_the_guarantee() -> None:
    the_guarantee(ToyTarget, "random", 50)


@pytest.mark.parametrize("make", [ToyTarget, tiny_target])
def test_clamped_tokens_stay_and_the_greedy_text_is_reached_by_the_unknown_ones(
    make: Callable[[], Target],
) -> None:
    target, known = make(), known_places(TOKENS, 50)
    for seed, prompt in enumerate(PROMPTS):
        pending, true = truth(target, prompt)
        sketch = torch.where(known, true, blank("random", TOKENS, pending, 8, seed))
        found = iterate(target, prompt, pending, sketch, known)
        assert all(torch.equal(tokens[known], true[known]) for tokens in found)
        assert torch.equal(found[-1], true)
        assert len(found) - 1 <= int((~known).sum())


def test_a_text_that_is_right_at_once_takes_no_pass() -> None:
    target = ToyTarget()
    pending, true = truth(target, PROMPTS[0])
    nothing = torch.zeros(TOKENS, dtype=torch.bool)
    assert len(iterate(target, PROMPTS[0], pending, true, nothing)) == 1


def test_a_false_token_that_is_clamped_stays_false() -> None:
    target = ToyTarget()
    pending, true = truth(target, PROMPTS[0])
    sketch, clamped = true.clone(), torch.zeros(TOKENS, dtype=torch.bool)
    sketch[4], clamped[4] = true[4] ^ 1, True
    found = iterate(target, PROMPTS[0], pending, sketch, clamped)
    assert found[-1][4] == sketch[4]
    assert right_prefix(found[-1], true) == 4


def without_the_shift(target, prompt, pending, sketch, clamped) -> list[Tensor]:
    """As published: what a token is followed by is written over the token itself."""
    state = target.begin(1, len(prompt) + 1 + len(sketch))
    target.forward(state, [torch.tensor([*prompt, pending])])
    found = [sketch]
    for _ in range(len(sketch) + 1):
        new = torch.where(clamped, sketch, target.forward(state, [found[-1]]).logits.argmax(-1))
        state.rollback(0, len(prompt) + 1)
        if torch.equal(new, found[-1]):
            break
        found.append(new)
    return found


def without_clamping(target, prompt, pending, sketch, clamped) -> list[Tensor]:
    return jacobi.iterate(target, prompt, pending, sketch, torch.zeros_like(clamped))


def without_rollback(target, prompt, pending, sketch, clamped) -> list[Tensor]:
    class Growing(ToyTarget):
        def begin(self, slots: int, capacity: int, **options: Any) -> ToyState:
            state = super().begin(slots, 40 * capacity, **options)
            state.rollback = lambda slot, length: None
            return state

    return jacobi.iterate(Growing(), prompt, pending, sketch, clamped)


@pytest.mark.parametrize("bug", [without_the_shift, without_rollback])
def test_a_planted_bug_breaks_the_guarantee(bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(globals(), "iterate", bug)
        with pytest.raises(AssertionError):
            the_guarantee(ToyTarget)


def test_without_clamping_known_tokens_would_be_lost() -> None:
    target, known = ToyTarget(), known_places(TOKENS, 50)
    pending, true = truth(target, PROMPTS[0])
    sketch = torch.where(known, true, blank("random", TOKENS, pending, 8, 0))
    found = without_clamping(target, PROMPTS[0], pending, sketch, known)
    assert any(not torch.equal(tokens[known], true[known]) for tokens in found)


def test_a_target_that_never_settles_is_stopped() -> None:
    class Restless(ToyTarget):
        passes = 0

        def forward(self, state: ToyState, tokens: Any, **options: Any) -> Forward:
            out = super().forward(state, tokens, **options)
            self.passes += 1
            return Forward(
                torch.zeros_like(out.logits).index_fill(1, torch.tensor(self.passes % 2), 1.0)
            )

    found = iterate(Restless(), (1,), 2, torch.ones(5, dtype=torch.long), torch.zeros(5).bool())
    assert len(found) == 5 + 2


@pytest.mark.parametrize(
    ("tokens", "share", "want"),
    [
        (10, 0, []),
        (10, 50, [1, 3, 5, 7, 9]),
        (20, 10, [9, 19]),
        (7, 50, [0, 2, 4, 6]),
        (3, 99, [0, 2]),
        (1, 99, []),
    ],
)
def test_known_places_are_evenly_spaced(tokens: int, share: int, want: list[int]) -> None:
    assert known_places(tokens, share).nonzero()[:, 0].tolist() == want


def test_the_filling() -> None:
    assert blank("repeat", 3, 5, 8, 0).tolist() == [5, 5, 5]
    assert blank("7", 2, 5, 8, 0).tolist() == [7, 7]
    drawn = blank("random", 50, 5, 8, 1)
    assert drawn.tolist() == blank("random", 50, 5, 8, 1).tolist() != blank("random", 50, 5, 8, 2)
    assert set(drawn.tolist()) <= set(range(8))


def row(right: list[int], unknown: list[int], *, known: int = 0, exact: bool = True) -> dict:
    trace = {"sketch": 50 if known else 0, "clamped": bool(known), "tokens": 4, "known": known,
             "right": right, "unknown_right": unknown, "exact": exact}  # fmt: skip
    return {"prompt": 0, "traces": [trace]}


def test_accuracy_is_pooled_and_a_settled_text_stays() -> None:
    rows = [row([0, 2, 4], [0, 2, 4]), row([1, 4], [1, 4], exact=False)]
    ((name, traces),) = by_sketch(rows).items()
    assert name == "0 % known"
    assert [accuracy(traces, step) for step in (0, 1, 2, 9)] == [1 / 8, 6 / 8, 1.0, 1.0]
    known = by_sketch([row([2, 4], [0, 2], known=2)])["50 % known, clamped"]
    assert [accuracy(known, step, unknown=True) for step in (0, 1)] == [0.0, 1.0]
    *_, settling = tables(rows)
    assert settling.rows == (("0 % known", "2", "4.0", "1.5", "1.5", "2", "2.67", "2.67", "1/2"),)


def test_answers_of_one_token_leave_empty_tables() -> None:
    rows = [{"prompt": 0, "traces": []}]
    assert all(not table.rows for table in tables(rows))
    assert draw_steps(rows)[1:4] == b"PNG"


def config(tiny: Any, **settings: Any) -> JacobiConfig:
    given = {"target": str(tiny.target), "prompts": 2, "tokens": 12, "device": "cpu", "threads": 1}
    return JacobiConfig(**given | settings)


def test_a_run_is_written_resumed_and_held_to_its_settings(tiny: Any, tmp_path: Path) -> None:
    shown = run_jacobi(config(tiny), tmp_path, progress=False)
    names = [r[0] for r in shown[0].rows]
    assert names == ["0 % known", "10 % known, free", "10 % known, clamped", "50 % known, free",
                     "50 % known, clamped"]  # fmt: skip
    assert all(r[-1] == "2/2" for r in shown[2].rows), "the fixed point is the greedy text"
    assert (tmp_path / "accuracy_by_step.png").read_bytes()[1:4] == b"PNG"
    assert json.loads((tmp_path / "env.json").read_text())["settings"]["device"] == "cpu"
    path = tmp_path / "records.jsonl"
    whole = path.read_bytes()
    for line in whole.splitlines():
        for trace in json.loads(line)["traces"]:
            assert all(p >= s for s, p in enumerate(trace["prefix"]))
    path.write_bytes(whole[: whole.index(b"\n") + 30])  # killed in the second prompt
    assert run_jacobi(config(tiny), tmp_path, progress=False) == shown
    assert path.read_bytes() == whole
    with pytest.raises(RunError, match="another folder"):
        run_jacobi(config(tiny, fill="random"), tmp_path, progress=False)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompts": 0}, "got 0 and 12"),
        ({"sketch": (100,)}, "from 0 to 99"),
        ({"sketch": ()}, "from 0 to 99"),
        ({"fill": "eos"}, "repeat, random or a token id, got 'eos'"),
    ],
)
def test_settings_out_of_range_are_refused(tiny: Any, settings: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(tiny, **settings)


def test_a_filling_that_is_no_token_is_refused(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fill '300' is no token: the target knows 300"):
        run_jacobi(config(tiny, fill="300"), tmp_path, progress=False)
