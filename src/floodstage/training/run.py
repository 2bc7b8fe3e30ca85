"""`floodstage train`: from a corpus to a target, from a target to its drafter.

A run folder holds the tokenizer or the target's own text, the checkpoint, the history, and in
`model/` the finished model with its card. The same command goes on where it was killed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from floodstage.core.errors import CheckpointError, ConfigError
from floodstage.core.metrics import tau
from floodstage.core.protocols import Drafter
from floodstage.core.types import Request, Sampling, StepRecord
from floodstage.decoding.exactness import exactness
from floodstage.decoding.flood import FloodDecoder, check_pair
from floodstage.decoding.loop import decode
from floodstage.decoding.verifiers import MatchVerifier
from floodstage.drafting.block_diffusion import BlockDiffusionDrafter
from floodstage.drafting.ngram import NgramDrafter
from floodstage.drafting.none import NoDrafter
from floodstage.models.block_diffusion import BlockDiffusion
from floodstage.models.fractal import Renderer, fresh_renderer
from floodstage.models.load import load_block_diffusion, load_renderer, load_transformer
from floodstage.models.transformer import Transformer
from floodstage.scheduling.fixed import FixedScheduler
from floodstage.text.hierarchy import Hierarchy, HierarchyShape, fit_hierarchy
from floodstage.text.mathematics import Problem, is_right, problems
from floodstage.text.tokenizer import MASK, Tokenizer, train_bpe
from floodstage.training.card import write_card
from floodstage.training.documents import TEMPLATE, Documents, corpus, encode_pairs
from floodstage.training.drafter import DrafterShape, DrafterTask, fresh_drafter
from floodstage.training.fit import FitConfig, fit
from floodstage.training.renderer import RendererShape, RendererTask, tables, wrong_found
from floodstage.training.target import TargetShape, TargetTask, fresh_target

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRun:
    """A target to train. `texts` is how many texts of the corpus are read (problems, files). With a
    `start` the tokenizer or the hierarchy and the shape are those of that model.

    With a `hierarchy` it is a flood's manager: its tokens are roots, and it learns rows of texts
    with their prompts, so that it can go on after the end of one."""

    corpus: str
    start: str | None = None  # folder of a model to go on from, with its tokenizer and shape
    texts: int = 120_000
    longest: int = 512  # tokens of a piece
    shape: TargetShape = field(default_factory=TargetShape)
    hierarchy: HierarchyShape | None = None
    fit: FitConfig = field(default_factory=FitConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrafterRun:
    """A drafter to train. The target writes `texts` continuations of its corpus's prompts, every
    second one greedily, the others at `temperature`. With `go_on` it goes on after the end of a
    text, up to `new_tokens`, as a flood's manager does."""

    corpus: str
    start: str | None = None  # folder of a drafter to go on from, with its shape
    texts: int = 8_000
    prompt_tokens: int = 48  # of a text without a prompt
    new_tokens: int = 208
    temperature: float = 0.7
    go_on: bool = False
    own_text_slots: int = 64
    mask_id: int | None = None  # None: see `mask_token`
    shape: DrafterShape = field(default_factory=DrafterShape)
    fit: FitConfig = field(default_factory=FitConfig)


