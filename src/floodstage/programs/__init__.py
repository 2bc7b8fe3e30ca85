"""Floor 4: candidate programs: read, filter, run apart, judge, store. No tensors, no models."""
