"""What a `config.json` means, and what of it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from floodstage.core.errors import ConfigError
from floodstage.models.config import FAMILIES, TransformerConfig
from floodstage.ops.rope import frequencies

RAW: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def config(**changes: Any) -> TransformerConfig:
    return TransformerConfig.from_dict(RAW | changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"hidden_act": "gelu"}, "expected 'silu'"),
        ({"hidden_size": None}, "whole number 'hidden_size', got None"),
        ({"vocab_size": "many"}, "got 'many'"),
        ({"num_key_value_heads": 3}, "multiple of num_key_value_heads 3"),
        ({"quantization_config": {"bits": 4}}, "Quantized"),
        ({"layer_types": ["full_attention"]}, "1 entries for 2 layers"),
        ({"layer_types": ["full_attention", "chunked_attention"]}, "chunked_attention"),
        ({"layer_types": ["sliding_attention"] * 2, "sliding_window": None}, "is null"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "full_attention"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
    ],
)
def test_what_we_do_not_run_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**changes)


@pytest.mark.parametrize("kind", ["longrope", "proportional", "su", "yarm"])
def test_an_unknown_rope_is_named(kind: str) -> None:
    rope = config(rope_scaling={"type": kind, "factor": 2.0}).rope
    with pytest.raises(ConfigError, match=f"Unknown rope_type '{kind}'"):
        frequencies(16, rope)


@pytest.mark.parametrize("kind", ["linear", "llama3"])
def test_a_rope_without_its_numbers_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match="lack 'factor'"):
        frequencies(16, config(rope_scaling={"rope_type": kind}).rope)


def test_the_length_a_scaling_was_made_for() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0}
    length = "original_max_position_embeddings"
    assert config(max_position_embeddings=64, rope_scaling=yarn).rope[length] == 64
    assert config(rope_scaling=yarn | {length: 32}).rope[length] == 32
    assert config(rope_scaling=yarn | {length: 32}, **{length: 16}).rope[length] == 16
    ratio = config(max_position_embeddings=64, rope_scaling=yarn | {length: 16, "factor": None})
    assert ratio.rope["factor"] == 4.0


def test_both_spellings_are_one() -> None:
    old = config(rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0})
    new = config(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5})
    assert old == new
    assert config().rope == {"rope_type": "default", "rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({"model_type": "llama", "sliding_window": 8}, (None, None)),
        ({"model_type": "mistral"}, (4096, 4096)),
        ({"model_type": "mistral", "sliding_window": None}, (None, None)),
        ({"model_type": "mistral", "sliding_window": 8}, (8, 8)),
        ({"model_type": "qwen2", "sliding_window": 8}, (None, None)),
        ({"model_type": "qwen2", "sliding_window": 8, "use_sliding_window": True}, (None, None)),
        (
            {
                "model_type": "qwen2",
                "sliding_window": 8,
                "use_sliding_window": True,
                "max_window_layers": 1,
            },
            (None, 8),
        ),
        (
            {
                "model_type": "qwen3",
                "sliding_window": 8,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            (8, None),
        ),
    ],
)
def test_windows(changes: dict[str, Any], windows: tuple[int | None, ...]) -> None:
    assert config(**changes).windows == windows


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bias", [False, True])
def test_what_is_written_is_read_back(family: str, bias: bool) -> None:
    made = config(
        model_type=family,
        attention_bias=bias,
        mlp_bias=bias,
        sliding_window=8,
        layer_types=["full_attention", "sliding_attention"],
        rope_scaling={"rope_type": "yarn", "factor": 4.0},
    )
    assert TransformerConfig.from_dict(made.to_dict()) == made
    assert made.qkv_bias == (family == "qwen2" or (bias and family != "mistral"))
    assert made.out_bias == (bias and family in ("llama", "qwen3"))
