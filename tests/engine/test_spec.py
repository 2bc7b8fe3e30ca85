"""Policies by words: a name, and settings of the right type."""

from __future__ import annotations

from functools import partial

import pytest

from floodstage.core.errors import ConfigError
from floodstage.drafting.candidates import Adaptive, Beam, BestFirst
from floodstage.drafting.seeding import Seeding
from floodstage.engine.build import SCHEDULERS, SEEDINGS, make_candidates
from floodstage.engine.spec import make, split


def test_words_become_settings() -> None:
    assert split("ewma") == ("ewma", {})
    assert split("ewma(alpha=0.2; probe_interval=0)") == (
        "ewma",
        {"alpha": "0.2", "probe_interval": "0"},
    )
    ewma = make("scheduler", "ewma(alpha=0.2;block_sizes=4/8)", SCHEDULERS, 15)
    assert (ewma.alpha, ewma.sizes) == (0.2, (4, 8))
    assert make("scheduler", "fixed(trace=true)", SCHEDULERS, 15).needs_confidence
    assert make("seeding", "dense(seed_max_tokens=4)", SEEDINGS) == Seeding("dense", 4)


def test_candidates_and_their_adaptive_form() -> None:
    assert make_candidates("none") is None
    assert make_candidates("beam(top_k=3)") == Beam(top_k=3)
    assert make_candidates("adaptive-beam(budgets=1/2/3;top_k=3)") == Adaptive(
        Beam(top_k=3, max_candidates=3), budgets=(1, 2, 3)
    )
    assert make_candidates("adaptive-best-first") == Adaptive(BestFirst(nodes=8))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ewna", "Did you mean 'ewma'"),
        ("ewma(alhpa=1)", "Did you mean 'alpha'"),
        ("ewma(alpha=x)", "alpha must be float, got 'x'"),
        ("ewma(alpha)", "Expected key=value"),
        ("ewma(alpha=2.0)", r"alpha must be in \(0, 1\]"),
        ("fixed(trace=maybe)", "trace must be true or false"),
        ("fixed(name=x)", "Unknown setting of 'fixed'"),
        ("fixed(draft_len=3)", "Unknown setting of 'fixed'"),
        ("a b", "Expected a name"),
    ],
)
def test_a_mistake_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make("scheduler", text, SCHEDULERS, 15)


@pytest.mark.parametrize("text", ["beem", "adaptive-beem", "adaptive-none"])
def test_unknown_candidates_are_named(text: str) -> None:
    with pytest.raises(ConfigError, match="Unknown candidates"):
        make_candidates(text)


def test_a_partial_keeps_its_own_arguments() -> None:
    with pytest.raises(ConfigError, match="Unknown setting"):
        make("seeding", "dense(mode=sparse)", {"dense": partial(Seeding, "dense")})
