"""What may be asked of a generation, and how a mistake is answered."""

from __future__ import annotations

from typing import Any

import pytest

from floodstage.core.errors import ConfigError
from floodstage.core.types import Request
from floodstage.engine.options import Options


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Unknown option 'temprature'.*'temperature'"):
        Options.of({"temprature": 1.0})


def test_one_stop_string_may_stand_alone() -> None:
    assert Options.of({"stop": "\n"}).stop == ("\n",)
    assert Options.of({"stop": ["a", "b"]}).stop == ("a", "b")
    assert Options.of({}).stop == ()


@pytest.mark.parametrize("stop", ["", ["a", ""], ("",)])
def test_an_empty_stop_string_is_refused(stop: Any) -> None:
    with pytest.raises(ConfigError, match="stop string is empty"):
        Options.of({"stop": stop})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("min_p", -0.5),
        ("min_p", 2.0),
        ("repetition_penalty", 0.0),
    ],
)
def test_a_number_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be .*got {value}"):
        _ = Options.of({name: value}).sampling


def test_a_request_holds_a_token_and_wants_one() -> None:
    with pytest.raises(ConfigError, match="prompt is empty"):
        Request(prompt=(), max_new_tokens=1)
    with pytest.raises(ConfigError, match="max_new_tokens must be >= 1, got 0"):
        Request(prompt=(1,), max_new_tokens=0)
