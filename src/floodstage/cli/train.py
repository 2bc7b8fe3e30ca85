"""`floodstage train`: options become a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from floodstage.cli.options import Device, Seed, Threads

app = typer.Typer(
    help="Train models: a target from a corpus, a drafter for a target.", no_args_is_help=True
)

Corpus = Annotated[
    str,
    typer.Option(
        help="mathematics, source (Python's standard library), or a text or JSONL file "
        "(text | prompt, response | question, answer)."
    ),
]
Start = Annotated[
    str | None, typer.Option(help="A model to go on from (name or folder), with its shape.")
]
Out = Annotated[Path, typer.Option(help="Run folder; the same command goes on from it.")]
Steps = Annotated[int, typer.Option(min=1)]
PerStep = Annotated[int, typer.Option(min=64, help="Tokens of a step, padding included.")]
MatrixLr = Annotated[float, typer.Option(help="Peak learning rate of Muon (matrices).")]
OtherLr = Annotated[float, typer.Option(help="Peak learning rate of AdamW (the rest).")]
Decay = Annotated[
    float, typer.Option(min=0.01, max=1.0, help="Share of the steps in which the rates fall to 0.")
]
Every = Annotated[int, typer.Option(min=1, help="Steps between held-out evaluations.")]
Texts = Annotated[int, typer.Option(min=1, help="Texts to read (problems, files).")]
Layers = Annotated[int, typer.Option(min=1)]
Hidden = Annotated[int, typer.Option(min=8)]
Inner = Annotated[int, typer.Option(min=8, help="Width inside the MLP.")]
Heads = Annotated[int, typer.Option(min=1)]
KvHeads = Annotated[int, typer.Option(min=1)]
HeadDim = Annotated[int, typer.Option(min=2)]
Positions = Annotated[int, typer.Option(min=16, help="Positions of the model.")]
Chunks = Annotated[int, typer.Option(min=257, help="Chunk types, characters and bytes included.")]
RootTypes = Annotated[int, typer.Option(min=257, help="Root types, chunks included.")]
CharsPerChunk = Annotated[int, typer.Option(min=1, help="Most characters of a chunk.")]
ChunksPerRoot = Annotated[int, typer.Option(min=1, help="Most chunks of a root.")]
Phrases = Annotated[bool, typer.Option(help="Roots may span words.")]


def say(line: str) -> None:
    """What happens, on standard error: standard output is for the finished model's folder."""
    print(line, file=sys.stderr, flush=True)


