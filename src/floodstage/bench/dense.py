"""A dense trace: at every place of a text what the drafter would have proposed there.

The text is decoded plainly; at each token the drafter is asked and its draft is noted, but not
verified. What the target would have kept of it follows from the text itself. So one trace scores
any policy that cuts drafts, exactly, wherever its cycles begin (see `replay`). Greedy or, with
the `match` verifier, sampled: both write the same text with and without drafts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from floodstage.bench.records import whole_lines
from floodstage.bench.workloads import Workload
from floodstage.core.errors import ConfigError, RunError
from floodstage.core.files import write_whole
from floodstage.core.protocols import Drafter, DraftSession
from floodstage.core.types import Commit, Draft, Proposal, Request, StepRecord, TokenId
from floodstage.engine.engine import Engine

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class TextTrace:
    """One text. Entry p - 1 of `kept` and `confidence` belongs to the cycle that begins when p
    tokens are written: how many tokens of a draft would be kept, and the drafter's confidences."""

    prompt: int
    tokens: int
    limit: int  # max_new_tokens
    kept: tuple[int, ...]
    confidence: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Costs:
    """Median seconds of a cycle's parts: the draft, and target and judge by rows."""

    draft_s: float
    pass_s: dict[int, float]


class Witness:
    """A drafter that is asked and noted, and proposes nothing."""

    def __init__(self, drafter: Drafter) -> None:
        self.drafter = drafter
        self.name, self.taps = drafter.name, drafter.taps
        self.draft_len = drafter.draft_len
        self.notes: list[Draft] = []

    def begin(self, slots: int, capacity: int) -> WitnessSession:
        if slots != 1:
            raise ConfigError(f"A dense trace takes one sequence at a time, got {slots!r}.")
        return WitnessSession(self, self.drafter.begin(slots, capacity))


@dataclass(slots=True)
class WitnessSession:
    """See `core.protocols.DraftSession`."""

    witness: Witness
    session: DraftSession

    def join(self, request: Request, taps: Tensor | None) -> None:
        self.session.join(request, taps)

    def propose(self, pending: Sequence[TokenId], budgets: Sequence[int]) -> list[Draft]:
        drafts = self.session.propose(pending, [self.witness.draft_len])
        self.witness.notes += drafts
        return [Draft(draft.tokens[:0]) for draft in drafts]

    def observe(self, commits: Sequence[Commit]) -> None:
        self.session.observe(commits)

    def leave(self, slot: int) -> None:
        self.session.leave(slot)


def trace_text(engine: Engine, request: Request, prompt: int) -> TextTrace:
    """Decode plainly and note every draft."""
    witness = Witness(engine.drafter)
    chunks = list(replace(engine, drafter=witness).run([request]))
    generation = chunks[-1].generation
    assert generation is not None  # the last chunk of a text carries it
    ids = generation.ids
    kept: list[int] = []
    confidence: list[tuple[float, ...]] = []
    for written, draft in enumerate(witness.notes, start=1):
        if draft.parents is not None:
            raise ConfigError("A dense trace is made of chains: leave the candidates out.")
        wanted = torch.tensor(ids[written : written + len(draft)])
        same = draft.tokens[: wanted.shape[0]].cpu() == wanted
        kept.append(int(same.long().cumprod(0).sum()))
        sure = () if draft.confidence is None else draft.confidence.tolist()
        confidence.append(tuple(round(c, 4) for c in sure))
    return TextTrace(prompt, len(ids), request.max_new_tokens, tuple(kept), tuple(confidence))


class Staircase:
    """Verifies 0, 1, 2, ... tokens in turn: what each number of rows costs."""

    name, needs_confidence = "staircase", False

    def __init__(self, draft_len: int) -> None:
        self.draft_len, self.next = draft_len, 0
        # Neighbours far apart in time, every length reached.
        self.stride = next(s for s in (7, 5, 3, 2, 1) if gcd(s, draft_len + 1) == 1)

    def choose(self) -> int:
        return self.draft_len

    def cut(self, drafts: Sequence[Proposal]) -> list[int]:
        self.next = (self.next + self.stride) % (self.draft_len + 1)
        return [min(self.next, draft.size) for draft in drafts]

    def observe(self, record: StepRecord) -> None:
        pass


def measure_costs(engine: Engine, requests: Sequence[Request]) -> Costs:
    """What a draft and passes of 1 .. draft_len + 1 rows cost, in real cycles."""
    stairs = replace(engine, scheduler=Staircase(engine.drafter.draft_len))
    records: list[StepRecord] = []
    list(stairs.run(requests[:1]))  # a warm-up
    for chunk in stairs.run(requests):
        records += [] if chunk.record.prefill else [chunk.record]
    by_rows: dict[int, list[float]] = {}
    for r in records:
        by_rows.setdefault(r.rows, []).append(r.verify_s + r.judge_s)
    drafts = [r.draft_s for r in records if r.drafted]
    return Costs(
        median(drafts) if drafts else 0.0,
        {rows: median(seconds) for rows, seconds in sorted(by_rows.items())},
    )


def write_trace(engine: Engine, workload: Workload, requests: Sequence[Request], out: Path,
                settings: dict[str, Any]) -> Iterator[TextTrace]:  # fmt: skip
    """Trace every request into `out`/trace.jsonl and the costs into `out`/costs.json; texts that
    are there already are not traced again. Yields as it goes."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "trace.jsonl"
    head = {"schema_version": SCHEMA, "prompt_hash": workload.digest, "settings": settings}
    old = json.loads((out / "trace.json").read_text()) if (out / "trace.json").is_file() else head
    if old != json.loads(json.dumps(head)):
        raise RunError(f"{str(out)!r} holds a trace of other settings: choose another folder.")
    write_whole(out / "trace.json", json.dumps(head, indent=1) + "\n")
    if not (out / "costs.json").is_file():
        costs = measure_costs(engine, requests[:24])
        held = {"draft_s": costs.draft_s, "pass_s": costs.pass_s}
        write_whole(out / "costs.json", json.dumps(held) + "\n")
    known = {text.prompt: text for text in read_trace(out)} if path.is_file() else {}
    with path.open("a", encoding="utf-8") as file:
        for i, request in enumerate(requests):
            if i not in known:
                text = trace_text(engine, request, i)
                file.write(json.dumps([text.prompt, text.tokens, text.limit, text.kept,
                                       text.confidence]) + "\n")  # fmt: skip
                file.flush()
            else:
                text = known[i]
            yield text


def read_trace(out: Path) -> list[TextTrace]:
    """The texts of a trace. A last line that was cut off is cut off the file too."""
    path = out / "trace.jsonl"
    if not path.is_file():
        raise RunError(f"{str(out)!r} holds no trace: make one with `floodstage trace`.")
    texts: list[TextTrace] = []
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            prompt, tokens, limit, kept, confidence = json.loads(line)
            sure = tuple(tuple(c) for c in confidence)
            texts.append(TextTrace(prompt, tokens, limit, tuple(kept), sure))
        except (ValueError, TypeError) as error:
            raise RunError(f"{str(path)!r} line {number} is not a trace: {error}.") from error
    return texts


def read_costs(out: Path) -> Costs:
    """The costs of a trace."""
    try:
        raw = json.loads((out / "costs.json").read_text())
        return Costs(raw["draft_s"], {int(rows): s for rows, s in raw["pass_s"].items()})
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{str(out / 'costs.json')!r} cannot be read: {error}.") from error
