"""The options that mean the same in every command."""

from __future__ import annotations

from typing import Annotated

import typer

from floodstage.core.errors import ConfigError

Target = Annotated[str, typer.Option(help="Shipped name, folder or hub id of the model.")]
Drafter = Annotated[
    str,
    typer.Option(
        help="auto, none, ngram, jacobi or lookahead (settings as in 'ngram(longest=4)'), or the "
        "name of a DFlash drafter or of a smaller model. auto: the one shipped beside the target, "
        "else ngram."
    ),
]
Workload = Annotated[
    str,
    typer.Option(
        help="mathematics, mathematics-phrasings or code (built in); gsm8k, math500, aime24, "
        "aime25, humaneval, mbpp, mt-bench or alpaca (from the hub, or gsm8k=rows.jsonl); or a "
        "JSONL file with prompt, question or turns."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Dtype = Annotated[str, typer.Option(help="auto, fp32 or bf16. auto: bf16 on CUDA, else fp32.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's choice.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
NewTokens = Annotated[
    int | None, typer.Option(min=1, help="Most tokens to write. Default: 512 or what fits.")
]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 is greedy.")]
Prompts = Annotated[int, typer.Option(min=1, help="How many held-out prompts.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document as the last line.")]
DraftLen = Annotated[
    int | None, typer.Option(min=0, help="Tokens to draft per cycle. Default: the drafter's own.")
]
Scheduler = Annotated[
    str,
    typer.Option(
        help="fixed, rolling, ewma, adl, confidence or cost; settings as in "
        "'confidence(threshold=0.3)'."
    ),
]
Candidates = Annotated[
    str,
    typer.Option(
        help="none, beam, prefix-rank, uncertain-sparse or best-first: verify a tree in one pass; "
        "'adaptive-' before it follows the last cycle."
    ),
]
Seeding = Annotated[
    str,
    typer.Option(help="none, sparse, dense, aligned or branch: use rejected tokens again."),
]
Verifier = Annotated[str, typer.Option(help="match or reject; both lossless.")]


def whole_numbers(option: str, text: str, *, least: int = 1) -> tuple[int, ...]:
    """ "1,2,4" as numbers from `least` on, in ascending order, each once. Raises ConfigError."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() and int(word) >= least for word in words):
        raise ConfigError(f"{option} takes whole numbers such as 1,2,4; got {text!r}.")
    return tuple(sorted({int(word) for word in words}))


def sizes(option: str, text: str) -> tuple[tuple[int, int], ...]:
    """ "64x64,9x12" as pairs of height and width, fewest cells first. Raises ConfigError."""
    found = set()
    for word in filter(None, map(str.strip, text.lower().split(","))):
        parts = word.split("x")
        if len(parts) != 2 or not all(p.isdecimal() and int(p) for p in parts):
            raise ConfigError(f"{option} takes sizes such as 64x64 or 8x8,9x12; got {text!r}.")
        found.add((int(parts[0]), int(parts[1])))
    if not found:
        raise ConfigError(f"{option} takes sizes such as 64x64 or 8x8,9x12; got {text!r}.")
    return tuple(sorted(found, key=lambda s: (s[0] * s[1], s)))
