"""Sampled outputs, counted against the exact law of all outputs."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from . import laws
from .cases import SMALL, TRAJECTORY, law_case, law_request

FAST = [
    ("none", "0", "match", {}),
    ("none", "0", "reject", {}),
    ("sampled", "7", "reject", {}),
    ("sampled", "confidence", "reject", {}),
    ("draft-model", "7", "reject", {}),
    ("jacobi", "7", "match", {}),
    ("lookahead", "turns", "match", {}),
    ("draft-model", "turns", "reject", {"top_p": 0.9, "repetition_penalty": 1.5}),
]
ALL = [
    (drafter, scheduler, verifier, sampling)
    for drafter in ("ngram", "draft-model", "sampled", "toy-block", "toy-tree", *TRAJECTORY)
    for scheduler in ("7", "confidence", "turns")
    for verifier in ("match", "reject")
    for sampling in ({}, {"temperature": 0.7, "top_k": 3, "repetition_penalty": 1.5})
    if (drafter, verifier) != ("toy-tree", "reject")
]


def name(value: object) -> str:
    return "+".join(value) or "warm" if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(("drafter", "scheduler", "verifier", "sampling"), FAST, ids=name)
def test_sampled_output_follows_the_exact_law(
    drafter: str, scheduler: str, verifier: str, sampling: dict[str, float]
) -> None:
    case = law_case(drafter, scheduler, verifier, **sampling)
    laws.output_follows_the_exact_law(case, samples=1000)


@pytest.mark.slow
@pytest.mark.parametrize(("drafter", "scheduler", "verifier", "sampling"), ALL, ids=name)
def test_many_sampled_outputs_follow_the_exact_law(
    drafter: str, scheduler: str, verifier: str, sampling: dict[str, float]
) -> None:
    case = law_case(drafter, scheduler, verifier, **sampling)
    laws.output_follows_the_exact_law(case, samples=6000)


def test_outputs_with_a_stop_id_follow_the_exact_law() -> None:
    case = law_case("sampled")
    request = replace(law_request(), stop_ids=frozenset({2}))
    laws.output_follows_the_exact_law(replace(case, requests=(request,)), samples=600)


def test_the_exact_law_sums_to_one_and_the_test_of_it_has_its_stated_error() -> None:
    law = laws.exact_law(SMALL, law_request())
    assert sum(law.values()) == pytest.approx(1.0, abs=1e-6)
    rng = random.Random(0)
    draws = [
        laws.chi_square(Counter(rng.choices(list(law), list(law.values()), k=800)), law, 800)
        for _ in range(300)
    ]
    # p-values of the true law are uniform; 300 of them are binomial with a deviation of 7.
    assert 45 <= sum(p < 0.25 for p in draws) <= 105
    assert min(draws) > laws.ALARM
    worse = [(1 + 0.5 * (out[0] == 1)) * chance for out, chance in law.items()]
    assert laws.chi_square(Counter(rng.choices(list(law), worse, k=4000)), law, 4000) < laws.ALARM
