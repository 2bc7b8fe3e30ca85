"""Run programs of a store again, as they were run, and compare."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from floodstage.core.spans import Spans
from floodstage.programs.records import OPEN_KINDS, Candidate, Task
from floodstage.programs.sandbox.limits import Limits
from floodstage.programs.sandbox.selftest import selftest
from floodstage.programs.store.compare import Comparison, compare
from floodstage.programs.store.store import Store
from floodstage.programs.validate import (
    Report,
    Selection,
    ValidateConfig,
    identity_of,
    level_of,
    validate,
)


def verifiable(run: Path, chosen: Selection) -> list[Candidate]:
    """The chosen ones of the programs of a run that were run and are kept."""
    with Store(run) as store:
        ran = {
            v.candidate_id
            for v in store.verdicts()
            if not v.duplicate_of and v.kind not in OPEN_KINDS
        }
        return chosen.of([c for c in store.candidates() if c.id in ran])


def verify(
    run: Path,
    candidates: Sequence[Candidate],
    tasks: Mapping[str, Task],
    *,
    preload: tuple[Path, ...] = (),
    workers: int = 1,
    report: Report = lambda verdict: None,
) -> Comparison:
    """What changes when `candidates` of a run are run again under its limits. The run is not
    touched. Raises RunError where tasks, libraries, isolation or interpreter are others."""
    with Store(run) as store:
        config = _config(store.identity(), preload, workers)
    isolation = selftest(level_of(config.isolation))
    identity = identity_of(tasks, config, isolation)
    with Store(run, identity) as store, tempfile.TemporaryDirectory() as folder:
        again = Path(folder)
        validate(candidates, tasks, again, config, Spans(), report)
        with Store(again) as second:
            return compare(store, second)


def _config(identity: Mapping[str, Any], preload: tuple[Path, ...], workers: int) -> ValidateConfig:
    return ValidateConfig(
        workers=workers,
        limits=Limits(**identity["limits"]),
        isolation=identity["isolation"],
        preload=preload,
        tuples=identity["grids"] == "tuples",
        every_sample=identity["every_sample"],
        find_duplicates=identity["duplicates"],
        check_forms=identity["check_forms"],
    )