def train_target(run: TargetRun, out: Path, device: torch.device, say: Say = print) -> Path:
    """Train a target into `out`; the folder of the finished model.

    Raises CheckpointError if `out` holds a run of another configuration.
    """
    begin_run(out, asdict(run))
    tokenizer = _tokenizer(run, out, say)
    say("Encoding the corpus.")
    train, held_out = (
        encode_pairs(
            corpus(run.corpus, split, count, seed=run.fit.seed), tokenizer, longest=run.longest
        )
        for split, count in (("train", run.texts), ("heldout", 400))
    )
    say(f"{len(train):,} texts, {train.ids.size:,} tokens to learn from.")
    if run.hierarchy is not None:
        train, held_out = train.packed(run.longest), held_out.packed(run.longest)
    if run.start is None:
        model = fresh_target(run.shape.config(tokenizer), run.fit.seed).to(device)
    else:
        model = load_transformer(Path(run.start), dtype=torch.float32, device=device).train()
    probe = None
    if run.corpus == "mathematics":
        asked = list(islice(problems("heldout", seed=99), 63))

        def probe(model: Transformer) -> Mapping[str, float]:
            return {"right": right_answers(model.fuse(), tokenizer, asked)}

    task = TargetTask(model, tokenizer, train, held_out, run.fit, probe)
    fit(task, run.fit, out, report=say)
    if run.hierarchy is not None:
        Hierarchy.load(out / "tokenizer").save(out / "model")
    kind = "Target" if run.hierarchy is None else "Flood manager"
    write_card(out / "model", f"{kind} trained on {run.corpus!r}", asdict(run))
    return out / "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class RendererRun:
    """A flood's renderer to train, for the hierarchy in the folder `manager` (a manager's or a
    renderer's). `texts` of the corpus say how often each root is seen."""

    manager: str
    corpus: str
    start: str | None = None  # folder of a renderer to go on from, with its shape
    texts: int = 20_000
    shape: RendererShape = field(default_factory=RendererShape)
    fit: FitConfig = field(default_factory=FitConfig)


def train_renderer(run: RendererRun, out: Path, device: torch.device, say: Say = print) -> Path:
    """Train a renderer into `out`; the folder of the finished model.

    Raises CheckpointError if `out` holds a run of another configuration.
    """
    hierarchy = Hierarchy.load(Path(run.manager))
    begin_run(out, asdict(run))
    say("Counting roots.")
    seen = torch.cat(
        [
            torch.tensor(hierarchy.encode(p.prompt + p.response), dtype=torch.int64)
            for p in corpus(run.corpus, "train", run.texts, seed=run.fit.seed)
        ]
    )
    if run.start is None:
        model = fresh_renderer(run.shape.config(hierarchy), run.fit.seed).to(device)
    else:
        model = load_renderer(Path(run.start), dtype=torch.float32, device=device).train()
        check_pair(model, hierarchy)

    def probe(model: Renderer) -> Mapping[str, float]:
        model.eval().fuse()
        found = exactness(FloodDecoder(model, hierarchy), seen)
        wrong = wrong_found(model, task.truth)
        model.train()
        return {**found.over_types(), **wrong}

    task = RendererTask(model, hierarchy, tables(hierarchy, seen), run.shape, run.fit, probe)
    fit(task, run.fit, out, report=say)
    write_card(out / "model", f"Flood renderer for roots of {run.corpus!r}", asdict(run))
    return out / "model"


