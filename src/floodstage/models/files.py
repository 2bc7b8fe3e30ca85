"""Weights on disk: safetensors, single or sharded, read whole or not at all.

Knows no architecture: names and tensors in, names and tensors out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from floodstage.core.errors import CheckpointError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a model folder, by name. Raises CheckpointError for a file that is missing,
    truncated or corrupt, and for shards that do not hold what their index says."""
    if (folder / SINGLE).is_file():
        return _read_file(folder / SINGLE)
    if not (folder / INDEX).is_file():
        raise CheckpointError(
            f"{str(folder)!r} has no weights: expected {SINGLE} or {INDEX} with its shards."
        )
    index = _read_index(folder / INDEX)
    weights: dict[str, Tensor] = {}
    for shard in sorted(set(index.values())):
        weights |= _read_file(folder / shard)
    if missing := sorted(set(index) - set(weights)):
        raise CheckpointError(
            f"The shards of {str(folder)!r} lack {len(missing)} tensors of their index, "
            f"{missing[0]!r} first."
        )
    return weights


def _read_index(path: Path) -> dict[str, str]:
    """Which shard holds which tensor."""
    try:
        index = json.loads(path.read_text())["weight_map"]
        return {str(name): str(shard) for name, shard in index.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"The index {str(path)!r} is not one of shards: {type(error).__name__}: {error}."
        ) from error


def _read_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"The weights file {str(path)!r} is missing.")
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"The weights file {str(path)!r} is truncated or corrupt: {error}."
        ) from error


def fill(model: nn.Module, weights: Mapping[str, Tensor], what: str, *, tied: str = "") -> None:
    """Copy `weights` into `model`. `tied` names a parameter that may be absent.

    Raises CheckpointError naming the first tensor that is missing, unknown or of another shape.
    """
    own = dict(model.named_parameters(remove_duplicate=False))
    given = {k: v for k, v in weights.items() if not k.endswith("rotary_emb.inv_freq")}
    if tied:
        given.pop(tied, None)
        own.pop(tied, None)
    missing, extra = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    if missing:
        raise CheckpointError(f"{what} lacks {len(missing)} tensors, {missing[0]!r} first.")
    if extra:
        raise CheckpointError(
            f"{what} holds {len(extra)} tensors that its config does not know, {extra[0]!r} first."
        )
    with torch.no_grad():
        for name, parameter in own.items():
            if not given[name].is_floating_point():
                raise CheckpointError(
                    f"{what}: {name!r} holds {given[name].dtype}: quantized weights are not "
                    "supported."
                )
            if parameter.shape != given[name].shape:
                raise CheckpointError(
                    f"{what}: {name!r} has shape {tuple(given[name].shape)}, "
                    f"its config asks for {tuple(parameter.shape)}."
                )
            parameter.copy_(given[name])


def fingerprint(model: nn.Module) -> str:
    """Sixteen hexadecimal digits that tell trained models apart."""
    digest = hashlib.sha256()
    for name, p in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(p.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def write_weights(folder: Path, weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """One `model.safetensors`, written beside and moved into place."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / (SINGLE + ".part")
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in weights.items()}
    save_file(tensors, str(part), metadata={"format": "pt"})
    part.replace(folder / SINGLE)
