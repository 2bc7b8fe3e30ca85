"""Floor 5: put the parts together. Names become objects in `build`, and nowhere else."""
