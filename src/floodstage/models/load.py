"""From a model folder to a `Transformer` that is ready to run.

Knows `config.json` and safetensors; neither shipped names nor the hub.
"""

from __future__ import annotations

from pathlib import Path

import torch

from floodstage.core.errors import CheckpointError
from floodstage.models.block_diffusion import (
    BlockDiffusion,
    BlockDiffusionConfig,
    check_pairing,
)
from floodstage.models.canvas import DENOISER, CanvasConfig, Denoiser, Writer
from floodstage.models.config import TransformerConfig, read_config
from floodstage.models.files import fill, read_weights
from floodstage.models.fractal import Renderer, RendererConfig
from floodstage.models.transformer import Transformer


def load_transformer(folder: Path, *, dtype: torch.dtype, device: torch.device) -> Transformer:
    """The model in `folder`, its weights in `dtype` on `device`.

    Files are mapped, not read, and tensors copied one by one: memory holds one copy of the
    weights. Raises ConfigError for a model this runtime does not know, CheckpointError for files
    that are missing, truncated, corrupt or do not belong to the config.
    """
    config = TransformerConfig.from_dict(read_config(folder))
    weights = read_weights(folder)
    with torch.device("meta"):
        model = Transformer(config)
    model.to(dtype).to_empty(device=device)
    model.tie()
    fill(model, weights, f"The model {str(folder)!r}", tied="lm_head.weight" if config.tied else "")
    return model.eval().fuse()


_PREFIXES = ("draft_model.", "model.")
_BORROWED = ("embed_tokens.weight", "lm_head.weight")  # some files carry the target's own


def load_block_diffusion(folder: Path, target: Transformer) -> BlockDiffusion:
    """The DFlash drafter in `folder`, bound to `target`, in its dtype and on its device.

    Raises PairingError if the two do not belong together, CheckpointError for broken files.
    """
    config = BlockDiffusionConfig.from_dict(read_config(folder))
    check_pairing(config, target.config)
    weights = read_weights(folder)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): w for name, w in weights.items()}
    for name in _BORROWED:
        weights.pop(name, None)
    with torch.device("meta"):
        net = BlockDiffusion(config)
    net.to(target.dtype).to_empty(device=target.device)
    fill(net, weights, f"The drafter {str(folder)!r}")
    return net.eval().fuse().bind(target)


def load_renderer(folder: Path, *, dtype: torch.dtype, device: torch.device) -> Renderer:
    """The flood's renderer in `folder`, its weights in `dtype` on `device`.

    Raises CheckpointError for files that are missing, truncated, corrupt or of another model.
    """
    config = RendererConfig.from_dict(read_config(folder))
    weights = read_weights(folder)
    with torch.device("meta"):
        model = Renderer(config)
    model.to(dtype).to_empty(device=device)
    fill(model, weights, f"The renderer {str(folder)!r}")
    return model.eval().fuse()


def load_canvas(
    folder: Path, *, dtype: torch.dtype, device: torch.device, kind: str
) -> Denoiser | Writer:
    """The canvas model in `folder`, which must be of the architecture `kind`.

    Raises CheckpointError for one of another kind and for files that are missing, truncated,
    corrupt or of another model.
    """
    raw = read_config(folder)
    config = CanvasConfig.from_dict(raw)
    if raw["architectures"] != [kind]:
        raise CheckpointError(
            f"{str(folder)!r} holds a {raw['architectures'][0]}, expected a {kind}."
        )
    weights = read_weights(folder)
    with torch.device("meta"):
        model = Denoiser(config) if kind == DENOISER else Writer(config)
    model.to(dtype).to_empty(device=device)
    fill(model, weights, f"The canvas model {str(folder)!r}")
    model.eval().fuse()
    return model
