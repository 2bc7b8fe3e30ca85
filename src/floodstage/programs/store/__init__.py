"""What is kept of a run, and the files made from it."""
