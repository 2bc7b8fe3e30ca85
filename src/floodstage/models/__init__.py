"""Floor 2: tensors in, logits out. Models, their caches and their files."""
