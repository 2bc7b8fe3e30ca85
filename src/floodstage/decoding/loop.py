"""The one decode loop: draft, verify, commit, for a batch of sequences.

In each cycle every live sequence drafts some tokens after its pending one, the target runs once
over all of them, each keeps the path its judge accepts and gains one token of the target's own.
The pending token is the last committed one: in the output, but not yet in the target's state.
Plain decoding is this loop with a drafter that drafts nothing. Knows no text and no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import torch

from floodstage.core.errors import ContextError
from floodstage.core.protocols import (
    Clock,
    Drafter,
    Judge,
    Scheduler,
    Target,
    Verifier,
)
from floodstage.core.slots import vacate
from floodstage.core.types import (
    Commit,
    Draft,
    Forward,
    Proposal,
    Request,
    Step,
    StepRecord,
    TokenId,
    TokenIds,
    Verdict,
)
from floodstage.models.cache import upload
from floodstage.scheduling.survival import depths


@dataclass(slots=True)
class Live:
    """A sequence that is being written."""

    number: int
    request: Request
    judge: Judge
    pending: TokenId
    left: int  # tokens it may still get


class Decoder:
    """The live sequences and one target state. Sequence i of `live` sits in slot i everywhere."""

    def __init__(
        self,
        target: Target,
        drafter: Drafter,
        verifier: Verifier,
        scheduler: Scheduler,
        *,
        slots: int,
        capacity: int,
        clock: Clock = perf_counter,
    ) -> None:
        self.target, self.drafter, self.verifier = target, drafter, verifier
        self.scheduler, self.slots, self.clock = scheduler, slots, clock
        self.capacity = capacity
        self.state = target.begin(slots, capacity, taps=drafter.taps)
        self.session = drafter.begin(slots, capacity)
        self.live: list[Live] = []
        self.joined = 0

    @property
    def full(self) -> bool:
        return len(self.live) == self.slots

    @torch.inference_mode()
    def join(self, request: Request) -> Step:
        """Read a prompt into the next slot; its first token.

        Raises ContextError if the text may outgrow the state; the other sequences go on as before.
        """
        start = self.clock()
        slot = len(self.live)
        wanted = len(request.prompt) + request.max_new_tokens
        if wanted > self.capacity:
            raise ContextError(
                f"The prompt and max_new_tokens may need {wanted} tokens, but there is room for "
                f"{self.capacity}."
            )
        judge = self.verifier.begin(request, self.target.vocab_size, self.target.device)
        prompt = upload(torch.tensor(request.prompt), self.target.device)
        out = self.target.forward(self.state, [prompt], first=slot, last_only=True)
        pending = int(judge.first(out.logits[-1]))
        try:
            self.session.join(request, out.taps)
        except BaseException:
            self.state.leave(slot)  # no half-joined sequence may hold a slot
            raise
        self.live.append(Live(self.joined, request, judge, pending, request.max_new_tokens))
        self.joined += 1
        record = StepRecord(0, 0, 0, slot + 1, 0.0, verify_s=self.clock() - start, prefill=True)
        tokens, finish = cut(self.live[-1], (pending,))
        step = Step(self.live[-1].number, tokens, 0, record, finish)
        if step.finish:
            self.drop(step.sequence)
        return step

    @torch.inference_mode()
    def cycle(self) -> list[Step]:
        """One draft, one target pass, one commit for every live sequence."""
        start = self.clock()
        drafts, sizes, seen = self._draft()
        drafted = self.clock()
        bases, counts = list(self.state.lengths), [len(d) + 1 for d in drafts]
        out = self._verify(drafts)
        verified = self.clock()
        verdicts = self._judge(drafts, out, counts)
        commits = self._commit(bases, counts, drafts, verdicts, out)
        self.session.observe(commits)
        judged = self.clock()

        steps: list[Step] = []
        for i, (live, verdict) in enumerate(zip(self.live, verdicts, strict=True)):
            tokens, finish = cut(live, verdict.tokens)
            accepted = min(len(verdict.path), len(tokens))
            record = StepRecord(
                drafted=sizes[i],
                verified=len(drafts[i]),
                accepted=accepted,
                batch=len(self.live),
                draft_s=drafted - start,
                verify_s=verified - drafted,
                judge_s=judged - verified,
                confidence=seen[i],
                emitted=len(tokens),
                depth=depth(drafts[i]),
                rows=sum(counts),
                seeded=drafts[i].seeded,
                path=None if drafts[i].parents is None else verdict.path,
            )
            self.scheduler.observe(record)
            steps.append(Step(live.number, tokens, accepted, record, finish))
        for step in steps:
            if step.finish:
                self.drop(step.sequence)
        return steps

    def drop(self, sequence: int) -> None:
        """End a sequence; the last one takes its slot. Unknown numbers are ignored."""
        for slot, live in enumerate(self.live):
            if live.number == sequence:
                self.state.leave(slot)
                self.session.leave(slot)
                vacate(self.live, slot)
                return

    def _draft(self) -> tuple[list[Draft], list[int], list[tuple[float, ...]]]:
        """What to verify for every sequence, how much was drafted, and the confidences seen."""
        budgets = [max(0, min(self.scheduler.choose(), live.left - 1)) for live in self.live]
        drafts = list(self.session.propose([live.pending for live in self.live], budgets))
        drafted = [len(draft) for draft in drafts]
        seen: list[tuple[float, ...]] = [()] * len(drafts)
        if self.scheduler.needs_confidence:
            known = [d.confidence for d in drafts if d.confidence is not None]
            numbers = iter(torch.cat(known).tolist()) if known else iter(())  # one copy
            for i, draft in enumerate(drafts):
                if draft.confidence is not None:
                    seen[i] = tuple(islice(numbers, len(draft)))
        sizes = self.scheduler.cut(
            [Proposal(len(d), c, d.parents) for d, c in zip(drafts, seen, strict=True)]
        )
        return [head(d, size) for d, size in zip(drafts, sizes, strict=True)], drafted, seen

    def _verify(self, drafts: Sequence[Draft]) -> Forward:
        heads = upload(torch.tensor([[x.pending] for x in self.live]), self.target.device)
        return self.target.forward(
            self.state,
            [torch.cat([h, d.tokens]) for h, d in zip(heads, drafts, strict=True)],
            parents=[d.parents for d in drafts],
        )

    def _judge(self, drafts: Sequence[Draft], out: Forward, counts: Sequence[int]) -> list[Verdict]:
        """Every judge looks on the device; one copy brings all their numbers to the host."""
        looks = [
            live.judge.look(draft, rows)
            for live, draft, rows in zip(
                self.live, drafts, torch.split(out.logits, list(counts)), strict=True
            )
        ]
        numbers = torch.cat(looks).tolist()
        verdicts: list[Verdict] = []
        for live, draft, look in zip(self.live, drafts, looks, strict=True):
            verdicts.append(live.judge.decide(draft, numbers[: look.shape[0]]))
            del numbers[: look.shape[0]]
        return verdicts

    def _commit(
        self,
        bases: Sequence[int],
        counts: Sequence[int],
        drafts: Sequence[Draft],
        verdicts: Sequence[Verdict],
        out: Forward,
    ) -> list[Commit]:
        """Make the state hold what was kept and no more; say so to whoever learns from it."""
        commits: list[Commit] = []
        offset = 0
        for slot, (live, verdict) in enumerate(zip(self.live, verdicts, strict=True)):
            chain = drafts[slot].parents is None
            if chain:
                self.state.rollback(slot, bases[slot] + len(verdict.tokens))
            else:
                self.state.keep(slot, bases[slot], verdict.path)
            taps = None
            if out.taps is not None:
                rows = out.taps[offset : offset + counts[slot]]
                kept = [0, *(node + 1 for node in verdict.path)]
                taps = rows[: len(kept)] if chain else rows[kept]
            commits.append(Commit(live.pending, verdict.tokens, taps, verdict.guesses))
            live.pending = verdict.tokens[-1]
            offset += counts[slot]
        return commits


def cut(live: Live, tokens: TokenIds) -> tuple[TokenIds, str | None]:
    """What the sequence gets of `tokens`, up to a stop id and no more than it asked for, and
    whether that ends it: "stop", "length" or None."""
    finish = None
    tokens = tokens[: live.left]
    for i, token in enumerate(tokens):
        if token in live.request.stop_ids:
            tokens, finish = tokens[: i + 1], "stop"
            break
    live.left -= len(tokens)
    if finish is None and live.left == 0:
        finish = "length"
    return tokens, finish


def head(draft: Draft, size: int) -> Draft:
    """The first `size` nodes of a draft: parents come first, so it is a draft again."""
    if size >= len(draft):
        return draft
    return Draft(
        draft.tokens[:size],
        None if draft.parents is None else draft.parents[:size],
        None if draft.probs is None else draft.probs[:size],
        None if draft.confidence is None else draft.confidence[:size],
        draft.seeded,
    )


def depth(draft: Draft) -> int | None:
    """The longest path of a tree; None for a chain."""
    if draft.parents is None:
        return None
    return max(depths(Proposal(len(draft), parents=draft.parents)), default=0)


def decode(
    target: Target,
    drafter: Drafter,
    verifier: Verifier,
    scheduler: Scheduler,
    requests: Iterable[Request],
    *,
    slots: int = 1,
    capacity: int | None = None,
    clock: Clock = perf_counter,
) -> Iterator[Step]:
    """Continue every request, up to `slots` at a time; a step per sequence and cycle, as they come.

    `capacity` is the most tokens, prompt included, that one sequence may grow to; by default what
    the longest request needs (then all requests are read at once).
    """
    if capacity is None:
        requests = list(requests)
        capacity = max((len(r.prompt) + r.max_new_tokens for r in requests), default=1)
    decoder = Decoder(
        target, drafter, verifier, scheduler, slots=slots, capacity=capacity, clock=clock
    )
    waiting = iter(requests)
    while True:
        while not decoder.full and (request := next(waiting, None)) is not None:
            yield decoder.join(request)
        if not decoder.live:
            return
        yield from decoder.cycle()