@app.command()
def target(
    out: Out,
    corpus: Corpus = "mathematics",
    start: Start = None,
    steps: Steps = 2000,
    tokens_per_step: PerStep = 4096,
    texts: Texts = 120_000,
    longest: Annotated[int, typer.Option(min=16, help="Tokens of a piece.")] = 512,
    vocab_size: Annotated[int, typer.Option(min=258)] = 1024,
    layers: Layers = 8,
    hidden: Hidden = 256,
    inner: Inner = 640,
    heads: Heads = 4,
    kv_heads: Heads = 2,
    head_dim: HeadDim = 64,
    context: Positions = 1024,
    matrix_lr: MatrixLr = 0.02,
    other_lr: OtherLr = 3e-3,
    decay: Decay = 0.4,
    evaluate_every: Every = 250,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train a Qwen3-shaped causal model and its byte-level BPE from a corpus."""
    from floodstage.engine.build import find_model
    from floodstage.engine.device import prepare
    from floodstage.training.fit import FitConfig
    from floodstage.training.run import TargetRun, train_target
    from floodstage.training.target import TargetShape

    run = TargetRun(
        corpus=corpus,
        start=None if start is None else str(find_model(start)),
        texts=texts,
        longest=longest,
        shape=TargetShape(
            layers=layers,
            hidden=hidden,
            inner=inner,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            vocab_size=vocab_size,
            context=context,
        ),
        fit=FitConfig(
            steps=steps,
            tokens_per_step=tokens_per_step,
            matrix_lr=matrix_lr,
            other_lr=other_lr,
            decay=decay,
            evaluate_every=evaluate_every,
            seed=seed,
        ),
    )
    print(train_target(run, out, prepare(device, threads), say))


@app.command()
def manager(
    out: Out,
    corpus: Corpus = "mathematics",
    start: Start = None,
    steps: Steps = 1500,
    tokens_per_step: PerStep = 8192,
    texts: Texts = 120_000,
    longest: Annotated[int, typer.Option(min=16, help="Roots of a row of texts.")] = 1280,
    chunks: Chunks = 1024,
    roots: RootTypes = 2048,
    chars_per_chunk: CharsPerChunk = 16,
    chunks_per_root: ChunksPerRoot = 4,
    phrases: Phrases = True,
    layers: Layers = 4,
    hidden: Hidden = 256,
    inner: Inner = 640,
    heads: Heads = 4,
    kv_heads: Heads = 2,
    head_dim: HeadDim = 64,
    context: Positions = 2048,
    matrix_lr: MatrixLr = 0.02,
    other_lr: OtherLr = 3e-3,
    decay: Decay = 0.4,
    evaluate_every: Every = 150,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train a flood's manager: learn a hierarchy (characters, chunks, roots) from the corpus, then
    a causal model that writes roots. `train renderer` and `train drafter` take it from there."""
    from floodstage.engine.build import find_model
    from floodstage.engine.device import prepare
    from floodstage.text.hierarchy import HierarchyShape
    from floodstage.training.fit import FitConfig
    from floodstage.training.run import TargetRun, train_target
    from floodstage.training.target import TargetShape

    run = TargetRun(
        corpus=corpus,
        start=None if start is None else str(find_model(start)),
        texts=texts,
        longest=longest,
        shape=TargetShape(
            layers=layers,
            hidden=hidden,
            inner=inner,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            context=context,
        ),
        hierarchy=HierarchyShape(
            chunks=chunks,
            roots=roots,
            chars_per_chunk=chars_per_chunk,
            chunks_per_root=chunks_per_root,
            phrases=phrases,
        ),
        fit=FitConfig(
            steps=steps,
            tokens_per_step=tokens_per_step,
            matrix_lr=matrix_lr,
            other_lr=other_lr,
            decay=decay,
            evaluate_every=evaluate_every,
            seed=seed,
        ),
    )
    print(train_target(run, out, prepare(device, threads), say))


@app.command()
def renderer(
    out: Out,
    manager: Annotated[
        str, typer.Option(help="The manager whose roots it renders (name or folder).")
    ] = "flood-manager",
    corpus: Corpus = "mathematics",
    start: Start = None,
    steps: Steps = 2000,
    tokens_per_step: PerStep = 4096,
    texts: Annotated[int, typer.Option(min=1, help="Texts in which roots are counted.")] = 20_000,
    layers: Layers = 6,
    hidden: Hidden = 256,
    inner: Inner = 704,
    heads: Heads = 4,
    energy_weight: Annotated[float, typer.Option(min=0.0, help="Of the energy's loss.")] = 0.5,
    judged: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of parents the energy learns from.")
    ] = 0.25,
    matrix_lr: MatrixLr = 0.02,
    other_lr: OtherLr = 3e-3,
    decay: Decay = 0.4,
    evaluate_every: Every = 200,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train a flood's renderer: root -> chunks -> characters, and an energy that tells right
    children from wrong ones.

    Prints the share of all types that it renders exactly, and the energy's AUROC against near
    misses it was never shown.
    """
    from floodstage.engine.build import find_model
    from floodstage.engine.device import prepare
    from floodstage.training.fit import FitConfig
    from floodstage.training.renderer import RendererShape
    from floodstage.training.run import RendererRun, train_renderer

    run = RendererRun(
        manager=str(find_model(manager)),
        corpus=corpus,
        start=None if start is None else str(find_model(start)),
        texts=texts,
        shape=RendererShape(
            layers=layers,
            hidden=hidden,
            inner=inner,
            heads=heads,
            energy_weight=energy_weight,
            judged=judged,
        ),
        fit=FitConfig(
            steps=steps,
            tokens_per_step=tokens_per_step,
            matrix_lr=matrix_lr,
            other_lr=other_lr,
            decay=decay,
            evaluate_every=evaluate_every,
            seed=seed,
        ),
    )
    print(train_renderer(run, out, prepare(device, threads), say))


@app.command()
def drafter(
    out: Out,
    target: Annotated[str, typer.Option(help="The model to draft for.")] = "math-mini",
    corpus: Corpus = "mathematics",
    start: Start = None,
    steps: Steps = 1500,
    tokens_per_step: PerStep = 4096,
    texts: Annotated[int, typer.Option(min=1, help="Texts the target writes first.")] = 8_000,
    new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of each.")] = 208,
    prompt_tokens: Annotated[
        int, typer.Option(min=1, help="Prompt length for texts without a prompt.")
    ] = 48,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Of every second text; the others are greedy.")
    ] = 0.7,
    go_on: Annotated[
        bool, typer.Option("--go-on", help="The target goes on after a text's end (managers).")
    ] = False,
    layers: Layers = 2,
    block_size: Annotated[int, typer.Option(min=2, help="Slots, the anchor counted.")] = 16,
    anchors: Annotated[int, typer.Option(min=1, help="Blocks per text and step.")] = 16,
    mask_id: Annotated[
        int | None,
        typer.Option(help="Token of empty slots. Default: the target's own, or an unused row."),
    ] = None,
    loss: Annotated[str, typer.Option(help="decay (DFlash) or dpace (D-PACE).")] = "decay",
    gamma: Annotated[float, typer.Option(help="Of decay: slot k weighs exp(-(k-1)/gamma).")] = 7.0,
    matrix_lr: MatrixLr = 0.02,
    other_lr: OtherLr = 3e-3,
    decay: Decay = 0.4,
    evaluate_every: Every = 100,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train a DFlash block-diffusion drafter on text that the target writes itself.

    Prints the held-out loss and tau (mean tokens per target pass, bonus included) and, beside
    it, the tau of the n-gram drafter on the same prompts.
    """
    from floodstage.core.errors import ConfigError
    from floodstage.engine.build import find_model, load_target
    from floodstage.engine.device import prepare
    from floodstage.models.transformer import Transformer
    from floodstage.text.tokenizer import Tokenizer
    from floodstage.training.drafter import DrafterShape
    from floodstage.training.fit import FitConfig
    from floodstage.training.run import DrafterRun, train_drafter

    run = DrafterRun(
        corpus=corpus,
        start=None if start is None else str(find_model(start)),
        texts=texts,
        new_tokens=new_tokens,
        prompt_tokens=prompt_tokens,
        temperature=temperature,
        go_on=go_on,
        mask_id=mask_id,
        shape=DrafterShape(
            layers=layers, block_size=block_size, anchors=anchors, loss=loss, gamma=gamma
        ),
        fit=FitConfig(
            steps=steps,
            tokens_per_step=tokens_per_step,
            matrix_lr=matrix_lr,
            other_lr=other_lr,
            decay=decay,
            evaluate_every=evaluate_every,
            seed=seed,
        ),
    )
    chosen = prepare(device, threads)
    folder = find_model(target)
    import torch

    model = load_target(folder, torch.float32, chosen)
    if not isinstance(model, Transformer):
        raise ConfigError(f"The target {target!r} is not of a family that drafters can tap.")
    print(train_drafter(run, model, Tokenizer.load(folder), out, say))


@app.command()
def canvas(
    out: Out,
    task: Annotated[str, typer.Option(help="sum, affine, latin or sudoku.")] = "sum",
    twin: Annotated[
        bool, typer.Option("--twin", help="Train the autoregressive twin instead.")
    ] = False,
    start: Start = None,
    steps: Steps = 1000,
    cells_per_step: Annotated[int, typer.Option(min=64, help="Cells of a step.")] = 4096,
    pool: Annotated[
        int, typer.Option(min=1, help="Puzzles of a size to make (latin, sudoku).")
    ] = 4000,
    layers: Layers = 6,
    hidden: Hidden = 128,
    inner: Inner = 384,
    heads: Heads = 4,
    kv_heads: Heads = 2,
    matrix_lr: MatrixLr = 0.02,
    other_lr: OtherLr = 3e-3,
    decay: Decay = 0.4,
    evaluate_every: Every = 100,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train a denoiser that fills the holes of grids, or its autoregressive twin.

    Prints the share of held-out grids, of a size never seen in training, that are wholly right.
    """
    from floodstage.engine.build import find_model
    from floodstage.engine.device import prepare
    from floodstage.training.canvas import CanvasRun, CanvasShape, train_canvas
    from floodstage.training.fit import FitConfig

    run = CanvasRun(
        task=task,
        twin=twin,
        start=None if start is None else str(find_model(start)),
        pool=pool,
        shape=CanvasShape(
            layers=layers, hidden=hidden, inner=inner, heads=heads, kv_heads=kv_heads
        ),
        fit=FitConfig(
            steps=steps,
            tokens_per_step=cells_per_step,
            matrix_lr=matrix_lr,
            other_lr=other_lr,
            decay=decay,
            evaluate_every=evaluate_every,
            seed=seed,
        ),
    )
    print(train_canvas(run, out, prepare(device, threads), say))
