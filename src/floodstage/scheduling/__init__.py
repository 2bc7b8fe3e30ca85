"""Floor 3: how much to guess, and how much of it to verify. Records only, never tensors."""