def begin_run(out: Path, config: dict[str, Any]) -> None:
    """Write the configuration of a new run, or hold it against that of the run in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "run.json"
    config = json.loads(json.dumps(config))  # as it will be read back
    if not path.is_file():
        part = path.with_suffix(".part")
        part.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
        return
    try:
        old = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}.") from error
    # `fit` looks after its own part, some of which may change.
    if changed := [k for k in config if k != "fit" and config[k] != old.get(k)]:
        raise CheckpointError(
            f"{str(out)!r} holds a run of another configuration ({', '.join(changed)} differ): "
            "choose another folder or the same settings."
        )


def _fingerprint(target: Transformer) -> str:
    """Tells targets apart by what they were trained to: the norms, which are small."""
    digest = hashlib.sha256()
    for name, p in target.named_parameters():
        if name.endswith("norm.weight"):
            digest.update(p.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _tokenizer(run: TargetRun, out: Path, say: Say) -> Tokenizer:
    folder = out / "tokenizer"
    if (folder / "generation_config.json").is_file():  # the last file that save writes
        return Tokenizer.load(folder)
    if run.start is not None and run.hierarchy is not None:
        hierarchy = Hierarchy.load(Path(run.start))
        hierarchy.save(folder)
        return hierarchy.tokenizer
    if run.start is not None:
        tokenizer = Tokenizer.load(Path(run.start))
        tokenizer.save(folder)
        return tokenizer
    say("Learning the tokenizer.")
    texts = list(corpus(run.corpus, "train", min(run.texts, 40_000), seed=run.fit.seed))
    template = TEMPLATE if all(pair.prompt for pair in texts) else None
    whole = (p.prompt + p.response for p in texts)
    if run.hierarchy is not None:
        hierarchy = fit_hierarchy(whole, run.hierarchy, template=template)
        hierarchy.save(folder)
        some = (p.prompt + p.response for p in texts[:500])
        seen = [r for text in some for r in hierarchy.encode(text)]
        for name, value in hierarchy.report(seen):
            say(f"  {name}: {value:,.4g}")
        return hierarchy.tokenizer
    tokenizer = train_bpe(whole, run.shape.vocab_size, template=template)
    tokenizer.save(folder)
    return tokenizer


def train_drafter(
    run: DrafterRun,
    target: Transformer,
    tokenizer: Tokenizer,
    out: Path,
    say: Say = print,
) -> Path:
    """Train a drafter for `target` into `out`; the folder of the finished model.

    Raises CheckpointError if `out` holds a run of another configuration or for another target.
    """
    mask = mask_token(run, target, tokenizer)
    for p in target.parameters():
        p.requires_grad_(False)
    begin_run(out, asdict(run) | {"target": _fingerprint(target)})
    train = own_text(run, target, tokenizer, out / "own_text.npz", "train", run.texts, say)
    held_out = own_text(run, target, tokenizer, out / "own_text_heldout.npz", "heldout", 192, say)
    if run.start is None:
        net = fresh_drafter(target, mask, run.shape)
    else:
        net = load_block_diffusion(Path(run.start), target).train()
        shape = replace(run.shape, block_size=net.config.block_size)
        run = replace(run, shape=shape)
    block, stop = run.shape.block_size, frozenset(tokenizer.eos)
    asked = range(0, min(32, len(held_out)), 2)
    prompts = [held_out.text(i)[: held_out.prompts[i]].tolist() for i in asked]

    def probe(net: BlockDiffusion) -> Mapping[str, float]:
        return {
            "tau": live_tau(target, BlockDiffusionDrafter(net.fuse(), block - 1), prompts, stop),
            "ngram_tau": ngram_tau,
        }

    ngram_tau = live_tau(target, NgramDrafter(device=target.device), prompts, stop)
    task = DrafterTask(net, train, held_out, run.shape, run.fit, probe, pad=tokenizer.eos[0])
    fit(task, run.fit, out, report=say)
    write_card(
        out / "model", f"DFlash drafter trained on text of its target ({run.corpus!r})", asdict(run)
    )
    return out / "model"


def mask_token(run: DrafterRun, target: Transformer, tokenizer: Tokenizer) -> int:
    """The token in a block's empty slots: as asked, the tokenizer's own, or else the last row of
    the embedding, if no token uses it."""
    if run.mask_id is not None:
        if not 0 <= run.mask_id < target.vocab_size:
            raise ConfigError(
                f"mask_id must be in the vocabulary of {target.vocab_size}, got {run.mask_id!r}."
            )
        return run.mask_id
    own = tokenizer.token_id(MASK)
    if own is not None:
        return own
    if tokenizer.vocab_size < target.vocab_size:
        return target.vocab_size - 1
    raise ConfigError(
        f"The target has no {MASK!r} token and no unused row in its embedding: name a token that "
        "its texts never hold with --mask-id."
    )


def own_text(
    run: DrafterRun,
    target: Transformer,
    tokenizer: Tokenizer,
    path: Path,
    split: str,
    count: int,
    say: Say,
) -> Documents:
    """What the target itself writes after its corpus's prompts; kept in `path`."""
    if path.is_file():
        with np.load(path) as kept:
            return Documents(kept["ids"], kept["starts"], kept["prompts"])
    say(f"The target writes {count:,} texts.")
    prompts = [p for p in _prompts(run, tokenizer, split, count) if len(p) < target.context]
    if not prompts:
        raise ConfigError(
            f"The corpus {run.corpus!r} gives no prompt for the split {split!r}: give more text, "
            "or shorter prompts."
        )
    requests = [
        Request(
            prompt=tuple(prompt),
            max_new_tokens=min(run.new_tokens, target.context - len(prompt)),
            sampling=Sampling(temperature=run.temperature if i % 2 else 0.0),
            stop_ids=frozenset() if run.go_on else frozenset(tokenizer.eos),
            seed=run.fit.seed * 1_000_003 + i,
        )
        for i, prompt in enumerate(prompts)
    ]
    written: dict[int, list[int]] = {}
    steps = decode(
        target,
        NoDrafter(target.device),
        MatchVerifier(),
        FixedScheduler(0),
        requests,
        slots=run.own_text_slots,
    )
    ended = (s.finish for s in _collect(steps, written) if s.finish)
    for _ in track(ended, "own text", total=len(requests), console=Console(stderr=True)):
        pass
    texts = [[*prompt, *written[i]] for i, prompt in enumerate(prompts)]
    documents = Documents.of(texts, [len(p) for p in prompts])
    part = path.with_suffix(".part.npz")
    np.savez(part, ids=documents.ids, starts=documents.starts, prompts=documents.prompts)
    part.replace(path)
    return documents


