"""floodstage: generate in parallel what is usually generated one step at a time."""
