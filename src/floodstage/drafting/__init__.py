"""Floor 3: what to guess. One file per drafter, each behind `core.protocols.Drafter`."""
