"""How likely a draft's nodes are to be reached and accepted, from what its drafter believes.

The belief is the drafter's own probability of each token; `Calibration` learns online how far it
can be trusted (a logistic regression on the belief and the position; censored outcomes are left
out, so a draft that was cut teaches nothing about what was cut off).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from floodstage.core.types import Proposal, StepRecord


def survival(draft: Proposal, chance: Sequence[float] | None = None) -> list[float]:
    """Per node the product of the chances on its path, its own included. By default the drafter's
    confidence is the chance."""
    out: list[float] = []
    for i, c in enumerate(draft.confidence if chance is None else chance):
        parent = i - 1 if draft.parents is None else draft.parents[i]
        out.append(c if parent < 0 else c * out[parent])
    return out


def depths(draft: Proposal) -> list[int]:
    """Per node its position after the pending token, from 1."""
    if draft.parents is None:
        return list(range(1, draft.size + 1))
    out: list[int] = []
    for parent in draft.parents:
        out.append(1 if parent < 0 else out[parent] + 1)
    return out


def at_risk(draft: Proposal, record: StepRecord) -> list[tuple[int, bool]]:
    """The verified nodes whose parent was accepted, and whether they were accepted themselves.

    Where the text ended inside the draft, what came after the end was never judged.
    """
    path = range(record.accepted) if record.path is None else record.path[: record.accepted]
    known = [(node, True) for node in path]
    if record.gained <= record.accepted:  # no token of the target's own: the text ended here
        return known
    last = path[-1] if path else -1
    if draft.parents is None:
        failed = [last + 1]
    else:
        failed = [n for n, p in enumerate(draft.parents[: record.verified]) if p == last]
    return known + [(node, False) for node in failed if node < record.verified]


@dataclass(slots=True)
class Calibration:
    """P(node accepted | its parent was) = sigmoid(a * logit(confidence) + b + bias[position]).

    Starts at trusting the drafter (a = 1, b = 0) with the weight of `prior` observations, and
    takes a diagonal Newton step per observation.
    """

    prior: float = 20.0
    weights: dict[int, float] = field(default_factory=dict)  # -1: a, 0: b, k > 0: bias of k
    curvature: dict[int, float] = field(default_factory=dict)

    def chances(self, draft: Proposal) -> list[float]:
        """Per node the chance that it is accepted if its parent is."""
        slope, shift, get = self._weight(-1), self._weight(0), self.weights.get
        return [
            _sigmoid(slope * _belief(draft, node) + shift + get(k, 0.0))
            for node, k in enumerate(depths(draft))
        ]

    def observe(self, draft: Proposal, outcomes: Sequence[tuple[int, bool]]) -> None:
        """Learn from nodes that were at risk."""
        places = depths(draft)
        for node, accepted in outcomes:
            x, k = _belief(draft, node), places[node]
            p = _sigmoid(self._weight(-1) * x + self._weight(0) + self._weight(k))
            error, slope = p - accepted, p * (1 - p)
            for name, feature in ((-1, x), (0, 1.0), (k, 1.0)):
                bent = self.curvature.get(name, self.prior) + slope * feature * feature
                self.curvature[name] = bent
                self.weights[name] = self._weight(name) - error * feature / bent

    def _weight(self, name: int) -> float:
        return self.weights.get(name, 1.0 if name == -1 else 0.0)


def _sigmoid(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z)) if z > -30.0 else 0.0


def _belief(draft: Proposal, node: int) -> float:
    """Log-odds of a node's confidence; even odds where there is none."""
    if not draft.confidence:
        return 0.0
    p = draft.confidence[node]
    p = 1e-4 if p < 1e-4 else 0.9999 if p > 0.9999 else p
    return math.log(p / (1 - p))
