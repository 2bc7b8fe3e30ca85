"""The shape of a Llama-family model, read from a Hugging Face `config.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodstage.core.errors import CheckpointError, ConfigError

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """What `models.transformer` needs to know; one dialect for four families."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    rope: Mapping[str, Any]
    context: int
    tied: bool
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    windows: tuple[int | None, ...] = ()  # per layer; None is full attention

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ConfigError(
                f"num_attention_heads {self.heads} must be a multiple of "
                f"num_key_value_heads {self.kv_heads}."
            )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> TransformerConfig:
        """Read a `config.json`. Raises ConfigError for a family or a setting we do not run."""
        family = str(raw.get("model_type"))
        if family not in FAMILIES:
            raise ConfigError(
                f"The model type {family!r} is not one our runtime knows ({', '.join(FAMILIES)})."
            )
        if (act := raw.get("hidden_act", "silu")) != "silu":
            raise ConfigError(f"hidden_act {act!r} is not supported: expected 'silu'.")
        if raw.get("quantization_config"):
            raise ConfigError("Quantized weights are not supported: use the model they came from.")
        hidden, heads = _whole(raw, "hidden_size"), _whole(raw, "num_attention_heads")
        layers = _whole(raw, "num_hidden_layers")
        bias = bool(raw.get("attention_bias", False))
        return cls(
            model_type=family,
            vocab_size=_whole(raw, "vocab_size"),
            hidden_size=hidden,
            intermediate_size=_whole(raw, "intermediate_size"),
            layers=layers,
            heads=heads,
            kv_heads=_whole(raw, "num_key_value_heads", heads),
            head_dim=_whole(raw, "head_dim", 128 if family == "qwen3" else hidden // heads),
            norm_eps=_norm_eps(raw),
            rope=rope_of(raw),
            context=_context(raw),
            tied=bool(raw.get("tie_word_embeddings", False)),
            qkv_bias=family == "qwen2" or (bias and family != "mistral"),
            out_bias=bias and family in ("llama", "qwen3"),
            mlp_bias=bool(raw.get("mlp_bias", False)) and family == "llama",
            qk_norm=family == "qwen3",
            windows=windows_of(raw, layers),
        )

    def to_dict(self) -> dict[str, Any]:
        """A `config.json` that transformers reads."""
        out: dict[str, Any] = {
            "architectures": [f"{self.model_type.capitalize()}ForCausalLM"],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.norm_eps,
            "rope_theta": float(self.rope["rope_theta"]),
            "rope_parameters": dict(self.rope),
            "max_position_embeddings": self.context,
            "tie_word_embeddings": self.tied,
            "attention_bias": self.qkv_bias and self.model_type != "qwen2",
            "sliding_window": next((w for w in self.windows if w), None),
            "use_sliding_window": any(self.windows),
        }
        if self.mlp_bias:
            out["mlp_bias"] = True
        if any(self.windows) and not (self.model_type == "mistral" and all(self.windows)):
            out["layer_types"] = [
                "sliding_attention" if w else "full_attention" for w in self.windows
            ]
        return out


def _whole(raw: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A size; `default` stands in for one that is absent or null."""
    value = raw.get(name)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"config.json needs a positive whole number {name!r}, got {value!r}.")
    return value


def _norm_eps(raw: Mapping[str, Any]) -> float:
    value = raw.get("rms_norm_eps", 1e-6)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise ConfigError(f"config.json needs a number 'rms_norm_eps' >= 0, got {value!r}.")
    return float(value)


def rope_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary settings, from `rope_parameters` (transformers 5) or `rope_theta` and
    `rope_scaling` (before). Raises ConfigError for those that differ between layers or turn only
    a part of each head."""
    given = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"The rope settings must be a JSON object, got {given!r}.")
    rope = dict(given)
    if any(isinstance(value, Mapping) for value in rope.values()):
        raise ConfigError(f"Rope settings per layer type ({', '.join(rope)}) are not supported.")
    part = rope.get("partial_rotary_factor", raw.get("partial_rotary_factor"))
    if part not in (None, 1):
        raise ConfigError(f"partial_rotary_factor {part!r} is not supported: expected 1.")
    rope["rope_type"] = rope.get("rope_type", rope.pop("type", "default"))
    if rope.get("rope_theta") is None:
        rope["rope_theta"] = raw.get("rope_theta", 10000.0)
    if rope["rope_type"] in ("yarn", "llama3"):
        outer = raw.get("original_max_position_embeddings")
        old = outer or rope.get("original_max_position_embeddings") or _context(raw)
        rope["original_max_position_embeddings"] = old
        if rope["rope_type"] == "yarn" and rope.get("factor") is None:
            rope["factor"] = _context(raw) / old
    return rope


def _context(raw: Mapping[str, Any]) -> int:
    return _whole(raw, "max_position_embeddings", 2048)


def windows_of(raw: Mapping[str, Any], layers: int) -> tuple[int | None, ...]:
    """Per layer the sliding window, or None for full attention. What is absent is what
    transformers takes for these families: a window of 4096, in Qwen from layer 28."""
    window = raw.get("sliding_window", 4096)
    kinds = raw.get("layer_types")
    if kinds is not None:
        if len(kinds) != layers:
            raise ConfigError(f"layer_types has {len(kinds)} entries for {layers} layers.")
        bad = set(kinds) - {"full_attention", "sliding_attention"}
        if bad:
            raise ConfigError(
                f"layer_types {sorted(bad)} are not supported: "
                "expected 'full_attention' or 'sliding_attention'."
            )
        sliding = [kind == "sliding_attention" for kind in kinds]
    elif raw.get("model_type") == "mistral":
        sliding = [window is not None] * layers
    elif raw.get("use_sliding_window"):
        full = int(raw.get("max_window_layers", 28))
        sliding = [i >= full for i in range(layers)]
    else:
        sliding = [False] * layers
    if any(sliding) and window is None:
        raise ConfigError("layer_types asks for sliding attention, but sliding_window is null.")
    return tuple(int(window) if slides and window else None for slides in sliding)


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a model folder. Raises CheckpointError if it is missing or broken."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{str(folder)!r} has no config.json: not a model folder.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}.") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{str(path)!r} does not hold a JSON object.")
    return raw
