"""Floor 5: make the weights. Targets, drafters, their data and the one training loop."""
