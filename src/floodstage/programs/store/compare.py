"""Two stores side by side: which programs have another verdict, or another output. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from floodstage.programs.records import Kind, Verdict
from floodstage.programs.store.outputs import resolved
from floodstage.programs.store.store import Store

Key: TypeAlias = tuple[str, str]  # task, address of the program


@dataclass(frozen=True, slots=True)
class Change:
    """A program that came to something else. `what` is "verdict", or "output" where the verdict
    is the same and an output is not."""

    task_id: str
    first: str  # its id in the first store
    second: str
    what: str
    before: Kind
    after: Kind


@dataclass(frozen=True, slots=True)
class Comparison:
    """Programs of both stores, matched by task and text, whatever their ids."""

    same: int
    changed: tuple[Change, ...]
    only_first: int
    only_second: int


def compare(first: Store, second: Store) -> Comparison:
    """What changed from the first store to the second. A duplicate has its original's verdict.
    Outputs are compared where both stores still have them."""
    one, two = _by_program(first), _by_program(second)
    changed: list[Change] = []
    common = [key for key in one if key in two]
    for key in common:
        (name, before), (other, after) = one[key], two[key]
        what = "verdict" if before.kind is not after.kind else ""
        what = what or _outputs(first, before, second, after)
        if what:
            changed.append(Change(key[0], name, other, what, before.kind, after.kind))
    return Comparison(
        len(common) - len(changed), tuple(changed), len(one) - len(common), len(two) - len(common)
    )


def _by_program(store: Store) -> dict[Key, tuple[str, Verdict]]:
    """The first candidate of each program, and what it came to in the end."""
    digests, found = store.digests(), dict[Key, tuple[str, Verdict]]()
    verdicts = list(store.verdicts())
    finals = resolved(verdicts)
    for verdict in verdicts:
        key = verdict.task_id, digests[verdict.candidate_id]
        found.setdefault(key, (verdict.candidate_id, finals[verdict.candidate_id]))
    return found


def _outputs(first: Store, before: Verdict, second: Store, after: Verdict) -> str:
    one, two = first.trials(before.candidate_id), second.trials(after.candidate_id)
    pairs = zip(one, two, strict=False)
    return "output" if any((a.kind, a.output) != (b.kind, b.output) for a, b in pairs) else ""
