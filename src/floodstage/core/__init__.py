"""Floor 0: records, protocols, errors, configuration, clock. Standard library only."""
