"""Names become objects here, and only here.

A model name is a shipped name, a local folder or a Hugging Face hub id, in that order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import torch

from floodstage.core.errors import (
    CheckpointError,
    ConfigError,
    PairingError,
    unknown,
)
from floodstage.core.protocols import Drafter, Scheduler, Target
from floodstage.decoding.verifiers import VERIFIERS
from floodstage.drafting.block_diffusion import BlockDiffusionDrafter
from floodstage.drafting.candidates import SHAPES, Adaptive, Shape
from floodstage.drafting.draft_model import ModelDrafter
from floodstage.drafting.jacobi import JacobiDrafter
from floodstage.drafting.lookahead import LookaheadDrafter
from floodstage.drafting.ngram import NgramDrafter
from floodstage.drafting.none import NoDrafter
from floodstage.drafting.seeding import MODES, Seeding
from floodstage.engine.device import DTYPES, clock_of, dtype_of, prepare
from floodstage.engine.engine import Engine
from floodstage.engine.spec import make, settings, split
from floodstage.models.block_diffusion import ARCHITECTURE, BlockDiffusion
from floodstage.models.config import FAMILIES, read_config
from floodstage.models.load import load_block_diffusion, load_transformer
from floodstage.models.transformer import Transformer
from floodstage.scheduling.confidence import ConfidenceScheduler
from floodstage.scheduling.cost import CostScheduler
from floodstage.scheduling.ewma import AdlScheduler, EwmaScheduler
from floodstage.scheduling.fixed import FixedScheduler
from floodstage.scheduling.rolling import RollingScheduler
from floodstage.text.tokenizer import Tokenizer

log = logging.getLogger("floodstage")

SCHEDULERS: dict[str, Callable[..., Scheduler]] = {
    "fixed": FixedScheduler,
    "rolling": RollingScheduler,
    "ewma": EwmaScheduler,
    "adl": AdlScheduler,
    "confidence": ConfidenceScheduler,
    "cost": CostScheduler,
}
DRAFTERS: dict[str, Callable[..., Drafter]] = {
    "ngram": NgramDrafter,
    "jacobi": JacobiDrafter,
    "lookahead": LookaheadDrafter,
}
"""Those that need no weights."""
OF_GUESSES = (JacobiDrafter, LookaheadDrafter)
"""Those whose drafts depend on the drafts that were verified before."""
CANDIDATES: dict[str, Callable[..., Shape]] = dict(SHAPES)
SEEDINGS = {mode: partial(Seeding, mode) for mode in MODES}
ASSETS = Path(str(files("floodstage"))) / "assets"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What to load. "auto" is the drafter shipped beside a shipped target, else "ngram"; the
    draft length that the drafter was made for; CUDA, then Apple's GPU, then the CPU; bf16 on a
    GPU and fp32 on a CPU. `threads` 0 leaves torch's own number. A scheduler, candidates, a
    seeding and a drafter without weights may bring settings: "ewma(alpha=0.2)", see `spec`."""

    target: str = "math-mini"
    drafter: str = "auto"
    verifier: str = "match"
    scheduler: str = "fixed"
    candidates: str = "none"
    seeding: str = "none"
    draft_len: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0


C = TypeVar("C", bound=EngineConfig)


def load(target: str = "math-mini", **settings: Any) -> Engine:
    """An engine from names; `settings` are the fields of `EngineConfig`.

    Raises ConfigError for an unknown setting or name, CheckpointError for broken files,
    PairingError for a drafter that does not belong to the target.
    """
    return build(configured(EngineConfig, target=target, **settings))


def configured(kind: type[C], **settings: Any) -> C:
    """A `kind` of engine configuration. Raises ConfigError for an unknown setting."""
    known = kind.__dataclass_fields__
    for name in settings:
        if name not in known:
            raise unknown("setting", name, known)
    return kind(**settings)


def build(config: EngineConfig) -> Engine:
    """The engine that `config` describes."""
    if config.verifier not in VERIFIERS:
        raise unknown("verifier", config.verifier, VERIFIERS)
    device = prepare(config.device, config.threads)
    folder = find_model(config.target)
    target = load_target(folder, dtype_of(config.dtype, device), device)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > target.vocab_size:
        raise PairingError(
            f"The tokenizer of {config.target!r} knows {tokenizer.vocab_size} tokens, its model "
            f"only {target.vocab_size}: they do not belong together."
        )
    drafter = load_drafter(config, target, tokenizer)
    if _trees(drafter) and config.verifier == "reject":
        raise ConfigError("The verifier 'reject' takes chains only: use 'match' for trees.")
    return Engine(
        config.target,
        target,
        tokenizer,
        drafter,
        VERIFIERS[config.verifier](),
        make_scheduler(config.scheduler, drafter, config.draft_len),
        clock_of(device),
    )


def make_scheduler(text: str, drafter: Drafter, draft_len: int | None = None) -> Scheduler:
    """The scheduler that `text` describes, for `drafter` or a draft length of its own.

    A tree's length is its number of nodes, so it is the drafter's: `draft_len` bounds its paths.
    """
    length = drafter.draft_len if draft_len is None or _trees(drafter) else draft_len
    return make("scheduler", text, SCHEDULERS, length)


def _trees(drafter: Drafter) -> bool:
    return isinstance(drafter, BlockDiffusionDrafter) and drafter.trees


def shipped() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.name for p in ASSETS.iterdir()) if ASSETS.is_dir() else []