def _collect(steps: Iterator[Any], into: dict[int, list[int]]) -> Iterator[Any]:
    for step in steps:
        into.setdefault(step.sequence, []).extend(step.tokens)
        yield step


def _prompts(run: DrafterRun, tokenizer: Tokenizer, split: str, count: int) -> Iterator[list[int]]:
    """Prompts of the corpus; of texts without any, random places in them."""
    rng = np.random.default_rng(run.fit.seed)
    pairs = list(corpus(run.corpus, split, count, seed=run.fit.seed + 1))
    bare = [p.response for p in pairs if not p.prompt]
    if not bare:
        yield from (list(tokenizer.encode(p.prompt)) for p in pairs[:count])
        return
    texts = [ids for ids in tokenizer.encode_batch(bare) if len(ids) > run.prompt_tokens]
    if not texts:
        return
    sizes = np.array([len(t) for t in texts], dtype=np.float64)
    for i in rng.choice(len(texts), size=count, p=sizes / sizes.sum()):
        at = int(rng.integers(0, len(texts[i]) - run.prompt_tokens + 1))
        yield texts[i][at : at + run.prompt_tokens]


def live_tau(
    target: Transformer,
    drafter: Drafter,
    prompts: Sequence[Sequence[int]],
    stop: frozenset[int],
    new: int = 160,
) -> float:
    """tau of the real loop, greedy, over all cycles of all prompts."""
    requests = [
        Request(prompt=tuple(p), max_new_tokens=min(new, target.context - len(p)), stop_ids=stop)
        for p in prompts
    ]
    records: list[StepRecord] = [
        step.record
        for step in decode(
            target,
            drafter,
            MatchVerifier(),
            FixedScheduler(drafter.draft_len),
            requests,
            slots=len(requests),
        )
    ]
    return tau(records)


def right_answers(model: Transformer, tokenizer: Tokenizer, asked: Sequence[Problem]) -> float:
    """The share of `asked` that the model answers right, greedily."""
    prompts = [tokenizer.prompt(p.prompt) for p in asked]
    requests = [
        Request(
            prompt=prompt,
            max_new_tokens=min(320, model.context - len(prompt)),
            stop_ids=frozenset(tokenizer.eos),
        )
        for prompt in prompts
    ]
    written: dict[int, list[int]] = {}
    steps = decode(
        model, NoDrafter(model.device), MatchVerifier(), FixedScheduler(0), requests, slots=32
    )
    for _ in _collect(steps, written):
        pass
    return sum(is_right(p, tokenizer.decode(written[i])) for i, p in enumerate(asked)) / len(asked)
