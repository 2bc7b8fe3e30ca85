"""Floor 1: pure tensor functions. No models, no state."""