def find_model(name: str) -> Path:
    """The folder of a shipped model, a local folder, or a downloaded hub model."""
    if name in shipped():
        return ASSETS / name
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        error = unknown("model", name, shipped())
        raise ConfigError(f"{error} It is not a folder either; a hub id looks like 'owner/name'.")
    return _download(name)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download  # takes a second to import
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.jinja", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{name!r} is not on this machine and the hub cannot be reached: give a folder, or a "
            f"shipped name ({', '.join(shipped())})."
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"The hub does not give {name!r}: {first}") from error


def load_target(folder: Path, dtype: torch.dtype, device: torch.device) -> Target:
    """Our runtime for the families it knows, transformers' for any other causal model."""
    raw = read_config(folder)
    if _is_block_diffusion(raw):
        raise PairingError(
            f"{str(folder.name)!r} is a drafter, not a target: give it as --drafter."
        )
    if raw.get("model_type") in FAMILIES:
        return load_transformer(folder, dtype=dtype, device=device)
    from floodstage.models.adapter import load_adapted  # imports transformers: seconds

    log.info(
        "The model type %r is not in floodstage's runtime: using transformers (slower, no trees).",
        raw.get("model_type"),
    )
    return load_adapted(folder, dtype=dtype, device=device)


def _is_block_diffusion(raw: Mapping[str, Any]) -> bool:
    named = raw.get("architectures")
    return isinstance(named, list) and ARCHITECTURE in named


def load_drafter(config: EngineConfig, target: Target, tokenizer: Tokenizer) -> Drafter:
    """The drafter that `config` names, checked against its target."""
    name = config.drafter
    if name == "auto":
        name = f"{config.target}-dflash" if f"{config.target}-dflash" in shipped() else "ngram"
    if name == "none" or name.partition("(")[0] in DRAFTERS:
        _no_trees(config, name)
        return NoDrafter(target.device) if name == "none" else _light(config, name, target)
    try:
        folder = find_model(name)
    except ConfigError as error:
        if "folder either" not in str(error):
            raise
        raise unknown("drafter", name, ["auto", "none", *DRAFTERS, *shipped()]) from None
    dtype = DTYPES["fp32"] if not isinstance(target, Transformer) else target.dtype
    if _is_block_diffusion(read_config(folder)):
        if not isinstance(target, Transformer):
            raise PairingError(
                f"The block-diffusion drafter {name!r} needs a target in floodstage's own runtime "
                f"({', '.join(FAMILIES)})."
            )
        net = load_block_diffusion(folder, target)
        return make_block_drafter(config, net)
    _no_trees(config, name)
    return _draft_model(config, name, folder, dtype, target, tokenizer)


def _light(config: EngineConfig, text: str, target: Target) -> Drafter:
    """A drafter without weights and its settings."""
    own: dict[str, Any] = {"draft_len": config.draft_len} if config.draft_len else {}
    makers = {n: partial(maker, **own, device=target.device) for n, maker in DRAFTERS.items()}
    drafter = make("drafter", text, makers)
    if isinstance(drafter, OF_GUESSES) and config.verifier != "match":
        raise ConfigError(
            f"The drafter {text!r} goes on from the target's own tokens, which the verifier "
            f"{config.verifier!r} does not give: use 'match', which is lossless too."
        )
    return drafter


def _no_trees(config: EngineConfig, name: str) -> None:
    if config.candidates != "none" or config.seeding != "none":
        raise ConfigError(
            f"Candidates and seeding are made from a block-diffusion drafter's block; {name!r} is "
            "none."
        )


def make_block_drafter(config: EngineConfig, net: BlockDiffusion) -> BlockDiffusionDrafter:
    """A block-diffusion drafter with the candidates and the seeding that `config` describes."""
    return BlockDiffusionDrafter(
        net,
        config.draft_len or net.config.draft_len,
        make_candidates(config.candidates),
        make("seeding", config.seeding, SEEDINGS),
    )


def make_candidates(text: str) -> Shape | Adaptive | None:
    """Candidates by name; with "adaptive-" before it, the number of them follows the last cycle."""
    if text == "none":
        return None
    name, given = split(text)
    plain = name.removeprefix("adaptive-")
    if plain not in SHAPES:
        known = ["none", *SHAPES, *(f"adaptive-{shape}" for shape in SHAPES)]
        raise unknown("candidates", name, known)
    if plain == name:
        return make("candidates", text, CANDIDATES)
    own = {key: word for key, word in given.items() if key in Adaptive.__dataclass_fields__}
    rest = {key: word for key, word in given.items() if key not in own}
    adaptive = Adaptive(**settings(f"setting of {name!r}", Adaptive, own))
    most = "nodes" if plain == "best-first" else "max_candidates"
    rest.setdefault(most, str(adaptive.budgets[-1]))
    shape = SHAPES[plain](**settings(f"setting of {plain!r}", SHAPES[plain], rest))
    return replace(adaptive, shape=shape)


def _draft_model(
    config: EngineConfig,
    name: str,
    folder: Path,
    dtype: torch.dtype,
    target: Target,
    tokenizer: Tokenizer,
) -> Drafter:
    own = Tokenizer.load(folder)
    probe = "Zwölf boxes × 34 = 408.\n\tdef f(x): return x"
    if own.encode(probe) != tokenizer.encode(probe) or own.vocab_size != tokenizer.vocab_size:
        raise PairingError(
            f"The draft model {name!r} and the target {config.target!r} have different tokenizers: "
            "a draft model must read the same tokens."
        )
    model = load_target(folder, dtype, target.device)
    return ModelDrafter(
        model,
        config.draft_len or 5,
        sampled=config.verifier == "reject",
    )
