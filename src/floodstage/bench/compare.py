"""`floodstage bench`: names of arms become arms, a workload becomes requests, a run a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from floodstage.bench.arms import Arm, OurArm, TransformersArm, load_peer
from floodstage.bench.batches import BatchSummary, measure_batches
from floodstage.bench.measure import measure
from floodstage.bench.records import error_row
from floodstage.bench.summary import ArmSummary, write_summaries
from floodstage.bench.workloads import Workload, load_workload
from floodstage.core.errors import ConfigError, Error, unknown
from floodstage.core.types import Request
from floodstage.drafting.candidates import SHAPES
from floodstage.drafting.seeding import MODES
from floodstage.engine.build import (
    SCHEDULERS,
    EngineConfig,
    build,
    find_model,
    load_drafter,
    make_scheduler,
)
from floodstage.engine.engine import Engine
from floodstage.engine.options import Options
from floodstage.engine.spec import split
from floodstage.models.transformer import Transformer
from floodstage.text.tokenizer import Prompt

PEERS = ("transformers", "transformers-lookup", "transformers-assistant")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """What to compare. An arm is a drafter's name, optionally with a draft length (`ngram:10`) and
    with a scheduler, candidates or a seeding, each with settings if wanted
    (`jacobi(fill=ngram):8`, `auto:15+ewma(alpha=0.2)`, `auto+best-first(nodes=24)+cost`,
    `auto+seed-dense`), or a peer (`transformers`, `transformers-lookup:10`,
    `transformers-assistant:5`). The first arm is the baseline."""

    target: str = "math-mini"
    workload: str = "mathematics"
    arms: tuple[str, ...] = ("none", "ngram", "auto")
    assistant: str | None = None  # the model of transformers-assistant
    prompts: int = 64
    max_new_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0


def bench(
    config: BenchConfig, out: Path, *, progress: bool = True, keep_going: bool = False
) -> list[ArmSummary]:
    """Measure all arms into the run folder `out`; the lines of its table.

    An arm that fails while it runs becomes an error row; with `keep_going` one that cannot even
    be made does, too.
    """
    arms, engine = make_arms(config, out if keep_going else None)
    workload = load_workload(config.workload, config.prompts, seed=config.seed)
    options = _options(config)

    def ask(prompt: Prompt, number: int) -> Request:
        return engine.request(prompt, replace(options, seed=config.seed + number))

    settings = settings_of(config)
    settings["device"] = str(engine.target.device)  # what "auto" came to
    measure(arms, workload, ask, out, settings=settings, progress=progress)
    return write_summaries(out, config.arms[0])


def settings_of(config: BenchConfig) -> dict[str, Any]:
    """All settings but the arms: what a run folder is held against when it goes on."""
    return {
        name: getattr(config, name) for name in BenchConfig.__dataclass_fields__ if name != "arms"
    }


def make_requests(config: BenchConfig, engine: Engine, workload: Workload) -> list[Request]:
    """A request for the first turn of every item, each with a seed of its own."""
    options = _options(config)
    return [
        engine.request(item.prompt, replace(options, seed=config.seed + i))
        for i, item in enumerate(workload.items)
    ]


def _options(config: BenchConfig) -> Options:
    return Options(max_new_tokens=config.max_new_tokens, temperature=config.temperature)


def bench_batches(config: BenchConfig, out: Path, *, slots: int) -> list[BatchSummary]:
    """Throughput of every arm of ours with `slots` sequences at once, beside one at a time."""
    arms, engine = make_arms(config)
    ours = [arm for arm in arms if isinstance(arm, OurArm)]
    if len(ours) != len(arms):
        raise ConfigError("transformers' assisted modes take one sequence: leave the peers out.")
    workload = load_workload(config.workload, config.prompts, seed=config.seed)
    requests = make_requests(config, engine, workload)
    return measure_batches(ours, requests, out, slots=slots)


def make_arms(config: BenchConfig, errors: Path | None = None) -> tuple[list[Arm], Engine]:
    """The arms, and the engine of the target that they share. With `errors`, a run folder, an arm
    that cannot be made becomes an error row there."""
    base = EngineConfig(
        target=config.target,
        drafter="none",
        device=config.device,
        dtype=config.dtype,
        threads=config.threads,
    )
    engine = build(base)
    if len(set(config.arms)) != len(config.arms) or not config.arms:
        raise ConfigError(f"Give each arm once, and at least one, got {list(config.arms)!r}.")
    arms: list[Arm] = []
    for name in config.arms:
        try:
            arms.append(_arm(name, config, base, engine))
        except Error as error:
            if errors is None or name == config.arms[0]:
                raise
            errors.mkdir(parents=True, exist_ok=True)
            with (errors / "records.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(error_row(name, error)) + "\n")
    return arms, engine


def _arm(text: str, config: BenchConfig, base: EngineConfig, engine: Engine) -> Arm:
    arm, *words = text.split("+")
    name, _, number = arm.partition(":")
    if number and not number.isdigit():
        raise ConfigError(f"The arm {text!r} has no number after its colon (a draft length).")
    size = int(number) if number else None
    if name in PEERS:
        return _peer(text, name, size, config, engine)
    if name.startswith("transformers"):
        raise unknown("peer", name, PEERS)
    policies: dict[str, Any] = _policies(text, words)
    settings = replace(base, drafter=name, draft_len=size, **policies)
    drafter = load_drafter(settings, engine.target, engine.tokenizer)
    scheduler = make_scheduler(settings.scheduler, drafter, size)
    return OurArm(text, replace(engine, drafter=drafter, scheduler=scheduler))


def _policies(arm: str, words: Sequence[str]) -> dict[str, str]:
    """Which setting of the engine each word of an arm is."""
    out: dict[str, str] = {}
    for word in words:
        name = split(word)[0]
        if name in SCHEDULERS:
            kind, value = "scheduler", word
        elif name.startswith("seed-"):
            kind, value = "seeding", word.removeprefix("seed-")
        elif name.removeprefix("adaptive-") in SHAPES:
            kind, value = "candidates", word
        else:
            known = [*SCHEDULERS, *SHAPES, *(f"seed-{mode}" for mode in MODES)]
            raise unknown(f"word in the arm {arm!r}:", name, known)
        if kind in out:
            raise ConfigError(f"The arm {arm!r} names two of one kind: {out[kind]!r}, {value!r}.")
        out[kind] = value
    return out


def _peer(
    text: str, name: str, size: int | None, config: BenchConfig, engine: Engine
) -> TransformersArm:
    dtype = engine.target.dtype if isinstance(engine.target, Transformer) else torch.float32
    device = engine.target.device
    model = load_peer(find_model(config.target), dtype, device)
    options: dict[str, Any] = {}
    if name == "transformers-lookup":
        options["prompt_lookup_num_tokens"] = size or 10
    if name == "transformers-assistant":
        if config.assistant is None:
            raise ConfigError("The arm 'transformers-assistant' needs --assistant MODEL.")
        helper = load_peer(find_model(config.assistant), dtype, device)
        if size is not None:  # without a length: transformers' own defaults
            helper.generation_config.num_assistant_tokens = size
            helper.generation_config.num_assistant_tokens_schedule = "constant"
            helper.generation_config.assistant_confidence_threshold = 0.0
        options["assistant_model"] = helper
    return TransformersArm(text, model, engine, options)
